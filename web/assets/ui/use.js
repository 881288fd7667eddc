// Hooks for what is asked of the API.

import { useCallback, useEffect, useRef, useState } from "../html.js";

// {data, error, again}: asks when `deps` change; what was there stays until the answer comes.
export function useAnswer(question, deps) {
  const [answer, set] = useState({});
  const [round, setRound] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    question(stop.signal).then(
      (data) => stop.signal.aborted || set({ data }),
      (error) => error.name === "AbortError" || set((before) => ({ ...before, error })),
    );
    return () => stop.abort();
  }, [...deps, round]);
  return { ...answer, again: useCallback(() => setRound((last) => last + 1), []) };
}

// A list in pages. `page(last, signal, next)` answers {items, more, next?}; `last` is the last item there is, and `next`
// what the page before said that this one comes behind.
// `again` loads anew as many as are shown; with other `deps` the list starts over.
export function usePages(page, deps) {
  const [shown, set] = useState({ items: [], more: false, busy: true });
  const held = useRef(null);

  const load = useCallback(async (atLeast, from, keep, next) => {
    held.current?.abort();
    const stop = held.current = new AbortController();
    set((before) => ({ ...(keep ? before : { items: [], more: false }), busy: true }));
    try {
      let items = from;
      let answer = { next };
      do {
        answer = await page(items.at(-1), stop.signal, answer.next);
        items = [...items, ...answer.items];
      } while (answer.more && (answer.items.length || answer.next) && items.length < atLeast);
      if (!stop.signal.aborted) set({ items, more: answer.more, busy: false, answer });
    } catch (error) {
      if (!stop.signal.aborted) set((before) => ({ ...before, busy: false, error }));
    }
  }, deps);

  useEffect(() => {
    load(1, [], false);
    return () => held.current?.abort();
  }, [load]);

  return {
    ...shown,
    next: () => load(shown.items.length + 1, shown.items, true, shown.answer?.next),
    again: () => load(shown.items.length, [], true),
  };
}

// Calls `act` when `value` changes, not oftener than each `ms`.
export function useChange(value, ms, act) {
  const first = useRef(true);
  const timer = useRef(0);
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    if (first.current) {
      first.current = false;
    } else if (!timer.current) {
      timer.current = setTimeout(() => { timer.current = 0; latest.current(); }, ms);
    }
  }, [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
}

// The time, anew each `ms`.
export function useNow(ms) {
  const [now, set] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => set(Date.now()), ms);
    return () => clearInterval(timer);
  }, []);
  return now;
}
