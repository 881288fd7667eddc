// Uploads: a bounded number at a time, with progress, cancel and retry. They go on while views change.

import { contentUrl, get, join } from "./api.js";
import { ask, h, replace } from "./dom.js";
import { bytes, plural } from "./format.js";

const AT_A_TIME = 2;

const panel = document.getElementById("uploads");
const waiting = [];
const listeners = new Set();
let running = 0;

// Calls `listener` after each stored file; returns how to stop that.
export function onStored(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// Lets the user choose files for `folder`.
export function pick(folder) {
  const input = h("input", { type: "file", multiple: true });
  input.addEventListener("change", () => enqueue(folder, [...input.files].map((file) => [file.name, file])));
  input.click();
}

// Takes what is dropped on `root` into `folder`, until `signal` ends it.
export function accept(root, folder, signal) {
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  const on = (name, handler) => document.addEventListener(name, (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    handler(event);
  }, { signal });
  on("dragover", () => root.classList.add("dropping"));
  on("dragleave", (event) => { if (!event.relatedTarget) root.classList.remove("dropping"); });
  on("drop", async (event) => {
    root.classList.remove("dropping");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files].map((file) => [file.name, file]);
    enqueue(folder, entries.length ? (await Promise.all(entries.map((entry) => walk(entry, "")))).flat() : plain);
  });
}

// All files of a dropped entry, as [path below the folder, File].
async function walk(entry, above) {
  const path = above + entry.name;
  if (entry.isFile) return [[path, await new Promise((resolve, reject) => entry.file(resolve, reject))]];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A reader hands out its entries in runs and ends with an empty one.
    const run = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!run.length) return found;
    for (const child of run) found.push(...await walk(child, `${path}/`));
  }
}

async function enqueue(folder, files) {
  for (const [name, file] of files) {
    const job = { path: join(folder, name), file, overwrite: false, row: h("div", { class: "job" }) };
    panel.append(job.row);
    waiting.push(job);
    draw(job, "waiting");
  }
  panel.hidden = !panel.children.length;
  next();
}

function next() {
  while (running < AT_A_TIME && waiting.length) {
    running += 1;
    run(waiting.shift()).finally(() => { running -= 1; next(); });
  }
}

function dismiss(job) {
  job.row.remove();
  panel.hidden = !panel.children.length;
}

function retry(job) {
  waiting.push(job);
  draw(job, "waiting");
  next();
}

// One row: name, note, progress, and the action that fits the state.
function draw(job, note, { share, action, bad } = {}) {
  const button = action && h("button", { onclick: action.run, "aria-label": `${action.label} ${job.path}` }, action.label);
  replace(job.row,
    h("div", { class: "row" }, h("b", {}, job.path), button ?? h("button", { onclick: () => { waiting.splice(waiting.indexOf(job), 1); dismiss(job); } }, "Cancel")),
    share === undefined ? null : h("progress", { max: 1, value: share, "aria-label": `Upload of ${job.path}` }),
    h("div", { class: bad ? "note bad" : "note", role: bad ? "alert" : null }, note));
}

async function run(job) {
  let cancelled = false;
  draw(job, "checking", { action: { label: "Cancel", run: () => { cancelled = true; dismiss(job); } } });
  // Asked before the first byte, because a refusal in mid-upload costs all that was sent.
  if (!job.overwrite) {
    const existing = await get("file", { path: job.path, limit: 0 }).catch(() => null);
    if (cancelled) return;
    if (existing) {
      const text = `${job.path} exists already (${bytes(existing.size)}).`;
      if (!await ask({ title: "Replace the file?", text, yes: "Replace", danger: true })) return dismiss(job);
      job.overwrite = true;
    }
  }
  const end = await send(job);
  if (end.stored) {
    const few = end.stored.degraded_blocks;
    const note = few ? `stored, but ${plural(few, "block")} still need more replicas` : `stored · ${bytes(job.file.size)} · CRC32C ${end.stored.crc32c}`;
    draw(job, `✓ ${note}`, { action: { label: "Dismiss", run: () => dismiss(job) } });
    for (const listener of listeners) listener();
  } else if (end.cancelled) {
    dismiss(job);
  } else {
    draw(job, `✕ ${end.message}`, { bad: true, action: { label: "Retry", run: () => retry(job) } });
    job.row.firstChild.append(h("button", { onclick: () => dismiss(job), "aria-label": `Dismiss ${job.path}` }, "Dismiss"));
  }
}

// XMLHttpRequest, because fetch tells no progress of what it sends.
function send(job) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    const cancel = { label: "Cancel", run: () => request.abort() };
    const began = performance.now();
    let drawn = 0;
    draw(job, "starting", { share: 0, action: cancel });
    request.upload.addEventListener("progress", (event) => {
      const now = performance.now();
      if (now - drawn < 100) return;
      drawn = now;
      const rate = event.loaded / Math.max(1, now - began) * 1000;
      const share = event.total ? event.loaded / event.total : 0;
      draw(job, `${bytes(event.loaded)} of ${bytes(event.total)} · ${bytes(rate)}/s`, { share, action: cancel });
    });
    request.upload.addEventListener("load", () => draw(job, "making it durable on every replica…", { share: 1, action: cancel }));
    request.addEventListener("abort", () => resolve({ cancelled: true }));
    request.addEventListener("error", () => resolve({ message: "the connection broke off; nothing was stored" }));
    request.addEventListener("load", () => {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch { /* The status says enough. */ }
      if (request.status < 300) resolve({ stored: answer });
      else resolve({ message: answer.message ?? `the nameserver answered ${request.status}` });
    });
    request.open("PUT", contentUrl(job.path) + (job.overwrite ? "?overwrite" : ""));
    request.setRequestHeader("content-type", job.file.type || "application/octet-stream");
    request.send(job.file);
  });
}
