// What the members have in common: what they did, and who they are, more often than everybody.

import { ask, Problem } from "./ask.js";
import { element, fill, find } from "./dom.js";
import { percent } from "./numbers.js";
import { spoken } from "./rules.js";

const SHOWN = 8;
const LEAST_LIFT = 1.15;
const LEAST_SHARE = 0.1;
const BINNED = /_(bin|tier)$/; // powers of two: made for models, not for people

export async function portrait(target, signal) {
  const card = find("#common-card");
  card.setAttribute("aria-busy", "true");
  if (!find("#common").hasChildNodes()) fill(find("#common"), element("p", { class: "hint" }, "Counting …"));
  try {
    const body = { target, top: SHOWN };
    const found = await ask("/console/api/portrait", body, { signal });
    draw(found);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    fill(find("#common"), element("p", { class: "hint" }, error.message));
  } finally {
    card.removeAttribute("aria-busy");
  }
}

function draw(found) {
  const did = found.behaviour.map((one) => ({ ...one, name: `${one.verb} ${one.subject.toLowerCase()}` }));
  const are = found.profile
    .filter((one) => one.value != null && !BINNED.test(one.column) && one.lift >= LEAST_LIFT && one.share >= LEAST_SHARE)
    .sort((one, other) => other.lift * other.share - one.lift * one.share)
    .slice(0, SHOWN)
    .map((one) => ({ ...one, name: `${spoken(one.column)}: ${one.value}` }));
  if (!did.length && !are.length) {
    fill(find("#common"), element("p", { class: "hint" }, "Nothing sets them apart, or they are too few to tell."));
    return;
  }
  fill(find("#common"), element("div", { class: "two" },
    table(`In the last ${found.days} days they`, did), table("They are", are)));
}

function table(title, rows) {
  const bar = (share, kind) => {
    const filled = element("span", { class: `share ${kind}` });
    filled.style.width = `${Math.round(share * 100)}%`;
    return element("span", { class: "track", "aria-hidden": "true" }, filled);
  };
  const line = (one) => element("tr", {},
    element("th", { scope: "row" }, one.name, bar(one.share, "own"), bar(one.everybody, "all")),
    element("td", {}, percent(one.share)), element("td", {}, percent(one.everybody)),
    element("td", {}, `${one.lift.toFixed(1)} ×`));
  if (!rows.length) rows = null;
  return element("div", {}, element("table", { class: "portrait" }, element("caption", {}, title),
    element("thead", {}, element("tr", {}, ...["", "they", "all", "lift"].map((head) =>
      head ? element("th", { scope: "col" }, head) : element("td")))),
    element("tbody", {}, ...(rows ?? []).map(line))),
    rows ? null : element("p", { class: "hint" }, "nothing beyond everybody"));
}
