// Shared by all tabs of a browser: one stream for them all, as a browser grants few connections to a host.

import { fold, follow, NOTHING } from "./stream.js";

const ports = new Set();
let known = NOTHING;

follow((message) => {
  known = fold(known, message);
  for (const port of ports) port.postMessage(message);
});

self.onconnect = ({ ports: [port] }) => {
  ports.add(port);
  port.onmessage = () => ports.delete(port); // a tab says one thing only: that it goes
  if (known.state) port.postMessage({ kind: "snapshot", data: { state: known.state, timeline: known.timeline, sample: known.sample }, at: known.at });
  if (!known.up) port.postMessage({ kind: "lost" });
};
