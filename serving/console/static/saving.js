// Keep the audience under a name; then compare it with the others, and take it along as a file.

import { ask, Problem } from "./ask.js";
import { element, fill, find, say, show } from "./dom.js";
import { number, percent, users } from "./numbers.js";

const COMPARED = 20;

export class Saving {
  constructor(target) {
    this.target = target;
    find("#save")?.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save().catch((error) => this.complain(error));
    });
  }

  reset() {
    show(find("#saved"), false);
  }

  async save() {
    const body = {
      name: find("#name").value.trim(), target: this.target(),
      holdout: Number(find("#holdout").value),
    };
    const saved = await ask("/console/api/audiences", body);
    say(`Saved as ${saved.name}.`);
    const others = (await ask(`/console/api/audiences?limit=${COMPARED}`)).audiences
      .map((one) => one.id).filter((id) => id !== saved.id);
    const overlap = others.length
      ? await ask("/console/api/audiences/overlap", { ids: [saved.id, ...others] }) : null;
    this.draw(saved, overlap);
  }

  draw(saved, overlap) {
    const place = `/console/api/audiences/${encodeURIComponent(saved.id)}/export`;
    const file = (format, name) => element("a", { class: "button", href: `${place}?format=${format}`, download: true }, name);
    const heading = element("h3", { tabindex: "-1" }, `Saved: ${saved.name}`);
    fill(find("#saved"), heading,
      element("p", {}, `${users(saved.latest.size)}.`,
        saved.holdout ? ` ${percent(saved.holdout)} of them are held out of every file.` : ""),
      ...saved.notes.map((note) => element("p", { class: "note-line" }, note)),
      element("div", { class: "row" }, file("csv", "Download CSV"), file("parquet", "Download Parquet"),
        element("a", { class: "button", href: "/audiences" }, "All audiences")),
      overlap && shared(overlap));
    show(find("#saved"));
    heading.focus();
  }

  complain(error) {
    if (!(error instanceof Problem)) throw error;
    fill(find("#saved"), element("p", { class: "problem", role: "alert" }, error.message));
    show(find("#saved"));
  }
}

function shared({ names, sizes, shared: both }) {
  const rows = names.slice(1).map((name, place) => ({ name, size: sizes[place + 1], both: both[0][place + 1] }))
    .sort((one, other) => other.both - one.both);
  const row = (one) => element("tr", {},
    element("th", { scope: "row" }, one.name), element("td", {}, number(one.size)),
    element("td", {}, number(one.both)), element("td", {}, percent(one.both / Math.max(1, sizes[0]))));
  return element("table", { class: "overlap" },
    element("caption", {}, "Shared with other saved audiences"),
    element("thead", {}, element("tr", {}, ...["Audience", "Users", "Shared", "of this one"].map((head) =>
      element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows.map(row)));
}
