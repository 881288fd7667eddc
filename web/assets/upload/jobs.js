// All uploads of this tab: a few at a time, remembered until they end.

import { join } from "../api.js";
import { t } from "../i18n.js";
import { claim, forget, keep, kept } from "./memory.js";
import { abandon, ask, CELL, IN_FLIGHT, isGone, run } from "./run.js";

const LANES = 6; // requests at a time: two large files', or six small ones'
const BLOCK_BYTES = 4 * 1024 * 1024; // about what a block has, before the server says it
const KEEP_MS = 1000;
const TICK_MS = 500;
const TELL_MS = 100;

// state: waiting, running, paused, failed, exists (a file is in its place), lost (its file must be chosen again), done
let jobs = [];
let ticking = 0;
const listeners = new Set();
const stored = new Set();

export const all = () => jobs;

// Many small files end in quick succession: what shows them is told ten times a second at most.
let telling = 0;
function tell() {
  telling ||= setTimeout(() => {
    telling = 0;
    listeners.forEach((listener) => listener());
  }, TELL_MS);
}

export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// Calls `listener` with each job whose file is stored.
export function onStored(listener) {
  stored.add(listener);
  return () => stored.delete(listener);
}

const alive = (job) => ({ there: new Map(), cells: new Uint8Array(0), covered: 0, sent: 0, flying: new Map(), rate: 0, error: null, keptAt: 0, ...job });
const random = () => [...crypto.getRandomValues(new Uint32Array(3))].map((word) => word.toString(36)).join("");

// files: [{path below the folder, file, handle?}]
export function enqueue(folder, files) {
  const fresh = files.map(({ path, file, handle }) => alive({
    key: random(), path: join(folder, path), name: file.name, size: file.size, mtime: file.lastModified,
    type: file.type, overwrite: false, id: "", blockBytes: 0, crcs: [], handle, file, state: "waiting",
  }));
  jobs = [...jobs, ...fresh];
  for (const job of fresh) {
    claim(job.key);
    keep(job);
  }
  advance();
}

const sameFile = (job, file) => file.name === job.name && file.size === job.size && file.lastModified === job.mtime;

const lanes = ({ size }) => Math.min(IN_FLIGHT, Math.max(1, Math.ceil(size / BLOCK_BYTES)));

function advance() {
  let free = LANES - jobs.reduce((sum, job) => sum + (job.state === "running" ? lanes(job) : 0), 0);
  for (const job of jobs) {
    if (free <= 0) break;
    if (job.state !== "waiting") continue;
    if (lanes(job) > free) break;
    free -= lanes(job);
    go(job);
  }
  tell();
}

async function go(job) {
  job.state = "running";
  job.error = null;
  job.stop = new AbortController();
  tick();
  const changed = (atOnce) => {
    if (!atOnce && Date.now() - job.keptAt < KEEP_MS) return;
    job.keptAt = Date.now();
    keep(job);
    tell();
  };
  try {
    let answer;
    try {
      answer = await run(job, changed);
    } catch (error) {
      if (!isGone(error) || !job.id) throw error;
      job.id = ""; // the server knows it no more: once more from the start
      answer = await run(job, changed);
    }
    job.state = "done";
    job.stored = answer;
    forget(job);
    stored.forEach((listener) => listener(job));
  } catch (error) {
    if (error.name === "AbortError") {
      if (job.state === "running") job.state = "paused";
    } else {
      job.error = error;
      job.state = error.kind === "exists" ? "exists" : "failed";
    }
    if (jobs.includes(job)) keep(job);
  }
  advance();
}

// How fast they go, and what to draw, twice a second while any runs.
function tick() {
  if (ticking) return;
  let before = performance.now();
  const was = new Map();
  ticking = setInterval(() => {
    const now = performance.now();
    const running = jobs.filter(({ state }) => state === "running");
    for (const job of running) {
      const sent = job.sent + [...job.flying.values()].reduce((sum, loaded) => sum + loaded, 0);
      const speed = ((sent - (was.get(job) ?? 0)) / (now - before)) * 1000;
      job.rate = was.has(job) ? Math.max(0, job.rate * 0.8 + speed * 0.2) : speed;
      was.set(job, sent);
    }
    before = now;
    if (running.length === 0) {
      clearInterval(ticking);
      ticking = 0;
    }
    tell();
  }, TICK_MS);
}

export function pause(job) {
  if (job.state === "running") job.stop.abort();
  job.state = "paused";
  advance();
}

export function resume(job) {
  job.state = "waiting";
  advance();
}

export async function replace(job) {
  // It was begun as a new file, so it is begun anew.
  await abandon(job);
  job.id = "";
  job.overwrite = true;
  resume(job);
}

export function cancel(job) {
  jobs = jobs.filter((other) => other !== job);
  job.stop?.abort();
  forget(job);
  if (job.state !== "done") abandon(job);
  advance();
}

export function clearDone() {
  jobs = jobs.filter(({ state }) => state !== "done");
  tell();
}

function found(job, file) {
  if (!sameFile(job, file)) {
    job.error = new Error(t("up.other_file"));
    return false;
  }
  job.file = file;
  job.error = null;
  job.state = "waiting";
  return true;
}

// The file of a remembered job, where the browser may open it by itself or after asking.
export async function reopen(job) {
  try {
    if (await job.handle.requestPermission({ mode: "read" }) === "granted") found(job, await job.handle.getFile());
  } catch (error) {
    job.error = error;
    job.handle = undefined;
  }
  advance();
}

// Files that were chosen again, for the jobs that lost theirs; `asked` is the one it was asked for.
export function giveBack(files, asked) {
  const lost = jobs.filter(({ state }) => state === "lost");
  for (const file of files) {
    const job = lost.find((one) => one.state === "lost" && sameFile(one, file));
    if (job) found(job, file);
  }
  if (asked?.state === "lost") asked.error = new Error(t("up.other_file"));
  advance();
}

// After a reload: what was unfinished.
export async function recallJobs() {
  for (const job of await kept()) {
    if (!await claim(job.key)) continue;
    const back = alive({ ...job, state: "lost" });
    jobs = [...jobs, back];
    if (back.id) {
      await ask(back).then(() => {
        for (const index of back.there.keys()) back.cells[index] = CELL.there;
        back.covered = Math.min(back.size, back.there.size * back.blockBytes);
      }, (error) => { if (isGone(error)) back.id = ""; });
    }
    if (await back.handle?.queryPermission?.({ mode: "read" }) === "granted") {
      await back.handle.getFile().then((file) => found(back, file), () => {});
    }
    advance();
  }
}
