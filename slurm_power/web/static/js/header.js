// Mode, what admins asked for, the link's state, the time, and what is wrong.

import { byId, element, fill } from "./dom.js";
import { clockTime, power, withZone } from "./words.js";
import { SILENT_S, silence, state, wallNow } from "./stream.js";

const WORDS = { manage: "Managing", observe: "Observing", hold: "On hold" };

export function showMode(now) {
  const asked = now.overrides ?? {};
  const mode = now.mode === "observe" ? "observe" : asked.hold ? "hold" : "manage";
  const badge = byId("mode");
  badge.textContent = WORDS[mode];
  badge.className = `badge ${mode}`;
  badge.title = { manage: "decides and acts", observe: "measures and plans, writes to nothing", hold: "decides nothing new about jobs" }[mode];
  byId("overrides").textContent = Object.entries(asked).filter(([, one]) => one).map(([name, one]) => wish(name, one)).join(" · ");
}

function wish(name, one) {
  const what = name === "target" ? `target ${power(one.watts)}` : name;
  const until = one.until_wall_s === null ? "" : ` until ${withZone(one.until_wall_s, { seconds: false })}`;
  return `${what}${until}, ${one.who}: ${one.why}`;
}

export function showTroubles(now) {
  const lines = [
    ...Object.entries(now.failures).map(([device, text]) => ["bad", device, text]),
    ...(now.failures_more ? [["bad", "More", `${now.failures_more} more devices or nodes; see slurm-power status`]] : []),
    ...now.clamped.map((text) => ["warn", "Clamped", text]),
    ...now.shortfalls.map((text) => ["warn", "Shortfall", text]),
    ...now.notes.map((text) => ["", "Note", text]),
  ];
  const box = byId("troubles");
  box.hidden = lines.length === 0;
  fill(box, ...lines.map(([kind, name, text]) =>
    element("div", { className: kind }, element("b", { text: `${name}: ` }), document.createTextNode(text))));
}

/** Once a second, also when nothing comes. */
export function showLink() {
  const silent = silence();
  const link = byId("link");
  const lost = silent !== null && silent > SILENT_S;
  document.body.classList.toggle("stale", lost);
  link.className = lost ? "link bad" : silent === null ? "link" : "link good";
  link.textContent = silent === null ? "connecting" : lost ? `no contact for ${Math.round(silent)} s: all of this is old` : "live";
  byId("clock").textContent = state.parts.now ? withZone(wallNow()) : clockTime(null);
}
