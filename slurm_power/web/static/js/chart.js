// One chart over time: the past as measured, a line for now, the plan behind it.

import { colour, element } from "./dom.js";
import { clockTime, zone } from "./words.js";
import { wallNow } from "./stream.js";

const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", "DejaVu Sans", sans-serif';
const HEIGHT = 205;
const SYNC = "plan";

/**
 * options.series: [{label, colour, table, column, stepped, dash, width, scale, hidden, fill}]; `table` names where its values come
 * from, `hidden` keeps an edge of a band out of the key. options.bands: [{high, low, colour}] by series number, from 1.
 */
export class TimeChart {
  constructor(figure, options) {
    this.figure = figure;
    this.options = options;
    this.box = element("div");
    this.readout = element("p", { className: "readout" });
    figure.replaceChildren(this.caption(), this.box, this.readout);
    this.data = [[]];
    new ResizeObserver(() => this.resize()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
  }

  caption() {
    const keys = this.options.series.filter((one) => !one.hidden).map((one) =>
      element("span", { className: "key" }, swatch(one), document.createTextNode(one.label)));
    return element("figcaption", {}, element("h2", { text: this.options.title }), ...keys);
  }

  rebuild() {
    this.figure.replaceChild(this.caption(), this.figure.querySelector("figcaption"));
    this.plot?.destroy();
    this.plot = null;
    this.show(this.data, this.range);
  }

  resize() {
    const width = Math.floor(this.box.clientWidth);
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  /** tables: {name: {x: [...], columns: {...}}}; range: [from, to] in seconds since the epoch. */
  set(tables, range) {
    const names = [...new Set(this.options.series.map((one) => one.table))];
    const joined = names.map((name) => {
      const own = this.options.series.filter((one) => one.table === name);
      return [tables[name].x, ...own.map((one) => tables[name].columns[one.column])];
    });
    const [x, ...columns] = uPlot.join(joined);
    const order = names.flatMap((name) => this.options.series.filter((one) => one.table === name));
    this.show([x, ...this.options.series.map((one) => columns[order.indexOf(one)])], range);
  }

  show(data, range) {
    this.data = data;
    this.range = range;
    if (!range || !this.box.clientWidth) return;
    if (this.plot) {
      this.plot.setData(data, false);
      this.plot.setScale("x", { min: range[0], max: range[1] });
    } else {
      this.plot = new uPlot(this.plotOptions(), data, this.box);
    }
  }

  plotOptions() {
    const { series, bands = [], share = false } = this.options;
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1, size: 4 }, gap: 4, font: FONT, labelFont: FONT };
    const kilowatts = (u, values) => values.map((value) => (value / 1000).toLocaleString("en", { maximumFractionDigits: 2 }));
    return {
      width: Math.floor(this.box.clientWidth), height: HEIGHT, legend: { show: false },
      cursor: { sync: { key: SYNC }, points: { show: false }, drag: { x: false, y: false } },
      scales: {
        x: { time: true, range: () => this.range },
        y: { range: (u, low, high) => (this.options.fromZero ? [0, nice(high)] : around(low, high)) },
        ...(share ? { share: { range: [0, 1] } } : {}),
      },
      axes: [
        { ...axis, size: 40, label: `Time (${zone(this.range?.[0])})`, labelSize: 17, labelGap: 0, lineGap: 1.2, values: times, space: 64 },
        { ...axis, size: 50, label: "kW", labelSize: 18, labelGap: 2, values: kilowatts },
        ...(share ? [{ ...axis, scale: "share", side: 1, size: 40, label: "Stored, %", labelSize: 18, grid: { show: false }, values: (u, values) => values.map((value) => Math.round(value * 100)) }] : []),
      ],
      series: [{}, ...series.map(lineOf)],
      bands: bands.map((band) => ({ series: [band.high, band.low], fill: colour(band.colour) })),
      hooks: { drawClear: [shadePast], draw: [drawNow], setCursor: [(u) => this.read(u)] },
    };
  }

  /** The values at the cursor, in words. */
  read(u) {
    const { left } = u.cursor;
    if (left === null || left < 0) {
      this.readout.textContent = "";
      return;
    }
    const at = u.posToVal(left, "x");
    const words = this.options.series.map((one, index) => [one, lastKnown(u.data, index + 1, at)])
      .filter(([one, value]) => value !== null && !one.hidden)
      .map(([one, value]) => `${one.label} ${one.scale === "share" ? `${Math.round(value * 100)} %` : `${(value / 1000).toLocaleString("en", { maximumFractionDigits: 1 })} kW`}`);
    this.readout.textContent = [`${clockTime(at, { seconds: false })} ${zone(at)}`, ...words].join(" · ");
  }
}

function lineOf(one) {
  const { hidden, fill } = one;
  return {
    label: one.label, scale: one.scale ?? "y", stroke: hidden ? "transparent" : colour(one.colour), width: hidden ? 0 : one.width ?? 1.75,
    dash: one.dash, points: { show: false }, fill: fill ? colour(one.colour) + "55" : undefined,
    paths: one.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
  };
}

function swatch(one) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const [width, height] = [22, 10];
  line.setAttribute("width", width);
  line.setAttribute("height", height);
  line.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", one.band || one.fill ? "rect" : "line");
  const box = one.band || one.fill ? { x: 0, y: 0, width, height, fill: colour(one.colour), "fill-opacity": one.band ? 1 : .45 }
    : { x1: 0, x2: width, y1: height / 2, y2: height / 2, stroke: colour(one.colour), "stroke-width": 2.5, "stroke-dasharray": (one.dash ?? []).join(" ") };
  for (const [name, value] of Object.entries(box)) shape.setAttribute(name, value);
  line.append(shape);
  return line;
}

/** The series' value at a time: the newest one not later, unless it is a gap or far away. */
function lastKnown(data, index, at) {
  const [x] = data;
  const column = data[index];
  const far = (x[x.length - 1] - x[0]) / 20;
  let position = x.length - 1;
  while (position >= 0 && x[position] > at) position -= 1;
  for (; position >= 0 && at - x[position] < far; position -= 1) {
    if (column[position] !== undefined) return column[position];
  }
  return null;
}

function nice(high) {
  const above = Math.max(1000, (high ?? 0) * 1.08);
  const step = 10 ** Math.floor(Math.log10(above)) / 4;
  return Math.ceil(above / step) * step;
}

/** Lines, not areas: the axis need not begin at 0 where that would press them flat. */
function around(low, high) {
  if (low === null || low < 0.4 * high) return [0, nice(high)];
  const space = Math.max(0.25 * (high - low), 0.02 * high);
  return [Math.max(0, low - space), high + space];
}

/** "14:00", and the day under the first and under every midnight. */
function times(u, values, axisNumber, space, step) {
  let before = "";
  return values.map((value) => {
    const day = clockTime(value, { seconds: false, date: true }).split(",")[0];
    const text = clockTime(value, { seconds: step < 60 });
    const shown = day === before ? text : `${text}\n${day}`;
    before = day;
    return shown;
  });
}

function shadePast(u) {
  const x = u.valToPos(wallNow(), "x", true);
  const { left, top, height } = u.bbox;
  if (x <= left) return;
  u.ctx.save();
  u.ctx.fillStyle = colour("shade");
  u.ctx.fillRect(left, top, Math.min(x, left + u.bbox.width) - left, height);
  u.ctx.restore();
}

function drawNow(u) {
  const x = Math.round(u.valToPos(wallNow(), "x", true));
  const { left, top, width, height } = u.bbox;
  if (x < left || x > left + width) return;
  u.ctx.save();
  u.ctx.strokeStyle = u.ctx.fillStyle = colour("ink");
  u.ctx.lineWidth = devicePixelRatio;
  u.ctx.setLineDash([]);
  u.ctx.textAlign = "left";
  u.ctx.beginPath();
  u.ctx.moveTo(x + .5, top);
  u.ctx.lineTo(x + .5, top + height);
  u.ctx.stroke();
  u.ctx.font = FONT.replace("12px", `${Math.round(12 * devicePixelRatio)}px`);
  u.ctx.textBaseline = "top";
  u.ctx.fillText("now", x + 4 * devicePixelRatio, top + 2 * devicePixelRatio);
  u.ctx.restore();
}
