// Numbers as people read them; the same habits as serving/console/numbers.py.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export function number(value) {
  if (value == null) return "–";
  return (Math.abs(value) >= 10 || Number.isInteger(value) ? whole : tenth).format(value);
}

export const short = (value) => (value < 10_000 ? number(value) : compact.format(value));

export function percent(share) {
  const shown = share * 100;
  return `${(shown > 0 && shown < 1 ? tenth : whole).format(shown)} %`;
}

export const score = (value) => (Math.round(value * 100) / 100 + 0).toFixed(2).replace("-", "−");

export const users = (count) => `${number(count)} ${count === 1 ? "user" : "users"}`;

// "12,000", "12 000" and "12k" are all meant as 12000.
export function parsed(text) {
  const found = /^\s*([\d][\d\s,.']*)\s*([km]?)\s*$/i.exec(text);
  if (!found) return null;
  const thousands = { k: 1e3, m: 1e6 }[found[2].toLowerCase()];
  const digits = thousands ? found[1].replace(/[\s,']/g, "") : found[1].replace(/[\s,.']/g, "");
  return Math.round(Number(digits) * (thousands ?? 1)) || null;
}

// 1, 2, 5, 10, 20 … : the nearest one below.
export function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  const step = [5, 2, 1].find((one) => one * power <= value) ?? 1;
  return Math.max(1, step * power);
}
