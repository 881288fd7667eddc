// How each state looks: a colour, and with it always a sign; the word comes from the texts.

const LOOKS = {
  good: ["good", "●"], alive: ["good", "●"], serving: ["good", "●"], ok: ["good", "✓"], running: ["good", "●"], done: ["good", "✓"],
  drained: ["good", "✓"], suspect: ["warn", "▲"], unverified: ["warn", "▲"], full: ["warn", "■"], warning: ["warn", "▲"], maintenance: ["warn", "■"],
  draining: ["warn", "▲"], paused: ["warn", "■"], dead: ["bad", "✕"], failed: ["bad", "✕"], corrupt: ["bad", "✕"],
  critical: ["bad", "✕"], lost: ["bad", "✕"], removed: ["bad", "✕"], waiting: ["", "○"], off: ["", "○"],
};

// A copy that nobody vouches for is no server that is silent.
export const copyState = (state) => (state === "suspect" ? "unverified" : state);

// [colour class, sign]
export const look = (state) => LOOKS[state] ?? ["", "?"];
