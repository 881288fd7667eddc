// The figures of the last minutes or hours, with each new sample at their end.

import { useEffect, useState } from "../../html.js";
import { get } from "../../api.js";
import { onSample, useKnown } from "../../store.js";

const fold = (column, before, now, folded) => {
  if (now === null) return before;
  if (before === null) return now;
  return column.includes("p99") ? Math.max(before, now) : (before * folded + now) / (folded + 1);
};

// The history with `row` in it: a sample of the last step's time goes into that step.
function append(history, row) {
  const { step_ms: step, columns, rows } = history;
  const at = Math.floor(row[0] / step) * step;
  const last = rows.at(-1);
  if (last && at < last[0]) return history;
  if (last && at === last[0]) {
    const folded = history.folded ?? 1;
    const merged = last.map((value, index) => (index ? fold(columns[index], value, row[index], folded) : value));
    return { ...history, rows: [...rows.slice(0, -1), merged], folded: folded + 1 };
  }
  return { ...history, rows: [...rows.slice(rows.length >= history.length ? 1 : 0), [at, ...row.slice(1)]], folded: 1 };
}

export function useHistory(window) {
  const [history, set] = useState(null);
  const up = useKnown((known) => known.up);
  // Asked anew after each loss of the stream, because samples were missed.
  useEffect(() => {
    if (!up) return undefined;
    const stop = new AbortController();
    get("history", { window }, stop.signal).then((answer) => set({ ...answer, length: Math.max(answer.rows.length, 300) }), () => {});
    const forget = onSample((row) => set((before) => before && append(before, row)));
    return () => { stop.abort(); forget(); };
  }, [window, up]);
  return history;
}
