// The page: reads the API every two seconds, and draws what it answers. No figure is made here but sums and units.
import { drawCharts, forgetCharts } from "./charts.js";
import { connectWhatIf, showPresent } from "./what_if.js";
import { carbon, clock, duration, figure, make, money, power, replicas, share } from "./format.js";

const PERIOD_MS = 2000, SLOWEST_MS = 15000, TIMEOUT_MS = 8000, ROWS = 50, LENGTH_S = 900;
const $ = (id) => document.getElementById(id);
const state = { text: "", offset: 0, chosen: null, history: {}, lost: null, delay: PERIOD_MS, etag: "", sloMet: {}, order: [] };

function chosenInAddress() {
  const parts = location.hash.match(/^#\/([^/]+)\/([^/]+)$/);
  return parts ? { namespace: decodeURIComponent(parts[1]), name: decodeURIComponent(parts[2]) } : null;
}
const addressOf = (one) => `#/${encodeURIComponent(one.namespace)}/${encodeURIComponent(one.name)}`;
const same = (a, b) => a && b && a.namespace === b.namespace && a.name === b.name;

async function get(path, headers = {}) {
  // A request that never ends (a laptop that was closed, a lost tunnel) must not stop the page from trying again.
  const response = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (response.status === 304) return null;
  if (response.status === 404) return { missing: true };
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  state.etag = response.headers.get("ETag") || state.etag;
  return response.json();
}

function listPath() {
  return `api/services?${new URLSearchParams({ text: state.text, offset: state.offset, limit: ROWS })}`;
}

async function refreshList(force = false) {
  const asked = listPath();
  const list = await get(asked, force || !state.etag ? {} : { "If-None-Match": state.etag });
  if (!list || asked !== listPath()) return;
  showSource(list.source, list.now);
  showTotals(list.totals);
  showList(list);
  if (!state.chosen && list.services.length) choose(list.services[0], false);
}

async function refreshService() {
  const asked = state.chosen;
  if (!asked) return;
  const since = newest();
  const found = await get(`api/services/${encodeURIComponent(asked.namespace)}/${encodeURIComponent(asked.name)}?since=${since}`);
  if (!same(asked, state.chosen)) return;
  if (found.missing) return showMissing(asked);
  showSource(found.source, found.now);
  keepHistory(found.history, found.now);
  showService(found.service, found.decisions);
  drawCharts(state.history, state.order, found.now, found.service);
}

let timer = 0, running = false, again = false;
async function tick(force = false) {
  if (running) { again = again || force; return; }
  running = true;
  clearTimeout(timer);
  try {
    await Promise.all([refreshList(force), refreshService()]);
    state.delay = PERIOD_MS;
    setLost(null);
  } catch (error) {
    setLost(error);
    state.delay = Math.min(state.delay * 1.5, SLOWEST_MS);
  }
  running = false;
  if (again) { again = false; tick(true); return; }
  // A page that is not visible asks nothing; it asks at once when it is visible again.
  if (!document.hidden) timer = setTimeout(tick, state.delay);
}

function setLost(error) {
  if (error && !state.lost) {
    state.lost = Date.now();
    console.debug("the console does not answer:", error);
  }
  if (!error && state.lost) {
    state.lost = null;
    announce("The console answers again.");
  }
  showBanner();
}

let sourceError = null;
function showSource(source, now) {
  sourceError = source.error ? { error: source.error, since: source.since, time: source.time } : null;
  $("updated").textContent = source.time ? `Figures of ${clock(source.time)}, ${source.kind === "local" ? "services of this machine" : "services of the cluster"}.` : "";
  state.local = source.kind === "local";
  state.now = now;
  showBanner();
}

function showBanner() {
  let text = "";
  if (state.lost) text = `No connection to the console since ${clock(state.lost / 1000)}. What is shown is of then; trying again.`;
  else if (sourceError) text = `The services cannot be read since ${clock(sourceError.since)}: ${sourceError.error}.${sourceError.time ? ` What is shown is of ${clock(sourceError.time)}.` : ""}`;
  const banner = $("offline");
  // Written only when it changes: each write is read out.
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = !text;
}

function announce(text) { $("announce").textContent = text; }

function showTotals(totals) {
  const part = (name) => totals[`${name}Services`] < totals.services && totals[name] !== null ? `of ${totals[`${name}Services`]} services` : "";
  const entries = [
    ["Services ready", `${totals.ready}/${totals.services}`, ""],
    ["Replicas", replicas(totals.running, totals.desired), ""],
    ["Requests/s", figure(totals.arrivalsPerSecond), part("arrivalsPerSecond")],
    ["Cost per hour", money(totals.costPerHour), part("costPerHour")],
    ["Power", power(totals.watts), part("watts")],
    ["CO\u2082e per hour", carbon(totals.carbonGramsPerHour), part("carbonGramsPerHour")],
  ].filter(([, value]) => value !== null);
  update($("totals"), entries, ([label]) => label, () => {
    const box = make("div");
    box.append(make("dt"), make("dd"));
    return box;
  }, (box, [label, value, note]) => {
    setText(box.children[0], label);
    const text = note ? `${value} ` : value;
    if (box.dataset.text !== text + note) {
      box.dataset.text = text + note;
      box.children[1].replaceChildren(text, ...(note ? [make("small", note)] : []));
    }
  });
}

function showList(list) {
  const body = $("services").tBodies[0];
  update(body, list.services, (one) => `${one.namespace}/${one.name}`, newRow, fillRow);
  const all = list.totals.services;
  setText($("matching"), !all ? "No service yet. Start one with tierserve up FILE or kubectl apply -f FILE." : state.text ? `${list.matching} of ${all} services match` : `${all} service${all === 1 ? "" : "s"}`);
  $("pager").hidden = list.matching <= ROWS;
  setText($("page"), `${list.offset + 1} to ${Math.min(list.offset + ROWS, list.matching)} of ${list.matching}`);
  $("previous").disabled = list.offset === 0;
  $("next").disabled = list.offset + ROWS >= list.matching;
  if (list.offset >= list.matching && list.offset > 0) { state.offset = 0; tick(true); }
}

function newRow() {
  const row = make("tr"), link = make("a");
  link.append(make("span"), make("small"));
  const first = make("th");
  first.scope = "row";
  first.append(link);
  row.append(first, make("td"), make("td"), make("td"), make("td"));
  [2, 3, 4].forEach((n) => row.children[n].classList.add("number"));
  return row;
}

function fillRow(row, one) {
  const link = row.children[0].firstChild;
  link.href = addressOf(one);
  setText(link.children[0], one.name);
  setText(link.children[1], state.local ? "" : one.namespace);
  const [words, kind] = stateOf(one);
  setText(row.children[1], words);
  row.children[1].className = kind;
  setText(row.children[2], replicas(one.running, one.desired) ?? "\u2013");
  setText(row.children[3], duration(one.p95Seconds) ?? "\u2013");
  row.children[3].className = `number ${one.sloMet === "False" ? "bad" : ""}`;
  setText(row.children[4], figure(one.arrivalsPerSecond) ?? "\u2013");
  const chosen = same(one, state.chosen);
  row.className = chosen ? "chosen" : "";
  if (chosen) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
}

function stateOf(one) {
  if (one.problems.length) return ["Problem", "bad"];
  if (one.ready === "True") return [one.reason === "ScaledToZero" ? "Scaled to zero" : "Ready", "good"];
  return one.ready === "False" ? ["Not ready", "bad"] : ["Unknown", ""];
}

function choose(one, move = true) {
  if (!same(one, state.chosen)) {
    state.chosen = one;
    state.history = {};
    forgetCharts();
    $("wi-result").replaceChildren();
    $("wi-errors").replaceChildren();
  }
  if (location.hash !== addressOf(one)) history.replaceState(null, "", addressOf(one));
  tick(true).then(() => { if (move) $("main").focus({ preventScroll: innerWidth > 900 }); });
}

function showMissing(one) {
  $("service").hidden = true;
  $("empty").hidden = false;
  setText($("empty"), `There is no service ${one.namespace}/${one.name}.`);
}

function newest() {
  const times = Object.values(state.history).map((columns) => columns.time.at(-1) ?? 0);
  return times.length ? Math.max(...times) : 0;
}

function keepHistory(fresh, now) {
  for (const [tier, columns] of Object.entries(fresh)) {
    const kept = (state.history[tier] ??= Object.fromEntries(Object.keys(columns).map((name) => [name, []])));
    const old = kept.time.filter((time) => time < now - LENGTH_S).length;
    // Two answers can overlap: a sample that is there already is left out.
    const first = columns.time.findIndex((time) => time > (kept.time.at(-1) ?? 0));
    for (const name of Object.keys(kept)) {
      kept[name].splice(0, old);
      if (first >= 0) kept[name].push(...columns[name].slice(first));
    }
  }
}

function showService(one, decisions) {
  document.body.classList.add("has-service");
  $("empty").hidden = true;
  $("service").hidden = false;
  document.title = `${one.name} \u2013 TierServe console`;
  setText($("name"), state.local ? one.name : `${one.namespace}/${one.name}`);
  const [words, kind] = stateOf(one);
  setText($("state"), words);
  $("state").className = `badge ${kind}`;
  const slo = { True: ["Target met", "good"], False: ["Target missed", "bad"] }[one.sloMet];
  $("slo").hidden = !slo;
  if (slo) { setText($("slo"), slo[0]); $("slo").className = `badge ${slo[1]}`; }
  announceChange(one, words, slo?.[0]);
  setText($("facts"), [
    one.targetSeconds !== null ? `target p${one.percentile} ${duration(one.targetSeconds)}` : null,
    one.connections != null ? `${one.connections} requests in flight or queued` : null,
    one.endpoint,
    money(one.costPerHour) ? `${money(one.costPerHour)} per hour` : null,
    power(one.watts),
    carbon(one.carbonGramsPerHour) ? `${carbon(one.carbonGramsPerHour)} CO\u2082e per hour` : null,
  ].filter(Boolean).join(" \u00b7 "));
  const wrong = [...one.problems];
  if (one.ready !== "True" && one.message) wrong.push(`Ready: ${one.message}`);
  for (const c of one.conditions) {
    const bad = c.type === "Degraded" ? "True" : ["SLOMet", "ScalingActive", "Accepted"].includes(c.type) ? "False" : null;
    if (bad && c.status === bad) wrong.push(`${c.type}: ${c.reason}: ${c.message}`);
  }
  update($("problems"), wrong, (text) => text, () => make("li"), setText);
  state.order = one.tiers.map((tier) => tier.name);
  showFlow(one);
  showDecisions(decisions);
  update($("conditions").tBodies[0], one.conditions, (c) => c.type, () => {
    const row = make("tr");
    row.append(make("th"), make("td"), make("td"), make("td"));
    row.children[0].scope = "row";
    return row;
  }, (row, c) => [c.type, c.status, c.reason, c.message].forEach((text, n) => setText(row.children[n], text ?? "")));
  showPresent(one);
}

const last = {};
function announceChange(one, ...words) {
  // Only what changes the meaning is read out, not each figure.
  const key = addressOf(one), text = words.filter(Boolean).join(", ");
  if (key in last && last[key] !== text) announce(`${one.name}: ${text}`);
  last[key] = text;
}

const sum = (values) => { const there = values.filter((v) => v !== undefined && v !== null); return there.length ? there.reduce((a, b) => a + b, 0) : null; };

function showFlow(one) {
  setText($("arrivals"), figure(one.arrivalsPerSecond) ?? "\u2013");
  const items = one.tiers.map((tier, n) => ({ tier, n, pools: one.poolStatus.filter((pool) => (pool.tier ?? pool.pool) === tier.name) }));
  update($("flow"), items, ({ tier }) => tier.name, newTier, (box, item) => fillTier(box, item, one.arrivalsPerSecond));
  update($("sites"), items.filter(({ pools }) => pools.length > 1), ({ tier }) => tier.name, newSites, fillSites);
}

function newTier({ tier }) {
  const lane = make("div"), link = make("div"), card = make("div"), head = make("h4");
  lane.className = "lane";
  link.setAttribute("aria-hidden", "true");
  card.className = "tier";
  head.append(make("span", tier.name), " ", make("small"));
  card.append(head, make("dl"));
  lane.append(link, card);
  return lane;
}

function fillTier(lane, { tier, n, pools }, all) {
  lane.style.setProperty("--tier", `var(--tier-${n % 6})`);
  const link = lane.firstChild, rate = tier.arrivals_per_s ?? 0;
  link.className = `link${rate > 0 ? " moving" : ""}`;
  // From 2 s a cycle at few requests to 0.3 s at many; the width is the share of all requests.
  link.style.setProperty("--speed", `${(2 / Math.sqrt(1 + rate) + 0.3).toFixed(1)}s`);
  link.style.width = `${Math.round(3 + 9 * (all ? rate / all : 0))}px`;
  const models = [...new Set(pools.map((pool) => pool.model).filter(Boolean))].join(", "), kind = pools[0]?.kind;
  setText(lane.querySelector("small"), [kind && kind !== tier.name ? kind : null, models].filter(Boolean).join(" \u00b7 "));
  const late = tier.p95_s !== null && tier.target_s !== null && tier.p95_s > tier.target_s;
  const ready = pools.filter((pool) => pool.ready).length, busiest = Math.max(...pools.map((pool) => pool.decision?.rho ?? -1));
  const rows = [
    ["Sites ready", pools.length > 1 ? `${ready} of ${pools.length}` : null, ready < pools.length ? "bad" : ""],
    ["Replicas", replicas(tier.running, tier.desired) ?? "unknown", ready < pools.length ? "bad" : ""],
    ["Requests/s", tier.arrivals_per_s === null ? null : `${figure(tier.arrivals_per_s)}${all ? ` (${share(rate / all)})` : ""}`, ""],
    ["In flight", figure(sum(pools.map((pool) => pool.gateway?.in_flight))), ""],
    ["Queued", figure(sum(pools.map((pool) => pool.gateway?.queued))), ""],
    ["Utilisation", busiest >= 0 ? `${Math.round(busiest * 100)} %` : null, ""],
    ["p95", duration(tier.p95_s), late ? "bad" : "good"],
    ["Target", duration(tier.target_s), ""],
    ["Cost per hour", money(sum(pools.map((pool) => pool.costPerHour))), ""],
    ["CO\u2082e per hour", carbon(sum(pools.map((pool) => pool.carbonGramsPerHour))), ""],
  ].filter(([, value]) => value !== null);
  const cells = rows.flatMap(([label, value, css]) => [{ id: `dt ${label}`, text: label, tag: "dt", css: "" }, { id: `dd ${label}`, text: value, tag: "dd", css }]);
  update(lane.querySelector("dl"), cells, (cell) => cell.id, (cell) => make(cell.tag), (node, cell) => { setText(node, cell.text); node.className = cell.css; });
}

function newSites({ tier }) {
  const details = make("details"), scroll = make("div"), table = make("table"), row = table.createTHead().insertRow();
  scroll.className = "scroll tall";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", `Sites of ${tier.name}`);
  for (const [n, text] of ["Site", "Replicas", "Requests/s", "In flight", "Queued", "Utilisation", "p95"].entries()) {
    const cell = make("th", text);
    cell.scope = "col";
    if (n) cell.className = "number";
    row.append(cell);
  }
  table.append(make("tbody"));
  scroll.append(table);
  details.append(make("summary"), scroll);
  return details;
}

function fillSites(details, { tier, pools }) {
  setText(details.querySelector("summary"), `${pools.length} sites of ${tier.name}, ${pools.filter((pool) => pool.ready).length} ready`);
  if (!details.open && details.querySelector("tbody").firstChild) return;  // fifty closed rows need no work
  update(details.querySelector("tbody"), pools, (pool) => pool.pool, () => {
    const row = make("tr"), head = make("th");
    head.scope = "row";
    row.append(head, ...[1, 2, 3, 4, 5, 6].map(() => { const cell = make("td"); cell.className = "number"; return cell; }));
    return row;
  }, (row, pool) => {
    const busy = pool.decision?.rho;
    const texts = [pool.site ?? pool.pool, replicas(pool.running, pool.desired), figure(pool.decision?.lambda ?? pool.gateway?.rate), figure(pool.gateway?.in_flight), figure(pool.gateway?.queued), busy === undefined || busy === null ? null : `${Math.round(busy * 100)} %`, duration(pool.gateway?.p95_s)];
    texts.forEach((text, k) => setText(row.children[k], text ?? "\u2013"));
    row.children[1].className = `number ${pool.ready ? "" : "bad"}`;
  });
}

function showDecisions(decisions) {
  const list = decisions.length ? decisions : [{ none: true }];
  update($("decisions"), list, (d) => d.none ? "none" : `${d.time} ${d.pool}`, (d) => {
    const item = make("li");
    if (d.none) { item.textContent = "No decision yet."; return item; }
    const time = make("time", clock(d.time)), change = make("span", d.previous === null ? `${d.desired}` : `${d.previous} to ${d.desired}`), reason = make("span", d.reason);
    time.dateTime = new Date(d.time * 1000).toISOString();
    change.className = "change";
    reason.className = "reason";
    item.append(time, make("span", d.pool.replace(/-default$/, "")), change, reason);
    return item;
  }, () => {});
}

// Children of `parent` for `items`: those that stay are changed in place, so that focus, selection and scrolling last.
function update(parent, items, keyOf, create, fill) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = there.get(key);
    there.delete(key);
    if (!child) { child = create(item); child.dataset.key = key; }
    if (child !== at) parent.insertBefore(child, at); else at = at.nextElementSibling;
    fill(child, item);
  }
  for (const child of there.values()) child.remove();
}
function setText(node, text) { if (node.textContent !== text) node.textContent = text; }

function connectTheme() {
  const button = $("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => { setText(button, dark() ? "Light theme" : "Dark theme"); dispatchEvent(new Event("themechange")); };
  button.addEventListener("click", () => {
    const next = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("tierserve-theme", next); } catch { /* storage is forbidden: for this page only */ }
    show();
  });
  system.addEventListener("change", show);
  show();
}

let typing = 0;
$("filter").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => { state.text = event.target.value.trim(); state.offset = 0; tick(true); }, 150);
});
$("previous").addEventListener("click", () => { state.offset = Math.max(0, state.offset - ROWS); tick(true); });
$("next").addEventListener("click", () => { state.offset += ROWS; tick(true); });
addEventListener("hashchange", () => { const one = chosenInAddress(); if (one) choose(one); });
addEventListener("online", () => tick(true));
document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(true); });
addEventListener("themechange", () => { if (state.chosen) drawCharts(state.history, state.order, state.now, null); });
connectTheme();
connectWhatIf(() => state.chosen);
state.chosen = chosenInAddress();
tick(true);
