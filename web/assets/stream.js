// The nameserver's stream: kept open, and folded into what is known of the cluster.

const SILENT_MS = 15_000; // samples come each second: so long without one, and the stream is dead
const AGAIN_MS = 2000;
const TIMELINE_MAX = 500;

// A JSON merge patch (RFC 7396). What it doesn't touch stays the same object.
export function merge(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const merged = target !== null && typeof target === "object" && !Array.isArray(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = merge(merged[key], value);
  }
  return merged;
}

export const NOTHING = { state: null, timeline: [], sample: null, up: false, at: 0 };

// What is known after `message`.
export function fold(known, { kind, data, at }) {
  switch (kind) {
    case "snapshot": return { ...known, ...data, up: true, at };
    case "delta": return { ...known, state: merge(known.state, data), up: true, at };
    case "sample": return { ...known, sample: data, up: true, at };
    case "event": return { ...known, timeline: [...known.timeline, data].slice(-TIMELINE_MAX), up: true, at };
    default: return { ...known, up: false };
  }
}

// Follows the stream for good; each message, and each loss of it, is told.
export function follow(tell) {
  let source = null;
  let heard = 0;
  let timer = 0;

  function open() {
    source?.close();
    clearTimeout(timer);
    heard = Date.now();
    source = new EventSource("/api/v1/events");
    for (const kind of ["snapshot", "delta", "sample", "event"]) {
      source.addEventListener(kind, ({ data }) => {
        heard = Date.now();
        tell({ kind, data: JSON.parse(data), at: heard });
      });
    }
    source.onerror = () => {
      tell({ kind: "lost" });
      // The browser tries again by itself, but not after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, AGAIN_MS);
    };
  }

  open();
  setInterval(() => {
    if (Date.now() - heard < SILENT_MS) return;
    tell({ kind: "lost" });
    open();
  }, 3000);
}
