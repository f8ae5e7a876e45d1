// The what-if form: sends what was filled in to the planner, and shows its plan beside the present.
import { carbon, duration, figure, make, money, replicas } from "./format.js";

const $ = (id) => document.getElementById(id);
const INPUTS = { connections: "wi-connections", thinkSeconds: "wi-think", targetSeconds: "wi-target", "spec.objective.responseTime.target": "wi-target" };
let present = null;

export function showPresent(service) {
  present = service;
  const target = service.targetSeconds === null ? "" : `empty: ${duration(service.targetSeconds)}`;
  if ($("wi-target-hint").textContent !== target) $("wi-target-hint").textContent = target;
  const tiers = service.tiers.map((tier) => tier.name), prices = $("prices"), key = `${service.namespace}/${service.name} ${tiers.join(" ")}`;
  if (prices.dataset.key === key) return;  // rebuilt only for another service: an input that is typed in must stay
  prices.dataset.key = key;
  prices.replaceChildren(...tiers.map((tier, n) => {
    const field = make("div"), label = make("label", tier), input = make("input");
    field.className = "field";
    input.id = label.htmlFor = `wi-price-${n}`;
    input.name = `prices.${tier}`;
    input.inputMode = "decimal";
    input.autocomplete = "off";
    field.append(label, input);
    return field;
  }));
}

// A number, undefined for an empty field; what is no number is sent as it is, and refused with the name of its field.
function valueOf(input, scale = 1) {
  const text = input.value.trim().replaceAll(",", "").replaceAll("_", "");
  if (!text) return undefined;
  const value = Number(text);
  return Number.isFinite(value) ? value * scale : text;
}

export function connectWhatIf(chosen) {
  $("what-if").addEventListener("submit", async (event) => {
    event.preventDefault();
    const one = chosen();
    if (!one) return;
    const prices = Object.fromEntries([...$("prices").querySelectorAll("input")].map((i) => [i.name.slice("prices.".length), valueOf(i)]));
    const body = { namespace: one.namespace, name: one.name, connections: valueOf($("wi-connections")), thinkSeconds: valueOf($("wi-think")), targetSeconds: valueOf($("wi-target"), 0.001), prices };
    const button = $("wi-submit");
    button.setAttribute("aria-disabled", "true");
    clearErrors();
    $("wi-result").replaceChildren(make("p", "Planning \u2026"));  // the first plan takes some seconds: the planner starts
    try {
      const response = await fetch("api/what-if", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      const answered = await response.json();
      if (response.ok) showResult(answered, present);
      else showErrors(answered.errors);
    } catch {
      showErrors([{ field: "", message: "the console does not answer", hint: "try again" }]);
    }
    button.removeAttribute("aria-disabled");
  });
}

function clearErrors() {
  $("wi-errors").replaceChildren();
  for (const input of $("what-if").querySelectorAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  }
}

function showErrors(errors) {
  $("wi-result").replaceChildren();
  let first = null;
  errors.forEach((error, n) => {
    const text = make("p", `${[error.field, error.message].filter(Boolean).join(": ")}${error.hint ? ` \u2013 ${error.hint}` : ""}`);
    text.id = `wi-error-${n}`;
    $("wi-errors").append(text);
    const input = $(INPUTS[error.field]) ?? [...$("prices").querySelectorAll("input")].find((i) => i.name === error.field);
    if (!input) return;
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", text.id);
    first ??= input;
  });
  first?.focus();
}

function showResult(plan, now) {
  const load = plan.requestsPerSecond > 0 ? `${figure(plan.requestsPerSecond)} requests/s` : "no load";
  const words = plan.meets
    ? `${load}: ${plan.replicas} replicas keep p${plan.percentile} under ${duration(plan.targetSeconds)}.`
    : plan.unservedRequestsPerSecond > 0
      ? `${load}: ${figure(plan.unservedRequestsPerSecond)} requests/s find no tier within ${duration(plan.targetSeconds)}; up to ${figure(Math.floor(plan.servedUpToConnections ?? 0))} connections all are served.`
      : `${load}: the target p${plan.percentile} ${duration(plan.targetSeconds)} is missed.`;
  const summary = make("p", words), scroll = make("div"), table = make("table");
  summary.className = plan.meets ? "good" : "bad";
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Plan by tier");
  const groups = ["Requests/s", "Replicas", "p95", "Cost per hour", "CO\u2082e per hour"];
  const upper = table.createTHead().insertRow(), lower = table.tHead.insertRow();
  upper.append(heading("Tier", { rowSpan: 2, scope: "col" }), ...groups.map((name) => heading(name, { colSpan: 2, scope: "colgroup" })), heading("Set by", { rowSpan: 2, scope: "col" }));
  lower.append(...groups.flatMap(() => ["now", "what if"].map((name) => heading(name, { scope: "col", className: "number" }))));
  table.append(make("tbody"), make("tfoot"));
  const pools = (tier) => now.poolStatus.filter((pool) => (pool.tier ?? pool.pool) === tier);
  const sum = (values) => { const there = values.filter((v) => v !== undefined && v !== null); return there.length ? there.reduce((a, b) => a + b, 0) : null; };
  for (const tier of plan.tiers) {
    const current = now.tiers.find((one) => one.name === tier.tier), its = pools(tier.tier);
    table.tBodies[0].append(line([
      tier.tier, figure(current?.arrivals_per_s), figure(tier.requestsPerSecond), replicas(current?.running, current?.desired), figure(tier.replicas), duration(current?.p95_s), duration(tier.responseSeconds),
      money(sum(its.map((p) => p.costPerHour))), money(tier.costPerHour), carbon(sum(its.map((p) => p.carbonGramsPerHour))), carbon(tier.carbonGramsPerHour), tier.binds.join(", "),
    ]));
  }
  table.tFoot.append(line([
    "All", figure(now.arrivalsPerSecond), figure(plan.requestsPerSecond), replicas(now.running, now.desired), figure(plan.replicas), duration(now.p95Seconds), duration(plan.responseSeconds || null),
    money(now.costPerHour), money(plan.costPerHour), carbon(now.carbonGramsPerHour), carbon(plan.carbonGramsPerHour), "",
  ]));
  scroll.append(table);
  $("wi-result").replaceChildren(summary, scroll);
}

function heading(text, properties) { return Object.assign(make("th", text), properties); }

function line(texts) {
  const row = make("tr");
  texts.forEach((text, n) => {
    const cell = make(n ? "td" : "th", text ?? "\u2013");
    if (!n) cell.scope = "row"; else if (n < 11) cell.className = "number";
    row.append(cell);
  });
  return row;
}
