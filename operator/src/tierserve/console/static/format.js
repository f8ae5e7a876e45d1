// Figures as people read them; null for what is unknown, so that nothing unknown is shown as zero.
export function make(tag, text) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  return node;
}
const unknown = (value) => value === null || value === undefined || Number.isNaN(value);
const digits = (value, most) => value.toLocaleString("en-GB", { maximumFractionDigits: most });

export function figure(value) {
  if (unknown(value)) return null;
  const size = Math.abs(value);
  return digits(value, Number.isInteger(value) || size >= 100 ? 0 : size >= 10 ? 1 : 2);
}
export function duration(seconds) {
  if (unknown(seconds)) return null;
  return seconds < 10 ? `${digits(seconds * 1000, 0)} ms` : `${digits(seconds, 1)} s`;
}
export function replicas(running, desired) {
  if (unknown(running)) return unknown(desired) ? null : `? of ${desired}`;
  return unknown(desired) || running === desired ? digits(running, 0) : `${digits(running, 0)} to ${digits(desired, 0)}`;
}
export const share = (part) => (part > 0 && part < 0.005 ? "<1 %" : `${Math.round(part * 100)} %`);
export const money = (value) => (unknown(value) ? null : value.toLocaleString("en-GB", { minimumFractionDigits: 2, maximumFractionDigits: 2 }));
export const power = (watts) => (unknown(watts) ? null : watts < 1000 ? `${digits(watts, 0)} W` : `${digits(watts / 1000, 1)} kW`);
export const carbon = (grams) => (unknown(grams) ? null : grams < 1000 ? `${digits(grams, 0)} g` : `${digits(grams / 1000, 1)} kg`);
export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
