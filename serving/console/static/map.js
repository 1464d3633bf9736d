// The embedding space: at most 5,000 users as points, those of the audience lit, clusters named.

import { element, fill } from "./dom.js";
import { number, percent } from "./numbers.js";

const HEIGHT = 0.74; // of its width

export class SpaceMap {
  constructor(place, table) {
    this.place = place;
    this.table = table;
    new ResizeObserver(() => this.draw()).observe(place);
  }

  show(space) {
    this.space = space;
    this.drawn = 0;
    this.draw();
  }

  waiting(text) {
    this.space = null;
    fill(this.place, element("p", { class: "waiting" }, text));
    fill(this.table);
  }

  draw() {
    const width = this.place.clientWidth;
    if (!this.space || !width || this.drawn === width) return;
    this.drawn = width;
    const d3 = globalThis.d3;
    const height = Math.round(width * HEIGHT);
    fill(this.place);
    const svg = d3.select(this.place).append("svg").attr("viewBox", `0 0 ${width} ${height}`)
      .attr("role", "img").attr("aria-label", "Users in the embedding space; the table beside it says the same.");
    const { points, cluster, names } = this.space;
    const across = d3.extent(points, (point) => point[0]);
    const down = d3.extent(points, (point) => point[1]);
    const x = d3.scaleLinear().domain(across).range([10, width - 10]);
    const y = d3.scaleLinear().domain(down).range([height - 10, 10]);
    const radius = points.length > 3000 ? 1.7 : 2.2;
    this.dots = svg.append("g").attr("class", "dots").selectAll("circle").data(points).enter()
      .append("circle").attr("cx", (point) => x(point[0])).attr("cy", (point) => y(point[1]))
      .attr("r", radius).attr("class", (_, place) => `c${cluster[place] % 9}`);
    this.labels(svg, x, y, names, width);
    if (this.ranks) this.light(this.ranks, this.size);
  }

  labels(svg, x, y, names, width) {
    const d3 = globalThis.d3;
    const { points, cluster } = this.space;
    const placed = names.map((name, number) => {
      const own = points.filter((_, place) => cluster[place] === number);
      return { number, x: x(d3.median(own, (p) => p[0])), y: y(d3.median(own, (p) => p[1])) };
    }).sort((one, other) => one.y - other.y);
    for (const [place, one] of placed.entries()) {
      for (const before of placed.slice(0, place)) {
        if (Math.abs(one.x - before.x) < 26 && one.y - before.y < 26) one.y = before.y + 26;
      }
    }
    const group = svg.append("g").attr("class", "labels").attr("aria-hidden", "true");
    for (const one of placed) {
      const label = group.append("g").attr("transform", `translate(${Math.min(width - 14, one.x)},${one.y})`);
      label.append("circle").attr("r", 11).attr("class", `c${one.number % 9}`);
      label.append("text").attr("text-anchor", "middle").attr("dy", "0.35em").text(one.number + 1);
    }
  }

  // Lights the users whose place in the ranking is within the size: at the next frame, and only
  // those that change, so that a slider may call it for every step.
  light(ranks, size) {
    if (ranks !== this.ranks) this.order = null;
    this.ranks = ranks;
    this.size = size;
    if (!this.dots || !ranks || this.waits) return;
    this.waits = requestAnimationFrame(() => {
      this.waits = null;
      this.relight();
    });
  }

  relight() {
    const { ranks, size } = this;
    const { cluster, names } = this.space;
    const nodes = this.dots.nodes();
    if (!this.order || this.lighted !== nodes[0]) {
      this.order = [...ranks.keys()].filter((place) => ranks[place] >= 0)
        .sort((one, other) => ranks[one] - ranks[other]);
      this.lighted = nodes[0];
      this.lit = 0;
      for (const node of nodes) node.classList.remove("lit");
    }
    while (this.lit < this.order.length && ranks[this.order[this.lit]] < size) {
      nodes[this.order[this.lit]].classList.add("lit");
      this.lit += 1;
    }
    while (this.lit > 0 && ranks[this.order[this.lit - 1]] >= size) {
      this.lit -= 1;
      nodes[this.order[this.lit]].classList.remove("lit");
    }
    const count = (places) => places.reduce((sums, place) => {
      sums[cluster[place]] += 1;
      return sums;
    }, names.map(() => 0));
    this.tell(count([...cluster.keys()]), count(this.order.slice(0, this.lit)));
  }

  tell(all, lit) {
    const { names, points, population } = this.space;
    const sum = lit.reduce((one, other) => one + other, 0);
    const rows = names.map((name, place) => ({ name, place, lit: lit[place], all: all[place] }))
      .sort((one, other) => other.lit - one.lit || one.place - other.place);
    const head = element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Group"),
      element("th", { scope: "col" }, "of the audience"), element("th", { scope: "col" }, "of the group")));
    const body = rows.map((row) => element("tr", {},
      element("th", { scope: "row" },
        element("span", { class: `dot c${row.place % 9}`, "aria-hidden": "true" }, String(row.place + 1)),
        element("span", { class: "name" }, row.name)),
      element("td", {}, sum ? percent(row.lit / sum) : "–"),
      element("td", {}, percent(row.lit / Math.max(1, row.all)))));
    const sampled = points.length < population
      ? element("caption", {}, `${number(points.length)} of ${number(population)} users are drawn`)
      : null;
    fill(this.table, sampled, head, element("tbody", {}, ...body));
  }
}
