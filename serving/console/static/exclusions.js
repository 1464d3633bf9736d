// Who is left out: members of saved audiences, and users by id.

import { ask } from "./ask.js";
import { element, fill, find, show } from "./dom.js";
import { number } from "./numbers.js";

export class Exclusions {
  constructor(changed) {
    this.ids = [];
    find("#apply-exclusions").addEventListener("click", () => {
      this.ids = [...new Set(find("#exclude-ids").value.split(/\n/).map((id) => id.trim()).filter(Boolean))];
      this.count();
      changed();
    });
    find("#exclude-audiences").addEventListener("change", () => {
      this.count();
      changed();
    });
  }

  async load() {
    const { audiences } = await ask("/console/api/audiences?limit=100");
    const chosen = new Set(this.audiences);
    const lines = audiences.map((one) => element("label", { class: "check" },
      element("input", { type: "checkbox", value: one.id, checked: chosen.has(one.id) }),
      element("span", {}, one.name), element("span", { class: "hint" }, number(one.latest.size))));
    fill(find("#exclude-audiences"), ...(lines.length ? lines : [element("p", { class: "hint" }, "None is saved yet.")]));
  }

  get audiences() {
    return [...document.querySelectorAll("#exclude-audiences input:checked")].map((box) => box.value);
  }

  get asked() {
    const { audiences, ids } = this;
    return {
      ...(audiences.length ? { exclude_audiences: audiences } : {}),
      ...(ids.length ? { exclude: ids } : {}),
    };
  }

  count() {
    const badge = find("#excluded");
    const sum = this.audiences.length + this.ids.length;
    badge.textContent = String(sum);
    show(badge, sum > 0);
  }
}
