// Reach against quality: what each size of audience would bring. Drawn once per demand; the slider
// only moves the marker, so it follows the hand.

import { number, percent, short } from "./numbers.js";

const MARGIN = { top: 14, right: 16, bottom: 40, left: 52 };
const HEIGHT = 240;

export class Curve {
  constructor(place) {
    this.place = place;
    this.reach = null;
    new ResizeObserver(() => this.draw()).observe(place);
  }

  show(reach) {
    this.reach = reach;
    this.calibrated = reach.base_rate != null && reach.points.length > 0;
    this.drawn = 0;
    this.draw();
  }

  // The curve at any size, between the points that the service gave.
  at(size) {
    const points = this.reach?.points ?? [];
    const after = points.findIndex((point) => point.size >= size);
    if (after < 0) return points.at(-1) ?? null;
    const high = points[after];
    const low = points[Math.max(0, after - 1)];
    if (high.size === size || high === low) return high;
    const part = Math.log(size / low.size) / Math.log(high.size / low.size);
    const linear = (size - low.size) / (high.size - low.size);
    const between = (name, by) =>
      low[name] == null ? null : low[name] + by * (high[name] - low[name]);
    const expected = between("expected_buyers", linear);
    return {
      size,
      share: between("share", linear),
      min_score: between("min_score", part),
      expected_buyers: expected,
      low: between("low", linear),
      high: between("high", linear),
      precision: expected == null ? null : expected / size,
      lift: between("lift", part),
    };
  }

  quality(point) {
    return this.calibrated ? point.precision : point.min_score;
  }

  draw() {
    const width = this.place.clientWidth;
    if (!this.reach || !width || this.drawn === width) return;
    this.drawn = width;
    const points = this.reach.points;
    const d3 = globalThis.d3;
    d3.select(this.place).selectAll("*").remove();
    if (!points.length) return;
    const svg = d3.select(this.place).append("svg")
      .attr("viewBox", `0 0 ${width} ${HEIGHT}`).attr("role", "img").attr("aria-label", this.words());
    this.x = d3.scaleLog().domain([1, Math.max(2, points.at(-1).size)])
      .range([MARGIN.left, width - MARGIN.right]);
    const values = points.map((point) => this.quality(point));
    const upper = this.calibrated ? d3.max(points, (point) => point.high / point.size) : d3.max(values);
    const lower = this.calibrated ? 0 : d3.min(values);
    this.y = d3.scaleLinear().domain([lower, Math.min(this.calibrated ? 1 : Infinity, upper)]).nice()
      .range([HEIGHT - MARGIN.bottom, MARGIN.top]);
    this.axes(svg, width);
    const line = d3.line().x((point) => this.x(point.size)).curve(d3.curveMonotoneX);
    if (this.calibrated) {
      const band = d3.area().x((point) => this.x(point.size)).curve(d3.curveMonotoneX)
        .y0((point) => this.y(point.low / point.size))
        .y1((point) => this.y(Math.min(1, point.high / point.size)));
      svg.append("path").attr("class", "band").attr("d", band(points));
      const base = this.y(this.reach.base_rate);
      svg.append("line").attr("class", "base").attr("x1", MARGIN.left)
        .attr("x2", width - MARGIN.right).attr("y1", base).attr("y2", base);
      svg.append("text").attr("class", "note").attr("x", MARGIN.left + 6).attr("y", base - 6)
        .text(`everybody: ${percent(this.reach.base_rate)}`);
    }
    svg.append("path").attr("class", "curve").attr("d", line.y((point) => this.y(this.quality(point)))(points));
    this.marker = svg.append("g").attr("class", "marker");
    this.marker.append("line").attr("y1", MARGIN.top).attr("y2", HEIGHT - MARGIN.bottom);
    this.marker.append("circle").attr("r", 6);
    if (this.size) this.mark(this.size);
  }

  axes(svg, width) {
    const d3 = globalThis.d3;
    const powers = this.x.ticks().filter((tick) => Number.isInteger(Math.log10(tick)));
    svg.append("g").attr("class", "axis").attr("transform", `translate(0,${HEIGHT - MARGIN.bottom})`)
      .call(d3.axisBottom(this.x).tickValues(powers).tickFormat(short).tickSizeOuter(0));
    svg.append("g").attr("class", "axis grid").attr("transform", `translate(${MARGIN.left},0)`)
      .call(d3.axisLeft(this.y).ticks(5).tickSize(-(width - MARGIN.left - MARGIN.right))
        .tickFormat(this.calibrated ? percent : (value) => value.toFixed(1)));
    svg.append("text").attr("class", "label").attr("x", width - MARGIN.right)
      .attr("y", HEIGHT - 6).attr("text-anchor", "end").text("users in the audience");
  }

  mark(size) {
    this.size = size;
    const point = this.at(size);
    if (!this.marker || !point) return;
    const x = this.x(Math.max(1, size));
    this.marker.attr("transform", `translate(${x},0)`);
    this.marker.select("circle").attr("cy", this.y(this.quality(point)));
  }

  words() {
    const points = this.reach.points;
    const said = [points[0], points[Math.floor(points.length / 2)], points.at(-1)].map((point) =>
      this.calibrated
        ? `the best ${number(point.size)}: ${percent(point.precision)}`
        : `the best ${number(point.size)}: score ${point.min_score.toFixed(2)} or more`);
    const what = this.calibrated ? "Share expected to do it" : "Least score";
    return `${what} by size of the audience. ${said.join("; ")}.`;
  }
}
