// Hard rules as chips: each can be changed in a dialog or taken away. A rule keeps the form in which
// the interface takes it; the service says what it means in words.

import { ask, Problem } from "./ask.js";
import { debounced, element, fill, find, show } from "./dom.js";

const EDITABLE = new Set(["behaviour", "profile"]);

export class Rules {
  constructor(changed, complain) {
    this.changed = changed;
    this.complain = complain;
    this.parts = []; // {rule, words}
    this.dialog = find("#rule");
    find("#add-rule").addEventListener("click", () => this.edit(null));
    find("#rule-form").addEventListener("submit", (event) => this.done(event));
    find("#rule-cancel").addEventListener("click", () => this.dialog.close());
    find("#rule-about").addEventListener("change", () => this.about());
    find("#rule-column").addEventListener("change", () => this.column());
    find("#rule-verb").addEventListener("change", () => this.suggest());
    find("#rule-subject").addEventListener("input", debounced(() => this.suggest(), 120));
  }

  // All of them as one rule; null without any.
  get tree() {
    const rules = this.parts.map((part) => part.rule);
    return rules.length > 1 ? { type: "all", rules } : rules[0] ?? null;
  }

  // Takes the rules at once, and shows them as soon as the service has said them in words.
  async read(tree) {
    const rules = tree?.type === "all" ? tree.rules : [tree].filter(Boolean);
    this.parts = rules.map((rule) => ({ rule, words: "…" }));
    if (rules.length) this.parts = (await ask("/console/words", { rules: tree })).parts;
    this.draw();
  }

  draw() {
    const chips = this.parts.map((part, place) => this.chip(part, place));
    fill(find("#rules"), ...(chips.length ? chips : [element("li", { class: "hint" }, "no rule: everybody may be in")]));
  }

  chip({ rule, words: told }, place) {
    const words = told.replace(/\b(profile|agg)_\w+/g, spoken);
    const inner = rule.type === "not" ? rule.rule : rule;
    const text = element("span", {}, words);
    const main = EDITABLE.has(inner.type)
      ? element("button", { type: "button", class: "edit", title: words, "aria-label": `Change: ${words}`,
        onclick: () => this.edit(place) }, text)
      : element("span", { class: "edit", title: words }, text);
    const away = element("button", { type: "button", class: "away", "aria-label": `Remove: ${words}`,
      onclick: () => this.remove(place) }, "×");
    return element("li", { class: rule.type === "not" ? "chip not" : "chip" }, main, away);
  }

  remove(place) {
    this.parts.splice(place, 1);
    this.draw();
    const left = document.querySelectorAll("#rules .away");
    (left[Math.min(place, left.length - 1)] ?? find("#add-rule")).focus();
    this.changed();
  }

  // --- the dialog

  edit(place) {
    return this.open(place).catch(this.complain);
  }

  async open(place) {
    this.place = place;
    const known = await this.vocabulary();
    const rule = place == null ? null : this.parts[place].rule;
    const inner = rule?.type === "not" ? rule.rule : rule;
    show(find("#rule-problem"), false);
    options(find("#rule-verb"), known.verbs.map((verb) => [verb, verb]));
    options(find("#rule-column"), known.columns.map((one) => [one.name, spoken(one.name)]));
    find("#rule-not").value = rule?.type === "not" ? "not" : "";
    find("#rule-about").value = inner?.type === "profile" ? "profile" : "behaviour";
    this.behaviour(inner?.type === "behaviour" ? inner : {});
    if (inner?.type === "profile") find("#rule-column").value = inner.column;
    this.about();
    this.column(inner?.type === "profile" ? inner : {});
    this.suggest();
    this.dialog.showModal();
  }

  behaviour(rule) {
    if (rule.verb) find("#rule-verb").value = rule.verb;
    find("#rule-subject").value = rule.subject ?? "";
    find("#rule-days").value = rule.days ?? "";
    find("#rule-least").value = rule.at_least ?? "";
    find("#rule-most").value = rule.at_most ?? "";
    find("#rule-measure").value = rule.measure ?? "count";
  }

  about() {
    const profile = find("#rule-about").value === "profile";
    show(find("#rule-profile"), profile);
    show(find("#rule-behaviour"), !profile);
  }

  column(rule = {}) {
    const column = this.known.columns.find((one) => one.name === find("#rule-column").value);
    if (!column) return;
    show(find("#rule-values-row"), !column.continuous);
    show(find("#rule-range-row"), column.continuous);
    const chosen = new Set([rule.value ?? []].flat().map(String));
    options(find("#rule-values"), column.values.map((value) => [value, value]), chosen);
    const [low, high] = rule.op === "between" ? rule.value
      : [rule.op === "at_least" ? rule.value : "", rule.op === "at_most" ? rule.value : ""];
    find("#rule-low").value = column.continuous ? low ?? "" : "";
    find("#rule-high").value = column.continuous ? high ?? "" : "";
  }

  async vocabulary() {
    this.known ??= await ask("/console/vocabulary");
    return this.known;
  }

  async suggest() {
    const asked = new URLSearchParams({
      verb: find("#rule-verb").value, part: find("#rule-subject").value,
    });
    this.suggesting?.abort(); // of two answers the later question's counts
    this.suggesting = new AbortController();
    const { signal } = this.suggesting;
    let names = []; // the field takes any name without them, and "Done" says what is wrong
    try {
      ({ names } = await ask(`/console/subjects?${asked}`, undefined, { signal }));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Problem)) throw error;
    }
    fill(find("#rule-subjects"), ...names.map((name) => element("option", { value: name })));
  }

  made() {
    const inner = find("#rule-about").value === "profile" ? this.madeProfile() : this.madeBehaviour();
    return find("#rule-not").value ? { type: "not", rule: inner } : inner;
  }

  madeBehaviour() {
    const rule = { type: "behaviour", verb: find("#rule-verb").value, measure: find("#rule-measure").value };
    const subject = find("#rule-subject").value.trim();
    if (subject) rule.subject = subject;
    for (const [name, field] of [["days", "days"], ["at_least", "least"], ["at_most", "most"]]) {
      const value = find(`#rule-${field}`).value;
      if (value !== "") rule[name] = Number(value);
    }
    return rule;
  }

  madeProfile() {
    const column = find("#rule-column").value;
    const [low, high] = [find("#rule-low").value, find("#rule-high").value];
    if (!find("#rule-range-row").hidden) {
      const numbers = [low, high].filter((value) => value !== "").map(Number);
      const op = numbers.length === 2 ? "between" : low !== "" ? "at_least" : high !== "" ? "at_most" : "known";
      const value = op === "between" ? numbers : numbers[0];
      return { type: "profile", column, op, ...(op === "known" ? {} : { value }) };
    }
    const values = [...find("#rule-values").selectedOptions].map((option) => option.value);
    if (!values.length) return { type: "profile", column, op: "known" };
    return { type: "profile", column, op: "in", value: values };
  }

  async done(event) {
    event.preventDefault(); // the dialog closes once the service has understood the rule
    try {
      const { parts } = await ask("/console/words", { rules: this.made() });
      if (this.place == null) this.parts.push(...parts);
      else this.parts.splice(this.place, 1, ...parts);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      find("#rule-problem").textContent = error.message;
      show(find("#rule-problem"));
      return;
    }
    this.dialog.close();
    this.draw();
    this.changed();
  }
}

function options(select, pairs, chosen = new Set()) {
  fill(select, ...pairs.map(([value, text]) =>
    element("option", { value, selected: chosen.has(String(value)) }, text)));
}

export function spoken(column) {
  return column.replace(/^(profile|agg)_/, "").replaceAll("_", " ");
}
