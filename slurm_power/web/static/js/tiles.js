// The row of figures at the top, each with its age.

import { byId, element, fill } from "./dom.js";
import { clockTime, duration, money, percent, power, powerParts, zone } from "./words.js";
import { since, state } from "./stream.js";

const OLD_S = 30;

function tile(name, [value, unit], under, { ageS = null, share = null, bad = false } = {}) {
  const age = ageS === null ? "" : duration(ageS + since("now"));
  const made = element("div", { className: bad ? "tile bad" : "tile", data: { tile: name } },
    element("div", { className: "name" },
      element("span", { text: name }),
      element("span", { text: age, className: ageS + since("now") > OLD_S ? "age old" : "age", title: "age of the reading" })),
    element("div", { className: String(value).length > 6 ? "value long" : "value", text: value }, element("small", { text: unit })));
  if (share !== null) made.append(bar(share));
  for (const line of under.filter(Boolean)) made.append(element("div", { className: "under", text: line }));
  return made;
}

function bar(share) {
  const inside = element("i");
  inside.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
  return element("div", { className: share > 1 ? "bar over" : "bar" }, inside);
}

function battery(ess, setpoint) {
  if (!ess) return tile("Battery", ["–", ""], ["the PCS has not answered"]);
  const flow = ess.discharge_watts > 0 ? `gives ${power(ess.discharge_watts)}`
    : ess.charge_watts > 0 ? `takes ${power(ess.charge_watts)}` : "rests";
  const health = ess.health_fraction === null ? "health unknown" : `health ${percent(ess.health_fraction)}`;
  const notes = [`${flow}, ${health}`];
  if (!ess.remote_allowed) notes.push("remote control is off at the panel");
  if (ess.alarms.length) notes.push(`alarm: ${ess.alarms.join(", ")}`);
  return tile("Battery charge", [Math.round(ess.stored_fraction * 100), "%"], notes,
    { ageS: ess.age_s, share: ess.stored_fraction, bad: ess.alarms.length > 0 });
}

function gpus(sums, ageS) {
  const capped = Object.entries(sums.by_source).filter(([source]) => source !== "found" && source !== "board");
  const words = { user: "by their users", lease: "by the plan", safe: "at the safe cap" };
  const caps = capped.map(([source, count]) => `${count} ${words[source] ?? source}`).join(", ");
  return tile("GPUs", [sums.busy.toLocaleString("en"), "busy"],
    sums.count === 0 ? ["none has reported"] : [`of ${sums.count.toLocaleString("en")} that report`, sums.draw_watts === null ? `draw at least ${power(sums.known_watts)}` : `draw ${power(sums.draw_watts)}`, caps ? `capped: ${caps}` : "none capped",
      sums.unreadable ? `${sums.unreadable} with a fault` : ""], { ageS });
}

function bill(bill) {
  if (!bill) return null;
  const when = clockTime(bill.end_wall_s, { seconds: false, date: true });
  return tile("Bill so far", [money(bill.total, ""), bill.currency],
    [bill.projected_total === null ? "no projection yet" : `projected ${money(bill.projected_total, bill.currency)}`,
      `period ends ${when} ${zone(bill.end_wall_s)}`]);
}

export function showTiles() {
  const now = state.parts.now;
  if (!now) return;
  const { grid, it, interval } = now;
  const share = grid && now.target_watts ? grid.import_watts / now.target_watts : null;
  const tiles = [
    tile("Grid import", powerParts(grid?.import_watts),
      [grid && grid.export_watts > 0 ? `exports ${power(grid.export_watts)}` : "",
        now.target_watts === null ? "no target yet" : `${percent(share)} of target ${power(now.target_watts)}`],
      { ageS: grid ? grid.age_s : null, share, bad: share !== null && share > 1 }),
    tile("Target", powerParts(now.target_watts),
      [now.peak_watts === null ? "" : `peak this period ${power(now.peak_watts)}`], { ageS: now.tick_age_s }),
    tile("Open interval, mean", powerParts(interval.average_watts),
      [interval.remaining_s === null ? "" : `${duration(Math.max(0, interval.remaining_s - since("now")))} left`],
      { share: interval.average_watts !== null && now.target_watts ? interval.average_watts / now.target_watts : null }),
    tile("IT load", powerParts(it.draw_watts), [it.nodes_reporting ? `${it.nodes_reporting} nodes report` : "no node has reported",
      it.draw_watts === null && it.nodes_reporting ? `a part is unknown; the rest draws ${power(now.gpus.nodes_watts)}` : ""], { ageS: it.age_s }),
    gpus(now.gpus, it.age_s),
    battery(now.ess, now.setpoint),
    bill(state.parts.bill),
  ];
  fill(byId("tiles"), ...tiles.filter(Boolean));
}
