// Numbers as people read them. Unknown is a dash, never 0.

export const UNKNOWN = "–";

// Between number and unit, so that no line breaks there.
const SPACE = "\u00a0";

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

function digits(value) {
  const size = Math.abs(value);
  return size >= 100 ? 0 : size >= 10 ? 1 : 2;
}

/** [number, unit] of a power, so that they can be set apart. */
export function powerParts(watts) {
  if (!known(watts)) return [UNKNOWN, ""];
  const [value, unit] = watts >= 1e7 ? [watts / 1e6, "MW"] : [watts / 1e3, "kW"];
  const places = digits(value);
  return [value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places }), unit];
}

export const power = (watts) => powerParts(watts).join(SPACE).trim();

export const watts = (value) => (known(value) ? `${Math.round(value)}${SPACE}W` : UNKNOWN);

export const percent = (fraction) => (known(fraction) ? `${Math.round(fraction * 100)}${SPACE}%` : UNKNOWN);

export function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 10) return `${seconds.toFixed(1)}${SPACE}s`;
  if (seconds < 120) return `${Math.round(seconds)}${SPACE}s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)}${SPACE}min` : `${(seconds / 3600).toFixed(1)}${SPACE}h`;
}

export function money(amount, currency) {
  if (!known(amount)) return UNKNOWN;
  const places = Math.abs(amount) < 100 ? 2 : 0;
  const text = amount.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
  return currency ? `${currency}${SPACE}${text}` : text;
}

export function number(value, places = 1) {
  return known(value) ? value.toLocaleString("en", { maximumFractionDigits: places }) : UNKNOWN;
}

/** The browser's zone at that moment, as "UTC" or "GMT+1". */
export function zone(wallS = Date.now() / 1000) {
  const parts = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(new Date(wallS * 1000));
  return parts.find((part) => part.type === "timeZoneName").value;
}

export function clockTime(wallS, { seconds = true, date = false } = {}) {
  if (!known(wallS)) return UNKNOWN;
  const shown = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (seconds) shown.second = "2-digit";
  if (date) Object.assign(shown, { day: "numeric", month: "short" });
  return new Intl.DateTimeFormat("en-GB", shown).format(new Date(wallS * 1000));
}

export const withZone = (wallS, options) => (known(wallS) ? `${clockTime(wallS, options)} ${zone(wallS)}` : UNKNOWN);
