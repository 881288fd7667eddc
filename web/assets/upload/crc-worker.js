// Checksums blobs away from the page's own thread.

import { crc32c } from "./crc32c.js";

self.onmessage = async ({ data: { number, blob } }) => {
  try {
    self.postMessage({ number, crc: crc32c(await blob.arrayBuffer()) });
  } catch (error) {
    self.postMessage({ number, error: error.message });
  }
};
