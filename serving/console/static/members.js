// The first members of an audience, and why each is in. Their ids stay with the service until
// somebody wants to see them; a member is asked about by its place.

import { ask, Problem } from "./ask.js";
import { element, fill, find, show } from "./dom.js";
import { score } from "./numbers.js";

export class Members {
  constructor(target) {
    this.target = target;
    this.revealed = false;
    this.drawn = null;
    find("#reveal").addEventListener("click", () => this.toggle());
  }

  async show(found, signal) {
    if (this.revealed) found = await this.ask(signal);
    this.draw(found.members);
  }

  ask(signal) {
    const body = { target: this.target(), reveal: this.revealed };
    return ask("/console/preview", body, { signal });
  }

  async toggle() {
    this.revealed = !this.revealed;
    find("#reveal").setAttribute("aria-pressed", String(this.revealed));
    this.draw((await this.ask()).members);
  }

  draw(members) {
    const target = this.target(); // of these members, whatever is asked later
    // Another size has the same people in front: what was explained of them stays.
    const drawn = JSON.stringify([{ ...target, size: null }, members]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const ranked = target.text != null;
    const rows = members.map((one, place) => member(one, place, ranked ? target : null));
    fill(find("#members"), ...(rows.length ? rows : [element("li", { class: "hint" }, "Nobody.")]));
  }
}

function member(one, place, target) {
  const reasons = element("div", { class: "reasons", hidden: true, id: `reasons-${place}` });
  const why = target && element("button", { type: "button", class: "quiet why", "aria-expanded": "false",
    "aria-controls": reasons.id, "aria-label": `Why number ${place + 1}?`,
    onclick: () => toggle(why, reasons, target, place) }, "Why?");
  const id = one.user_id ?? "•••••";
  return element("li", { class: "member" },
    element("span", { class: "rank" }, String(place + 1)),
    element("span", { class: "id", title: one.user_id ?? "hidden" }, id),
    element("span", { class: "score" }, target ? score(one.score) : ""), why, reasons);
}

async function toggle(why, reasons, target, place) {
  const open = why.getAttribute("aria-expanded") !== "true";
  why.setAttribute("aria-expanded", String(open));
  show(reasons, open);
  if (!open || reasons.dataset.filled) return;
  fill(reasons, element("p", { class: "hint", role: "status" }, "Reading their past again, without each part of it …"));
  try {
    const told = await ask("/console/reasons", { target, place });
    reasons.dataset.filled = "yes";
    fill(reasons, ...drawn(told));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    fill(reasons, element("p", { class: "problem", role: "alert" }, error.message));
  }
}

function drawn({ user }) {
  const largest = Math.max(...user.contributions.map((one) => Math.abs(one.contribution)), 1e-9);
  const lines = user.contributions.map((one) => {
    const bar = element("span", { class: one.contribution < 0 ? "against" : "for" });
    bar.style.width = `${Math.round((Math.abs(one.contribution) / largest) * 100)}%`;
    const sign = one.contribution < 0 ? "−" : "+";
    return element("li", {}, element("span", {}, one.words),
      element("span", { class: "score" }, `${sign}${score(Math.abs(one.contribution))}`),
      element("span", { class: "track", "aria-hidden": "true" }, bar));
  });
  const sentences = user.sentences.slice(0, 3).map((one) => one.text).join("; ");
  return [
    element("p", { class: "hint" }, `Score ${score(user.score)}; a user without any past has ${score(user.base)}. What made the difference:`),
    element("ul", {}, ...lines),
    sentences ? element("p", { class: "hint" }, `Also expected of them: ${sentences}.`) : null,
  ];
}
