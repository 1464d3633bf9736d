// The page where a sentence becomes an audience. One plan at a time: what is on the page always
// belongs to the latest question, and answers to earlier ones are dropped.

import { ask, Problem } from "./ask.js";
import { Curve } from "./curve.js";
import { debounced, element, fill, find, say, show } from "./dom.js";
import { Exclusions } from "./exclusions.js";
import { Histogram } from "./histogram.js";
import { SpaceMap } from "./map.js";
import { Members } from "./members.js";
import { number, parsed, percent, rounded, users } from "./numbers.js";
import { portrait } from "./portrait.js";
import { Rules } from "./rules.js";
import { Saving } from "./saving.js";

const STEPS = 1000;
const AGAIN = 3000; // until a map that is being drawn is asked for again

const plan = { text: null, rules: null };
const state = { size: null, eligible: 0, min: null, ranks: null };
const curve = new Curve(find("#curve"));
const histogram = new Histogram(find("#histogram"));
const space = new SpaceMap(find("#map"), find("#clusters"));
const rules = new Rules(() => replan(), complain);
const exclusions = new Exclusions(() => replan());
const members = new Members(target);
const saving = new Saving(target);
const population = Number(find("#answer").dataset.population);
let question = null; // aborts what belongs to an older plan
let looking = null; // the same for an older size

// --- the plan

function filters() {
  return { rules: rules.tree, ...exclusions.asked };
}

function target(size = state.size) {
  return { text: plan.text, ...filters(), split: false, size };
}

find("#ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = find("#sentence").value.trim();
  if (!text) return;
  await guarded(async (signal) => {
    const read = await ask("/console/api/plan", { text }, { signal, slow });
    plan.text = read.text || null;
    find("#soft").value = read.text;
    state.size = null;
    await Promise.all([rules.read(read.rules), answer(signal, read)]);
    find("#plan-title").scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
  });
});

find("#soft-form").addEventListener("submit", (event) => {
  event.preventDefault();
  plan.text = find("#soft").value.trim() || null;
  replan();
});

function replan() {
  return guarded((signal) => answer(signal, null));
}

async function guarded(work) {
  question?.abort();
  question = new AbortController();
  const own = question;
  show(find("#problem"), false);
  document.body.classList.remove("stale");
  document.body.classList.add("busy");
  say("Looking …");
  try {
    await work(own.signal);
  } catch (error) {
    if (error.name !== "AbortError") {
      document.body.classList.add("stale"); // what stands below answers an older question
      complain(error);
    }
  } finally {
    if (own === question) document.body.classList.remove("busy");
  }
}

function slow() {
  say("Still looking. The first sentence after a start takes longest.");
}

function complain(error) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401) return void location.assign("/sign-in");
  say("");
  const place = find("#problem");
  fill(place, error.message);
  show(place);
}

// --- the answer

async function answer(signal, read) {
  const unranked = plan.text == null;
  if (unranked && !rules.tree) throw new Problem(422, "Say whom you want, or add a rule.");
  const asked = { ...filters(), text: plan.text };
  const reach = unranked ? null : await ask("/console/api/reach", asked, { signal, slow });
  state.eligible = reach ? reach.eligible : await count(signal);
  state.size = Math.min(state.size ?? rounded(state.eligible / 20), Math.max(1, state.eligible));
  show(find("#answer"));
  show(find("#steps"), false);
  curve.show(reach ?? { points: [] });
  histogram.show(reach ?? { counts: [], edges: [0] });
  for (const chart of document.querySelectorAll(".charts")) show(chart, Boolean(reach?.points.length));
  show(find("#buyers-tile"), reach?.base_rate != null);
  show(find("#lift-tile"), reach?.base_rate != null);
  setSize(state.size);
  state.notes = [...(read?.not_understood ?? []).map((one) => `Not understood: ${one}.`), ...(read?.notes ?? [])];
  await Promise.all([look(), ranks(signal)]);
}

async function count(signal) {
  const { meta } = await ask("/console/preview", { target: target(1) }, { signal });
  return meta.eligible ?? meta.population;
}

async function ranks(signal) {
  const found = await ask("/console/ranks", target(), { signal });
  state.ranks = found.ranks;
  if (!found.ranks || !space.space) return;
  if (found.snapshot !== space.space.snapshot) await drawMap(); // another one has become live
  else space.light(found.ranks, state.size);
}

async function look() {
  looking?.abort();
  looking = new AbortController();
  const { signal } = looking;
  try {
    const found = await ask("/console/preview", { target: target() }, { signal });
    tell(found);
    await members.show(found, signal);
    if (portrayed.seen) await portrait(target(), signal);
    else portrayed.due = true;
  } catch (error) {
    if (error.name !== "AbortError") complain(error);
  }
}

function tell({ meta, size, min_score: least }) {
  const nobody = size === 0;
  document.body.classList.toggle("nobody", nobody);
  if (meta.expected_buyers != null) buyers(meta.expected_buyers, meta.expected_low, meta.expected_high, size);
  if (least != null && plan.text) histogram.mark(least);
  const notes = [...new Set([...(state.notes ?? []), ...meta.notes])];
  fill(find("#notes"), ...notes.map((note) => element("li", {}, note)));
  say(nobody ? "Nobody fits all the rules. Take one away, or widen it."
    : `${users(size)} of ${number(meta.eligible ?? meta.population)} who may be in.`);
  saving.reset();
}

// What they have in common is counted over everybody's past, so only for those who look at it.
const portrayed = { seen: false, due: false };
new IntersectionObserver(([entry]) => {
  portrayed.seen = entry.isIntersecting;
  if (!portrayed.seen || !portrayed.due) return;
  portrayed.due = false;
  portrait(target(), looking?.signal).catch((error) => error.name !== "AbortError" && complain(error));
}, { rootMargin: "200px" }).observe(find("#common-card"));

// --- the size

const slider = find("#size");
const toSize = (place) => Math.round(Math.exp((place / STEPS) * Math.log(Math.max(1, state.eligible))));
const toPlace = (size) => (state.eligible > 1 ? (Math.log(size) / Math.log(state.eligible)) * STEPS : STEPS);

function setSize(size, moving = false) {
  state.size = Math.max(1, Math.min(size, Math.max(1, state.eligible)));
  if (!moving) slider.value = toPlace(state.size);
  const shown = Math.min(state.size, state.eligible);
  find("#size-number").value = number(shown);
  find("#share").textContent = `${percent(shown / population)} of everybody`;
  slider.setAttribute("aria-valuetext", users(shown));
  slider.disabled = state.eligible < 2;
  curve.mark(state.size);
  const point = curve.at(state.size);
  if (point) {
    if (point.expected_buyers != null) buyers(point.expected_buyers, point.low, point.high, state.size, point.lift);
    histogram.mark(point.min_score);
  }
  if (state.ranks && space.space) space.light(state.ranks, state.size);
}

function buyers(expected, low, high, size, lift) {
  find("#buyers").textContent = number(expected);
  find("#buyers-range").textContent = `80 %: ${number(low)} to ${number(high)}`;
  const times = lift ?? (curve.reach?.base_rate ? expected / size / curve.reach.base_rate : null);
  find("#lift").textContent = times == null ? "–" : `${times.toFixed(1)} ×`;
  find("#lift-hint").textContent = `${percent(expected / Math.max(1, size))} of them`;
}

slider.addEventListener("input", () => setSize(toSize(Number(slider.value)), true));
slider.addEventListener("change", debounced(() => look(), 60));
find("#size-number").addEventListener("change", (event) => {
  const size = parsed(event.target.value);
  setSize(size ?? state.size);
  look();
});

// --- what the page begins with

find("#find").disabled = false; // before this line nobody would have listened

async function begin() {
  const { examples } = await ask("/console/examples");
  fill(find("#examples"), ...examples.map((text) => element("button", { type: "button", class: "chip example",
    onclick: () => { find("#sentence").value = text; grow(); find("#ask").requestSubmit(find("#find")); } }, text)));
}

async function drawMap() {
  const found = await ask("/console/map");
  if (!found.points) {
    space.waiting("The map is being drawn, once for each snapshot. This takes up to a minute.");
    if (found.failed) space.waiting("The map could not be drawn. The log of the service says why.");
    else setTimeout(() => drawMap().catch(complain), AGAIN);
    return;
  }
  space.show(found);
  if (state.size && !state.ranks) await ranks();
  if (state.ranks) space.light(state.ranks, state.size);
}

const box = find("#sentence");
function grow() {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}
box.addEventListener("input", grow);
box.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault(); // one sentence: Enter asks
  find("#ask").requestSubmit(find("#find"));
});

function calm() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

begin().catch(complain);
drawMap().catch(complain);
exclusions.load().catch(complain);
