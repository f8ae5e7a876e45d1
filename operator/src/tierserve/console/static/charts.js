// Three line charts of a service: one line per tier, drawn by uPlot, which is loaded with the first of them.
import { duration, figure, make } from "./format.js";

const CHARTS = [
  { id: "chart-p95", column: "p95Seconds", scale: 1000, unit: (v) => `${Math.round(v)} ms`, label: "p95 response time", words: (v) => duration(v), target: true, stepped: false },
  { id: "chart-running", column: "running", scale: 1, unit: figure, label: "replicas", words: figure, stepped: true },
  { id: "chart-arrivals", column: "arrivalsPerSecond", scale: 1, unit: figure, label: "requests per second", words: figure, stepped: false },
];
const LENGTH_S = 900;
const drawn = new Map();
let loading = null, asked = null;

export function forgetCharts() {
  for (const chart of drawn.values()) chart.plot.destroy();
  drawn.clear();
  asked = null;
}

export async function drawCharts(history, order, now, service) {
  asked = { history, order, now, service };
  loading ??= import("./vendor/uplot/uPlot.esm.js");
  const { default: UPlot } = await loading;
  // The service may have changed while the library was loading; only the last request is drawn.
  if (asked?.history !== history) return;
  const tiers = order.filter((tier) => history[tier]);
  const times = [...new Set(tiers.flatMap((tier) => history[tier].time))].sort((a, b) => a - b);
  showLegend(tiers);
  for (const chart of CHARTS) draw(UPlot, chart, tiers, history, times, now);
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function showLegend(tiers) {
  const key = tiers.join("\n");
  const legend = document.getElementById("legend");
  if (legend.dataset.key === key) return;
  legend.dataset.key = key;
  legend.replaceChildren(...tiers.map((tier, n) => entry(tier, `var(--tier-${n % 6})`, "")), entry("target", "", "dashed"));
}
function entry(text, tier, css) {
  const item = make("li"), line = make("i");
  line.className = css;
  if (tier) line.style.setProperty("--tier", tier);
  item.append(line, text);
  return item;
}

function draw(UPlot, chart, tiers, history, times, now) {
  const box = document.getElementById(chart.id);
  const column = (tier, name) => {
    const at = new Map(history[tier].time.map((time, n) => [time, n]));
    return times.map((time) => {
      const value = at.has(time) ? history[tier][name][at.get(time)] : null;
      return value === null ? null : value * chart.scale;
    });
  };
  const data = [times, ...tiers.map((tier) => column(tier, chart.column))];
  if (chart.target) data.push(lowest(tiers.map((tier) => column(tier, "targetSeconds"))));
  const theme = colour("--page");
  const key = `${tiers.join("\n")} ${theme}`;
  let there = drawn.get(chart.id);
  if (there && there.key !== key) { there.plot.destroy(); there = null; }
  if (!there) {
    box.replaceChildren();
    there = { key, now, plot: new UPlot(options(UPlot, chart, tiers, box, () => drawn.get(chart.id)?.now ?? now), data, box) };
    drawn.set(chart.id, there);
    sizes.observe(box);
  } else {
    there.now = now;
    there.plot.setData(data);
  }
  box.setAttribute("aria-label", inWords(chart, tiers, history));
}

function lowest(columns) {
  return columns.length ? columns[0].map((_, n) => { const there = columns.map((c) => c[n]).filter((v) => v !== null); return there.length ? Math.min(...there) : null; }) : [];
}

function options(UPlot, chart, tiers, box, now) {
  const line = colour("--line"), muted = colour("--muted"), font = "12px system-ui, sans-serif";
  const axis = { stroke: muted, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 } };
  const paths = chart.stepped ? UPlot.paths.stepped({ align: 1 }) : undefined;
  const lines = tiers.map((tier, n) => ({ label: tier, stroke: colour(`--tier-${n % 6}`), width: 2, points: { show: false }, paths }));
  if (chart.target) lines.push({ label: "target", stroke: colour("--target"), width: 2, dash: [7, 5], points: { show: false } });
  return {
    width: Math.max(200, box.clientWidth), height: box.clientHeight, legend: { show: false }, cursor: { show: false }, padding: [8, 8, 0, 0],
    scales: {
      // Always 15 minutes, so that a gap or a young console is seen as one.
      x: { range: () => [now() - LENGTH_S, now()] },
      y: { range: (_, low, high) => [0, high === null || !(high > 0) ? 1 : high * 1.12] },
    },
    axes: [
      { ...axis, size: 30, space: 70, values: (_, splits) => splits.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })) },
      { ...axis, size: 66, space: 32, incrs: chart.stepped ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] : undefined, values: (_, splits) => splits.map(chart.unit) },
    ],
    series: [{}, ...lines],
  };
}

function inWords(chart, tiers, history) {
  const parts = tiers.map((tier) => {
    const values = history[tier][chart.column].filter((value) => value !== null);
    return values.length ? `${tier} now ${chart.words(values.at(-1))}, lowest ${chart.words(Math.min(...values))}, highest ${chart.words(Math.max(...values))}` : `${tier} unknown`;
  });
  return `${chart.label} in the last 15 minutes: ${parts.join("; ")}`;
}

const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const plot = drawn.get(target.id)?.plot;
    const size = { width: Math.max(200, target.clientWidth), height: target.clientHeight };
    if (plot && (plot.width !== size.width || plot.height !== size.height)) plot.setSize(size);
  }
});
