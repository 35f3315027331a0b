// The three charts: grid import against its limit, IT load against its envelope, the battery.

import { TimeChart } from "./chart.js";
import { byId } from "./dom.js";
import { money, withZone } from "./words.js";
import { state, wallNow } from "./stream.js";

const DASHED = [6, 4];
const LEAST_S = 60;

const GRID = {
  title: "Grid import",
  series: [
    { label: "forecast load, 80 %", table: "plan", column: "load_high_watts", colour: "band", stepped: true, band: true, hidden: false, width: 0 },
    { label: "forecast, low", table: "plan", column: "load_low_watts", stepped: true, hidden: true },
    { label: "measured", table: "past", column: "grid_import_watts", colour: "blue", width: 2 },
    { label: "planned", table: "plan", column: "grid_import_watts", colour: "blue", dash: DASHED, stepped: true },
    { label: "limit to defend", table: "plan", column: "limit_watts", colour: "red", stepped: true, width: 2 },
    { label: "target then", table: "past", column: "target_watts", colour: "red", stepped: true, width: 1, hidden: false, dash: [2, 3] },
  ],
  bands: [{ high: 1, low: 2, colour: "band" }],
};

const IT = {
  title: "IT load",
  series: [
    { label: "forecast wish, 80 %", table: "plan", column: "it_high_watts", colour: "band", stepped: true, band: true, width: 0 },
    { label: "forecast, low", table: "plan", column: "it_low_watts", stepped: true, hidden: true },
    { label: "measured", table: "past", column: "it_watts", colour: "blue", width: 2 },
    { label: "planned", table: "plan", column: "it_watts", colour: "blue", dash: DASHED, stepped: true },
    { label: "envelope", table: "plan", column: "envelope_watts", colour: "orange", stepped: true, width: 2 },
  ],
  bands: [{ high: 1, low: 2, colour: "band" }],
};

const BATTERY = {
  title: "Battery",
  share: true,
  fromZero: true,
  series: [
    { label: "gave", table: "past", column: "discharge_watts", colour: "green", fill: true, width: 1.5 },
    { label: "took", table: "past", column: "charge_watts", colour: "violet", fill: true, width: 1.5 },
    { label: "will give", table: "plan", column: "discharge_watts", colour: "green", dash: DASHED, stepped: true },
    { label: "will take", table: "plan", column: "charge_watts", colour: "violet", dash: DASHED, stepped: true },
    { label: "stored", table: "past", column: "stored_fraction", colour: "ink", scale: "share", width: 1.5 },
    { label: "will be stored", table: "stored", column: "stored_fraction", colour: "ink", scale: "share", dash: DASHED, width: 1.5 },
  ],
};

let charts = [];

export function prepareCharts() {
  charts = [["chart-grid", GRID], ["chart-it", IT], ["chart-battery", BATTERY]].map(([id, options]) => new TimeChart(byId(id), options));
}

export function drawCharts() {
  const tables = { past: pastTable(), plan: planTable(), stored: storedTable() };
  const range = shownRange(tables);
  for (const chart of charts) chart.set(tables, range);
  note();
}

function shownRange({ past, plan }) {
  const nowS = wallNow();
  const to = plan.x.length ? plan.x[plan.x.length - 1] : nowS;
  const most = Math.max(600, (to - nowS) / 2);
  const from = past.x.length ? Math.max(past.x[0], nowS - most) : nowS - 60;
  return [Math.min(from, to - LEAST_S), to];
}

const PAST = ["grid_import_watts", "target_watts", "it_watts", "charge_watts", "discharge_watts", "stored_fraction"];

/** The trail, and at its end what was read just now. */
function pastTable() {
  const { trail, now } = state.parts;
  const x = trail ? [...trail.wall_s] : [];
  const columns = Object.fromEntries(PAST.map((name) => [name, trail ? [...trail[name]] : []]));
  if (now && (x.length === 0 || now.wall_s > x[x.length - 1])) {
    x.push(now.wall_s);
    const live = {
      grid_import_watts: now.grid?.import_watts, target_watts: now.target_watts, it_watts: now.it.draw_watts,
      charge_watts: now.ess?.charge_watts, discharge_watts: now.ess?.discharge_watts, stored_fraction: now.ess?.stored_fraction,
    };
    for (const name of PAST) columns[name].push(live[name] ?? null);
  }
  return { x, columns };
}

/** Each slot from its start; a last point closes the last slot. */
function planTable() {
  const outlook = state.parts.outlook;
  const names = ["load_high_watts", "load_low_watts", "grid_import_watts", "limit_watts", "it_high_watts", "it_low_watts", "it_watts", "envelope_watts", "charge_watts", "discharge_watts"];
  if (!outlook?.slots.start_wall_s.length) return { x: [], columns: Object.fromEntries(names.map((name) => [name, []])) };
  const starts = outlook.slots.start_wall_s;
  const x = [...starts, starts[starts.length - 1] + outlook.slot_s];
  const column = (name) => outlook.slots[name] ?? outlook.forecast?.[name] ?? starts.map(() => null);
  return { x, columns: Object.fromEntries(names.map((name) => [name, [...column(name), column(name)[starts.length - 1]]])) };
}

/** What is stored at the end of each slot. */
function storedTable() {
  const { outlook, now } = state.parts;
  const capacity = now?.ess?.capacity_joules;
  if (!outlook || !capacity) return { x: [], columns: { stored_fraction: [] } };
  const x = outlook.slots.start_wall_s.map((start) => start + outlook.slot_s);
  const stored = outlook.slots.stored_joules.map((joules) => joules / capacity);
  return { x: [now.wall_s, ...x], columns: { stored_fraction: [now.ess.stored_fraction, ...stored] } };
}

function note() {
  const { outlook, bill } = state.parts;
  if (!outlook) return;
  const cost = bill ? `, which costs ${money(outlook.cost, bill.currency)} as planned` : "";
  const model = outlook.forecast ? ` Forecast: ${outlook.forecast.model}; the band holds 80 % of what comes.` : "";
  const slots = outlook.slots.start_wall_s.length;
  byId("plan-note").textContent = `Planned at ${withZone(outlook.made_wall_s)} for ${slots} slots${cost}.${model}`;
}
