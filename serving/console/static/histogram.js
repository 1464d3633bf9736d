// How the scores of all who may be in lie, and where the audience's cut is.

import { number, short } from "./numbers.js";

const MARGIN = { top: 14, right: 16, bottom: 40, left: 52 };
const HEIGHT = 240;

export class Histogram {
  constructor(place) {
    this.place = place;
    new ResizeObserver(() => this.draw()).observe(place);
  }

  show(reach) {
    this.reach = reach;
    this.drawn = 0;
    this.draw();
  }

  draw() {
    const width = this.place.clientWidth;
    if (!this.reach || !width || this.drawn === width) return;
    this.drawn = width;
    const d3 = globalThis.d3;
    const { edges, counts } = this.reach;
    d3.select(this.place).selectAll("*").remove();
    this.bars = null;
    if (!d3.sum(counts)) return;
    const svg = d3.select(this.place).append("svg").attr("viewBox", `0 0 ${width} ${HEIGHT}`)
      .attr("role", "img").attr("aria-label", `Scores from ${edges[0].toFixed(2)} to ` +
        `${edges.at(-1).toFixed(2)}; most users between ${this.most()}.`);
    const x = d3.scaleLinear().domain([edges[0], edges.at(-1)])
      .range([MARGIN.left, width - MARGIN.right]);
    const y = d3.scaleLinear().domain([0, d3.max(counts)]).nice()
      .range([HEIGHT - MARGIN.bottom, MARGIN.top]);
    svg.append("g").attr("class", "axis").attr("transform", `translate(0,${HEIGHT - MARGIN.bottom})`)
      .call(d3.axisBottom(x).ticks(Math.max(3, width / 90)).tickSizeOuter(0));
    svg.append("g").attr("class", "axis grid").attr("transform", `translate(${MARGIN.left},0)`)
      .call(d3.axisLeft(y).ticks(4).tickFormat(short).tickSize(-(width - MARGIN.left - MARGIN.right)));
    this.bars = svg.append("g").selectAll("rect").data(counts).enter().append("rect")
      .attr("class", "bar").attr("x", (_, place) => x(edges[place]) + 0.5)
      .attr("width", (_, place) => Math.max(0.5, x(edges[place + 1]) - x(edges[place]) - 1))
      .attr("y", (count) => y(count)).attr("height", (count) => y(0) - y(count));
    svg.append("text").attr("class", "label").attr("x", width - MARGIN.right)
      .attr("y", HEIGHT - 6).attr("text-anchor", "end").text("score");
    if (this.least != null) this.mark(this.least);
  }

  mark(least) {
    this.least = least;
    this.bars?.classed("lit", (_, place) => this.reach.edges[place + 1] > least);
  }

  most() {
    const { edges, counts } = this.reach;
    const place = counts.indexOf(Math.max(...counts));
    return `${edges[place].toFixed(2)} and ${edges[place + 1].toFixed(2)} (${number(counts[place])})`;
  }
}
