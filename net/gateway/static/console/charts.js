// Charts by hand, in SVG: a line over time, and steps of a balance.

import { s } from "./elements.js";

const WIDTH = 1000;
const TOP = 10;
const MINUTE_MS = 60_000;

/** Where a number ends on a scale with round steps: 1, 2 or 5 times a power of ten. */
export function roundedUp(number) {
  if (!(number > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(number));
  return power * [1, 2, 5, 10].find((step) => number <= step * power);
}

/**
 * A line of as many whole minutes as are known, up to `spanMs`, with gaps where nothing is known; `points` are those to
 * begin with.
 */
export class LineChart {
  constructor(spanMs, height, points = []) {
    this.spanMs = spanMs;
    this.height = height;
    this.points = points;
    this.line = s("path", { class: "line", "vector-effect": "non-scaling-stroke" });
    this.area = s("path", { class: "area" });
    this.grid = s("g", { class: "grid" });
    this.shown = s(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", class: "chart", "aria-hidden": "true" },
      this.grid,
      this.area,
      this.line,
    );
    for (const part of [0, 0.5, 1]) {
      const y = TOP + part * (height - TOP - 2);
      this.grid.append(s("line", { x1: 0, x2: WIDTH, y1: y, y2: y, "vector-effect": "non-scaling-stroke" }));
    }
  }

  /** The minutes that the line is of; it fills its frame soon, whoever has just opened the page. */
  minutes(nowMs) {
    return Math.min(Math.floor((nowMs - this.points[0][0]) / MINUTE_MS) + 1, this.spanMs / MINUTE_MS);
  }

  /** Add a number, or null for a gap, and draw. Returns the upper end of the scale. */
  add(nowMs, value) {
    this.points.push([nowMs, value]);
    while (this.points[0][0] < nowMs - this.spanMs) this.points.shift();
    const top = roundedUp(Math.max(0, ...this.points.map(([, number]) => number ?? 0)));
    const floor = this.height - 2;
    const spanMs = this.minutes(nowMs) * MINUTE_MS;
    const x = (ms) => (WIDTH * (1 - (nowMs - ms) / spanMs)).toFixed(1);
    const y = (number) => (floor - (number / top) * (floor - TOP)).toFixed(1);
    const runs = [];
    let run = null;
    for (const [ms, number] of this.points) {
      if (number === null) run = null;
      else if (run) run.push([x(ms), y(number)]);
      else runs.push((run = [[x(ms), y(number)]]));
    }
    this.line.setAttribute("d", runs.map((one) => `M${one.map((point) => point.join(" ")).join("L")}`).join(""));
    this.area.setAttribute(
      "d",
      runs.map((one) => `M${one[0][0]} ${floor}L${one.map((point) => point.join(" ")).join("L")}L${one.at(-1)[0]} ${floor}Z`).join(""),
    );
    return top;
  }
}

/** Steps of a balance; `steps`: [nanoseconds, minor units] as BigInts, in order, drawn from `start` to `end`. */
export function drawSteps(svg, steps, start, end, height) {
  const span = end > start ? end - start : 1n;
  const low = steps.reduce((least, [, units]) => (units < least ? units : least), 0n);
  const high = steps.reduce((most, [, units]) => (units > most ? units : most), 0n);
  const range = high > low ? high - low : 1n;
  // Parts of a thousand, computed whole: only these go into numbers of JavaScript.
  const x = (ns) => Number(((ns - start) * 10_000n) / span) / 10;
  const y = (units) => height - 4 - (Number(((units - low) * 10_000n) / range) / 10_000) * (height - 8);
  let path = "";
  for (const [ns, units] of steps) {
    if (ns > end) break;
    path += path ? `H${x(ns > start ? ns : start)}V${y(units).toFixed(1)}` : `M${x(ns > start ? ns : start)} ${y(units).toFixed(1)}`;
  }
  const line = s("path", { class: "line", "vector-effect": "non-scaling-stroke", d: path ? `${path}H${WIDTH}` : "" });
  const zero = s("line", { class: "zero", x1: 0, x2: WIDTH, y1: y(0n), y2: y(0n), "vector-effect": "non-scaling-stroke" });
  svg.replaceChildren(zero, line);
}

/** An empty frame for steps. */
export function stepsFrame(height) {
  return s("svg", { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", class: "chart steps", "aria-hidden": "true" });
}
