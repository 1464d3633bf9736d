// The first members of an audience. Their ids stay with the service until somebody wants to see them.

import { ask } from "./ask.js";
import { element, fill, find } from "./dom.js";
import { score } from "./numbers.js";

export class Members {
  constructor(target) {
    this.target = target;
    this.revealed = false;
    find("#reveal").addEventListener("click", () => this.toggle());
  }

  async show(found) {
    if (this.revealed) found = await ask("/console/preview", { target: this.target(), reveal: true });
    this.draw(found.members);
  }

  async toggle() {
    this.revealed = !this.revealed;
    find("#reveal").setAttribute("aria-pressed", String(this.revealed));
    find("#reveal").textContent = this.revealed ? "Hide ids" : "Show ids";
    this.draw((await ask("/console/preview", { target: this.target(), reveal: this.revealed })).members);
  }

  draw(members) {
    fill(find("#members"), ...members.map((one, place) => this.member(one, place)));
    if (!members.length) fill(find("#members"), element("li", { class: "hint" }, "Nobody."));
  }

  member(one, place) {
    const name = one.user_id ?? "•••••";
    return element("li", { class: "member" },
      element("span", { class: "rank" }, String(place + 1)),
      element("span", { class: "id", title: one.user_id ?? "hidden" }, name),
      element("span", { class: "score" }, score(one.score)));
  }
}
