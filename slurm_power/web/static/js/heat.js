// Every GPU of every node as one small square on a canvas; readable from one node to thousands.

import { byId, colour, element } from "./dom.js";
import { duration, UNKNOWN, watts } from "./words.js";
import { since, state } from "./stream.js";

// Viridis (Smith and van der Walt, CC0): even steps of lightness, also for people with colour blindness and in grey.
const SHADES = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const CELL_SIZES = [40, 36, 32, 29, 26, 22, 18, 15, 12, 10, 8, 6, 5, 4, 3];
const ROOM = 740;
const NAMED = 15;
const SOURCES = { found: "as found", user: "its user", lease: "the plan", safe: "safe cap", board: "the board" };
const SOURCE_COLOURS = { found: "unknown", user: "violet", lease: "blue", safe: "orange", board: "green" };

const CHOICES = {
  draw: { label: "Draw", column: "draw_watts", unit: "W" },
  cap: { label: "Cap", column: "cap_watts", unit: "W" },
  source: { label: "Cap set by", column: "source" },
  heat: { label: "Temperature", column: "celsius", unit: "°C" },
};

let choice = "draw";
let layout = null;
let pointed = null;

export function prepareHeat() {
  for (const [name, { label }] of Object.entries(CHOICES)) {
    const button = element("button", { text: label, data: { choice: name } });
    button.type = "button";
    button.addEventListener("click", () => { choice = name; drawHeat(); });
    byId("heat-choices").append(button);
  }
  const canvas = byId("heat");
  canvas.addEventListener("pointermove", (event) => point(gpuAt(event.offsetX, event.offsetY)));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("keydown", walk);
  new ResizeObserver(() => drawHeat()).observe(canvas.parentElement);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawHeat());
}

export function drawHeat() {
  const gpus = state.parts.gpus;
  const canvas = byId("heat");
  const width = canvas.parentElement.clientWidth;
  if (!gpus || !width) return;
  layout = arrange(gpus.counts, width);
  size(canvas, width, layout.height);
  const scale = scaleOf(gpus);
  const paint = canvas.getContext("2d");
  paint.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  paint.clearRect(0, 0, width, layout.height);
  drawNames(paint, gpus);
  const values = gpus[CHOICES[choice].column];
  layout.cells.forEach(([x, y], index) => {
    paint.fillStyle = values[index] === null ? colour("unknown") : scale.colour(values[index]);
    paint.fillRect(x, y, layout.cell, layout.cell);
    if (values[index] === null) cross(paint, x, y);
  });
  if (pointed !== null && pointed < layout.cells.length) mark(paint, pointed);
  describe(gpus, scale);
}

/** Blocks of one node each, in rows, with the largest squares for which all of it fits. */
function arrange(counts, width) {
  const fitting = CELL_SIZES.map((cell) => blocks(counts, width, cell)).filter((one) => one.columns > 0);
  return fitting.find((one) => one.height <= ROOM) ?? fitting[fitting.length - 1];
}

/** Large blocks bear their node's name; of small ones only the first of a row does, where there is room for text. */
function blocks(counts, width, cell) {
  const most = Math.max(1, ...counts);
  const gap = cell > 8 ? 2 : 1;
  const labels = cell >= NAMED;
  const margin = labels ? 0 : 66;
  const blockWidth = Math.max(most * (cell + gap) + (labels ? 12 : 5), labels ? 62 : 0);
  const columns = Math.floor((width - margin + 12) / blockWidth);
  const blockHeight = cell + (labels ? 24 : 3);
  const cells = [];
  const starts = [];
  counts.forEach((count, node) => {
    const x = margin + (node % columns) * blockWidth;
    const y = Math.floor(node / columns) * blockHeight;
    starts.push([x, y, cells.length]);
    for (let gpu = 0; gpu < count; gpu += 1) cells.push([x + gpu * (cell + gap), y + (labels ? 16 : 0)]);
  });
  const rows = Math.ceil(counts.length / Math.max(1, columns));
  return { cell, gap, labels, margin, columns, cells, starts, blockWidth, blockHeight, height: Math.max(20, rows * blockHeight + 8) };
}

function size(canvas, width, height) {
  const [wide, high] = [Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
}

function scaleOf(gpus) {
  if (choice === "source") {
    const colours = gpus.sources.map((source) => colour(SOURCE_COLOURS[source] ?? "unknown"));
    return { colour: (index) => colours[index] };
  }
  const highest = Math.max(...gpus[CHOICES[choice].column].filter((value) => value !== null), 1);
  const caps = Math.max(...gpus.cap_watts.filter((value) => value !== null), 1);
  const top = choice === "heat" ? Math.max(90, highest) : Math.max(highest, caps);
  const low = choice === "heat" ? 20 : 0;
  const shades = Array.from({ length: 64 }, (_, step) => shade(step / 63));
  return { low, top, colour: (value) => shades[Math.round(Math.min(1, Math.max(0, (value - low) / (top - low))) * 63)] };
}

function shade(share) {
  const at = share * (SHADES.length - 1);
  const [below, above] = [Math.floor(at), Math.ceil(at)];
  const channel = (text, number) => parseInt(text.slice(1 + 2 * number, 3 + 2 * number), 16);
  const mixed = [0, 1, 2].map((number) => Math.round(channel(SHADES[below], number) + (at - below) * (channel(SHADES[above], number) - channel(SHADES[below], number))));
  return `rgb(${mixed.join(",")})`;
}

function drawNames(paint, gpus) {
  paint.font = '12px system-ui, "Liberation Sans", "DejaVu Sans", sans-serif';
  paint.textBaseline = "top";
  const every = layout.labels ? 1 : layout.columns * Math.ceil(15 / layout.blockHeight);
  for (let node = 0; node < layout.starts.length; node += every) {
    const [x, y] = layout.starts[node];
    paint.fillStyle = colour(layout.labels && !gpus.fresh[node] ? "red" : "soft");
    paint.fillText(shortened(paint, gpus.nodes[node], layout.labels ? layout.blockWidth - 8 : layout.margin - 6), x - layout.margin, y);
  }
}

function shortened(paint, name, width) {
  let text = name;
  while (text.length > 1 && paint.measureText(text).width > width) text = text.slice(0, -1);
  return text === name ? text : `${text.slice(0, -1)}…`;
}

/** Unknown is crossed out: no colour of the scale may be taken for it. */
function cross(paint, x, y) {
  paint.strokeStyle = colour("soft");
  paint.lineWidth = 1;
  paint.beginPath();
  paint.moveTo(x + 1, y + layout.cell - 1);
  paint.lineTo(x + layout.cell - 1, y + 1);
  paint.stroke();
}

function mark(paint, index) {
  const [x, y] = layout.cells[index];
  paint.strokeStyle = colour("red");
  paint.lineWidth = 2;
  paint.strokeRect(x - 1, y - 1, layout.cell + 2, layout.cell + 2);
}

function gpuAt(x, y) {
  if (!layout) return null;
  const reach = layout.cell + layout.gap;
  const found = layout.cells.findIndex(([left, top]) => x >= left && x < left + reach && y >= top && y < top + reach);
  return found < 0 ? null : found;
}

function point(index) {
  if (index === pointed) return;
  pointed = index;
  drawHeat();
}

function walk(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 8, ArrowUp: -8 }[event.key];
  if (!step || !layout) return;
  event.preventDefault();
  point(Math.min(layout.cells.length - 1, Math.max(0, (pointed ?? -1) + step)));
}

function describe(gpus, scale) {
  if (layout.cells.length === 0) {
    byId("heat-count").textContent = "none has reported";
    return;
  }
  byId("heat-count").textContent = `${gpus.nodes.length.toLocaleString("en")} nodes, ${layout.cells.length.toLocaleString("en")} GPUs`;
  for (const button of byId("heat-choices").children) button.setAttribute("aria-pressed", String(button.dataset.choice === choice));
  byId("heat-legend").replaceChildren(...(choice === "source" ? sourceKeys(gpus) : [ramp(), element("span", { text: rampWords(scale) })]), unknownKey());
  byId("heat-detail").textContent = pointed === null || pointed >= layout.cells.length ? silentNodes(gpus) : details(gpus, pointed);
}

const rampWords = ({ low, top }) => `${low} to ${Math.round(top)} ${CHOICES[choice].unit}`;

function silentNodes(gpus) {
  const silent = gpus.nodes.filter((_, node) => !gpus.fresh[node]);
  if (!silent.length) return "Point at a GPU for its details.";
  return `${silent.length === 1 ? "1 node is" : `${silent.length} nodes are`} silent: ${silent.slice(0, 8).join(", ")}${silent.length > 8 ? ", …" : ""}.`;
}

function details(gpus, index) {
  const node = layout.starts.findLastIndex(([, , first]) => first <= index);
  const name = gpus.nodes[node];
  const uuid = state.parts.gpu_names?.[name]?.[index - layout.starts[node][2]] ?? "";
  const source = gpus.source[index] === null ? UNKNOWN : SOURCES[gpus.sources[gpus.source[index]]];
  const job = gpus.job_id[index] === null ? "no job" : `job ${gpus.job_id[index]}`;
  const celsius = gpus.celsius[index] === null ? UNKNOWN : `${gpus.celsius[index]} °C`;
  const age = duration(gpus.ages_s[node] + since("gpus"));
  return `${name}, ${uuid}: draws ${watts(gpus.draw_watts[index])}, cap ${watts(gpus.cap_watts[index])} (set by ${source}), ${celsius}, ${job}, read ${age} ago`;
}

function ramp() {
  const canvas = element("canvas");
  [canvas.width, canvas.height] = [140, 12];
  const paint = canvas.getContext("2d");
  for (let x = 0; x < 140; x += 1) {
    paint.fillStyle = shade(x / 139);
    paint.fillRect(x, 0, 1, 12);
  }
  return canvas;
}

function key(fill, text) {
  const square = element("span", { className: "dot" });
  square.style.background = fill;
  return element("span", { className: "key" }, square, document.createTextNode(text));
}

function sourceKeys(gpus) {
  const counts = gpus.sources.map((_, index) => gpus.source.filter((source) => source === index).length);
  return gpus.sources.map((source, index) => key(colour(SOURCE_COLOURS[source]), `${SOURCES[source]} (${counts[index]})`)).filter((_, index) => counts[index]);
}

const unknownKey = () => key(`linear-gradient(135deg, ${colour("unknown")} 44%, ${colour("soft")} 44% 56%, ${colour("unknown")} 56%)`, "unknown");
