// checksum(blob): its CRC32C, by one of a few workers.

const WORKERS = Math.min(3, navigator.hardwareConcurrency ?? 2);
const asked = new Map();
let workers = null;
let last = 0;

function begin() {
  workers = Array.from({ length: WORKERS }, () => {
    const worker = new Worker(new URL("./crc-worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data: { number, crc, error } }) => {
      const { resolve, reject } = asked.get(number);
      asked.delete(number);
      if (error) reject(new Error(error));
      else resolve(crc);
    };
    return worker;
  });
}

export function checksum(blob) {
  if (!workers) begin();
  last += 1;
  workers[last % WORKERS].postMessage({ number: last, blob });
  return new Promise((resolve, reject) => asked.set(last, { resolve, reject }));
}
