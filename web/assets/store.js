// What the page knows of the cluster, as the stream tells it, and who wants to hear of it.

import { useEffect, useState } from "./html.js";
import { fold, follow, NOTHING } from "./stream.js";

let known = NOTHING;
const listeners = new Set();
const samplers = new Set();

function take(message) {
  known = fold(known, message);
  if (message.kind === "sample") samplers.forEach((listener) => listener(message.data));
  listeners.forEach((listener) => listener());
}

export function start() {
  if (!globalThis.SharedWorker) return follow(take);
  const worker = new SharedWorker(new URL("./worker.js", import.meta.url), { type: "module", name: "blockyard" });
  // A browser that can't run it still gets the stream, one for each tab.
  worker.addEventListener("error", () => follow(take), { once: true });
  worker.port.onmessage = ({ data }) => take(data);
  addEventListener("pagehide", () => worker.port.postMessage("bye"));
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

export const read = () => known;

export function onSample(listener) {
  samplers.add(listener);
  return () => samplers.delete(listener);
}

// useKnown((known) => known.state?.health): draws anew only when that changes.
export function useKnown(select) {
  const [value, set] = useState(() => select(known));
  useEffect(() => {
    const look = () => set(() => select(known));
    look();
    listeners.add(look);
    return () => listeners.delete(look);
  }, []);
  return value;
}

export const useCluster = () => useKnown((known) => known.state);
