// Saved audiences: run again, delete, and compare what they share.

import { ask, Problem } from "./ask.js";
import { element, fill, find, say, show } from "./dom.js";
import { number, percent, users } from "./numbers.js";

const chosen = () => [...document.querySelectorAll("input[name=audience]:checked")].map((box) => box.value);

async function guarded(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) location.assign("/sign-in");
    say(error.message);
  }
}

document.addEventListener("change", (event) => {
  if (event.target.name === "audience") find("#compare button").disabled = chosen().length < 2;
});

find("#compare")?.addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(async () => {
    draw(await ask("/console/api/audiences/overlap", { ids: chosen() }));
    show(find("#overlap"));
    find("#overlap").focus();
  });
});

function draw({ names, sizes, shared, jaccard }) {
  const head = element("tr", {}, element("td"), ...names.map((name) =>
    element("th", { scope: "col", title: name }, element("span", { class: "clamp" }, name))));
  const rows = names.map((name, row) => element("tr", {},
    element("th", { scope: "row" }, name, " ", element("span", { class: "hint" }, number(sizes[row]))),
    ...shared[row].map((both, column) => row === column
      ? element("td", { class: "self" }, "–")
      : element("td", {}, number(both), " ", element("span", { class: "hint" }, percent(jaccard[row][column]))))));
  fill(find("#overlap .scroll"), element("table", {},
    element("caption", {}, "Members that two audiences share, and their share of all in either"),
    element("thead", {}, head), element("tbody", {}, ...rows)));
}

for (const card of document.querySelectorAll(".audience")) {
  const { audience } = card.dataset;
  find(".run", card)?.addEventListener("click", () => guarded(async () => {
    say("Running it again …");
    const change = await ask(`/console/api/audiences/${audience}/run`, {});
    find(".size", card).textContent = number(change.audience.latest.size);
    find(".runs", card).textContent = number(change.audience.num_runs);
    tell(find(".change", card), change);
    say(`${change.audience.name} was run again.`);
  }));
  find(".delete", card)?.addEventListener("click", () => sure(card));
}

function tell(place, change) {
  const text = change.entered || change.left
    ? `${users(change.entered)} came, ${number(change.left)} left, ${number(change.stayed)} stayed.`
    : `The same ${users(change.stayed)} as before.`;
  fill(place, element("p", {}, text), ...change.warnings.map((one) => element("p", { class: "note-line" }, one)));
  show(place);
}

function sure(card) {
  const dialog = find("#sure");
  find(".name", dialog).textContent = find("h2", card).textContent;
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    guarded(async () => {
      await ask(`/console/api/audiences/${card.dataset.audience}`, undefined, { method: "DELETE" });
      card.remove();
      say("Deleted.");
      if (!document.querySelector(".audience")) location.reload();
    });
  };
  dialog.returnValue = "";
  dialog.showModal();
}
