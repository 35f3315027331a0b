// The event stream: what the controller knows, part by part. `state` holds the latest of each, with when it came.

const PARTS = ["now", "gpus", "gpu_names", "outlook", "trail", "jobs", "feed", "bill", "pools"];

export const SILENT_S = 8;
const HIDDEN_S = 60;

export const state = { heardAt: null, parts: {}, receivedAt: {} };

const seconds = () => performance.now() / 1000;

/** Seconds since the part came; to be added to every age inside it. */
export const since = (part) => (part in state.receivedAt ? seconds() - state.receivedAt[part] : null);

/** Seconds since anything was heard; null before the first. */
export const silence = () => (state.heardAt === null ? null : seconds() - state.heardAt);

/** The controller's clock, carried on by ours. */
export function wallNow() {
  const now = state.parts.now;
  return now ? now.wall_s + since("now") : Date.now() / 1000;
}

/** A tab that nobody looks at lets go of its connection after a while: a browser has only six for one host. */
function watchVisibility(close, open) {
  let timer = null;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(close, HIDDEN_S * 1000);
    else open();
  });
}

export function listen(onPart) {
  let source = null;
  const open = () => {
    source = new EventSource("/api/stream");
    for (const name of PARTS) {
      source.addEventListener(name, (message) => {
        state.parts[name] = JSON.parse(message.data);
        state.receivedAt[name] = state.heardAt = seconds();
        onPart(name, state.parts[name]);
      });
    }
  };
  open();
  watchVisibility(() => source.close(), () => { if (source.readyState === EventSource.CLOSED) open(); });
  // A connection can die without a word; and a browser gives up for good after some answers.
  setInterval(() => {
    if (document.hidden) return;
    if (source.readyState === EventSource.CLOSED || (silence() ?? 0) > 4 * SILENT_S) {
      source.close();
      state.heardAt ??= seconds();
      open();
    }
  }, 5000);
}
