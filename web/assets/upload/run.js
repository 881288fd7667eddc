// One upload from its begin to its commit: only blocks that the server lacks are sent, each checksummed on both sides.

import { get, post, remove } from "../api.js";
import { t } from "../i18n.js";
import { combined, hex } from "./crc32c.js";
import { checksum } from "./hasher.js";
import { sendBlock } from "./send.js";

export const IN_FLIGHT = 3;
const TRIES = 7; // over half a minute: longer than a nameserver takes to start
const FIRST_PAUSE_MS = 500;

export const CELL = { waiting: 0, checking: 1, sending: 2, there: 3, failed: 4 };

const upload = (job) => `uploads/${encodeURIComponent(job.id)}`;
export const isGone = (error) => error.kind === "gone" || error.status === 410 || error.status === 404;
const passes = ({ status }) => status === 0 || status === 422 || status === 429 || status >= 500;

export const blockCount = (job) => Math.ceil(job.size / job.blockBytes);
export const lengthOf = (job, index) => Math.min(job.blockBytes, job.size - index * job.blockBytes);

// Which blocks the server has of this job: index → checksum.
export async function ask(job, signal) {
  const answer = await get(upload(job), {}, signal);
  job.blockBytes = answer.block_bytes;
  job.there = new Map(answer.blocks.map((block) => [block.index, block.crc32c]));
  job.cells = new Uint8Array(blockCount(job));
  job.covered = 0;
}

async function begin(job, signal) {
  if (job.id) {
    try {
      return await ask(job, signal);
    } catch (error) {
      if (!isGone(error)) throw error;
      job.id = "";
    }
  }
  const answer = await post("uploads", { path: job.path, size: job.size, overwrite: job.overwrite, content_type: job.type }, signal);
  job.id = answer.id;
  job.blockBytes = answer.block_bytes;
  job.there = new Map();
  job.cells = new Uint8Array(blockCount(job));
  job.covered = 0;
  return undefined;
}

const pause = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); reject(new DOMException("stopped", "AbortError")); }, { once: true });
});

async function deliver(job, index, blob, crc, signal, changed) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const progress = (loaded) => { job.flying.set(index, loaded); changed(); };
      const answer = await sendBlock(job.id, index, blob, crc, signal, progress);
      if (answer.crc32c !== crc) throw Object.assign(new Error(t("up.differs", { index })), { status: 422 });
      return;
    } catch (error) {
      job.flying.delete(index);
      if (!passes(error) || attempt === TRIES || signal.aborted) throw error;
      await pause(FIRST_PAUSE_MS * 2 ** (attempt - 1), signal);
    }
  }
}

async function block(job, index, signal, changed) {
  const set = (cell) => { job.cells[index] = cell; changed(); };
  const there = job.there.get(index);
  const length = lengthOf(job, index);
  const blob = job.file.slice(index * job.blockBytes, index * job.blockBytes + length);
  try {
    if (job.crcs[index] === undefined) {
      set(CELL.checking);
      job.crcs[index] = hex(await checksum(blob));
      signal.throwIfAborted();
    }
    if (there !== job.crcs[index]) {
      set(CELL.sending);
      await deliver(job, index, blob, job.crcs[index], signal, changed);
      job.sent += length;
      job.flying.delete(index);
    }
    job.covered += length;
    set(CELL.there);
  } catch (error) {
    set(error.name === "AbortError" ? CELL.waiting : CELL.failed);
    throw error;
  }
}

// A commit whose answer was lost shows as a file in the upload's place: it is that file, if it has the same checksum.
async function committed(job, signal) {
  if (!job.committed) return null;
  const there = await get("file", { path: job.path, limit: 1 }, signal);
  return there.crc32c === job.committed && there.size === job.size ? there : null;
}

const whole = (job) => hex(job.crcs.reduce((crc, part, index) => combined(crc, Number.parseInt(part, 16), lengthOf(job, index)), 0));

// Ends with what the server says of the file. `changed` is called as it goes on.
export async function run(job, changed) {
  const { signal } = job.stop;
  job.flying = new Map();
  job.sent = 0;
  try {
    await begin(job, signal);
  } catch (error) {
    const there = error.kind === "exists" && await committed(job, signal);
    if (!there) throw error;
    return there;
  }
  changed(true);
  const blocks = blockCount(job);
  let next = 0;
  const lane = async () => {
    while (next < blocks) {
      const index = next;
      next += 1;
      await block(job, index, signal, changed);
    }
  };
  const lanes = await Promise.allSettled(Array.from({ length: IN_FLIGHT }, () => lane().catch((error) => {
    next = blocks; // the other lanes end with the block they are at
    throw error;
  })));
  const failed = lanes.find(({ status }) => status === "rejected");
  if (failed) throw failed.reason;
  const crc = whole(job);
  job.committed = crc;
  changed(true);
  const stored = await post(`${upload(job)}/commit`, { size: job.size, crc32c: crc }, signal);
  if (stored.crc32c !== crc) throw new Error(t("up.whole_differs", { ours: crc, theirs: stored.crc32c }));
  return stored;
}

export const abandon = (job) => (job.id ? remove(upload(job)).catch(() => {}) : undefined);
