// Jobs, decisions, pools and the bill, as tables and a list.

import { byId, element, fill, table } from "./dom.js";
import { clockTime, duration, money, number, power, UNKNOWN, watts, withZone, zone } from "./words.js";

const STATES = { RUNNING: ["run", "running"], PENDING: ["wait", "waiting"], SUSPENDED: ["pause", "suspended"] };

function stateCell(job) {
  const [dot, word] = STATES[job.state] ?? ["", job.state.toLowerCase()];
  return element("span", { className: "state" }, element("span", { className: `dot ${dot}` }), document.createTextNode(word));
}

const JOB_COLUMNS = [
  { head: "Job", className: "number", cell: (job) => job.job_id },
  { head: "State", cell: stateCell },
  { head: "User", className: "short", cell: (job) => job.user_name },
  { head: "Name", className: "name", cell: (job) => job.name },
  { head: "GPUs", className: "number", cell: (job) => job.gpus },
  { head: "Class", className: "short", cell: (job) => job.power_class ?? "" },
  { head: "Cap", className: "number", cell: (job) => (job.capped_watts === null ? "" : watts(job.capped_watts)) },
  { head: "Why it waits, or is capped", className: "why", cell: why },
];

function why(job) {
  const until = job.deferred_until_wall_s;
  return until === null ? job.why : `not before ${withZone(until, { seconds: false })}: ${job.why}`;
}

export function showJobs(jobs) {
  const parts = [`${jobs.running} running`, `${jobs.waiting} waiting`];
  if (jobs.waiting_for_watts) parts.push(`${jobs.waiting_for_watts} of them for watts`);
  if (jobs.deferred) parts.push(`${jobs.deferred} deferred`);
  if (jobs.capped) parts.push(`${jobs.capped} capped`);
  if (jobs.suspended) parts.push(`${jobs.suspended} suspended`);
  const all = jobs.running + jobs.waiting + jobs.suspended;
  if (jobs.shown.length < all) parts.push(`the first ${jobs.shown.length} are shown`);
  byId("jobs-count").textContent = parts.join(", ");
  fill(byId("jobs"), jobs.shown.length ? table(JOB_COLUMNS, jobs.shown) : element("p", { className: "empty", text: "No job waits or runs." }));
}

/** What one tick did alike to several reservations is one line. */
function gathered(events) {
  const found = [];
  for (const event of events) {
    const last = found[found.length - 1];
    const kind = event.subject.split(" ")[0];
    const alike = last && kind === "reservation" && last.event.subject.startsWith(kind) && last.event.verb === event.verb
      && last.event.wall_s === event.wall_s && !last.event.failure && !event.failure;
    if (alike) last.more += 1;
    else found.push({ event, more: 0 });
  }
  return found;
}

export function showFeed(events) {
  const items = gathered(events).map(({ event, more }) => element("li", {},
    element("time", { text: `${clockTime(event.wall_s)} ${zone(event.wall_s)}`, title: withZone(event.wall_s, { date: true }) }),
    element("b", { text: `${event.verb} ${event.subject}${more ? ` and ${more} more` : ""}` }),
    document.createTextNode(`: ${event.reason}`),
    ...(event.failure ? [element("span", { className: "failed", text: ` Refused: ${event.failure}` })] : [])));
  fill(byId("feed"), ...(items.length ? items : [element("li", { className: "empty", text: "Nothing was decided yet." })]));
}

const unit = (value, name, places = 0) => (Number.isFinite(value) ? `${number(value, places)} ${name}` : UNKNOWN);

// `key`: the column is left out where no pool tells it.
const POOL_COLUMNS = [
  { head: "Pool", cell: (pool) => pool.pool },
  { head: "State", key: "state", cell: (pool) => pool.state ?? UNKNOWN },
  { head: "Instances", key: "instances", className: "number", cell: (pool) => number(pool.instances, 0) },
  { head: "Draw", className: "number", cell: (pool) => power(pool.draw_watts) },
  { head: "Budget", key: "budget_watts", className: "number", cell: (pool) => power(pool.budget_watts) },
  { head: "SM clock", key: "clock_mhz", className: "number", cell: (pool) => unit(pool.clock_mhz, "MHz") },
  { head: "Least slack", key: "slack_s", className: "number", cell: (pool) => duration(pool.slack_s) },
  { head: "Energy", key: "joules_per_token", className: "number", cell: (pool) => unit(pool.joules_per_token, "J/token", 2) },
  { head: "Rate", key: "tokens_per_s", className: "number", cell: (pool) => unit(pool.tokens_per_s, "tokens/s") },
];

export function showPools(pools) {
  const told = POOL_COLUMNS.filter(({ key }) => !key || pools.some((pool) => pool[key] !== null && pool[key] !== undefined));
  byId("pools-panel").hidden = pools.length === 0;
  fill(byId("pools"), table(told, pools));
}

export function showBill(bill) {
  byId("bill-period").textContent = `${withZone(bill.start_wall_s, { seconds: false, date: true })} to ${withZone(bill.end_wall_s, { seconds: false, date: true })}`;
  const columns = [
    { head: "What", cell: (line) => line.name },
    { head: "So far", className: "number", cell: (line) => amount(line.amount, line.unit) },
    { head: bill.currency, className: "number", cell: (line) => money(line.money, "") },
    { head: "Projected", className: "number", cell: (line) => amount(line.projected_amount, line.unit) },
    { head: bill.currency, className: "number", cell: (line) => money(line.projected_money, "") },
  ];
  const total = { name: "Total", amount: null, unit: "", money: bill.total, projected_amount: null, projected_money: bill.projected_total, total: true };
  const rows = table(columns, [...bill.lines, total], { rowClass: (line) => (line.total ? "total" : "") });
  fill(byId("bill"), rows, ...bill.notes.map((note) => element("p", { className: "caption", text: note })));
}

const amount = (value, name) => (value === null ? "" : `${number(value, value < 100 ? 1 : 0)} ${name}`);
