// Shows the view that the address names, and keeps the status fresh for whatever is shown.

import { get } from "./api.js";
import { h, look, replace, trouble } from "./dom.js";
import { overview } from "./overview.js";
import { server } from "./server.js";
import { volume } from "./volume.js";
import { folder } from "./folder.js";
import { file } from "./file.js";

const POLL_MS = 2000;

// Each takes (root, argument) and returns {update(status)?, refresh()?, stop()?}.
const views = { "": overview, files: folder, file, server, volume };

const root = document.getElementById("view");
const pulse = document.getElementById("pulse");
let shown = null;
let status = null;

function route() {
  const address = location.hash.replace(/^#\/?/, "");
  const slash = address.indexOf("/");
  const name = slash < 0 ? address : address.slice(0, slash);
  const rest = slash < 0 ? "" : address.slice(slash + 1);
  let argument;
  try {
    argument = rest.split("/").map(decodeURIComponent).join("/");
  } catch {
    argument = rest;
  }
  return [views[name] ? name : "", argument];
}

function show() {
  const [name, argument] = route();
  shown?.stop?.();
  replace(root, h("p", { class: "empty" }, "Loading…"));
  const inFiles = name === "files" || name === "file";
  for (const [id, current] of [["nav-files", inFiles], ["nav-overview", !inFiles]]) {
    const link = document.getElementById(id);
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const argumentPath = inFiles ? `/${argument.replace(/^\/+/, "")}` : argument;
  shown = views[name](root, argumentPath);
  if (status) shown.update?.(status);
}

function pulseOf(level, text) {
  const [tone, sign, word] = look(level);
  pulse.className = `badge ${tone}`;
  pulse.title = text;
  if (pulse.dataset.level !== level) {
    pulse.dataset.level = level;
    replace(pulse, h("span", { "aria-hidden": "true" }, sign), document.createTextNode(word));
  }
}

async function poll() {
  try {
    status = await get("status");
    pulseOf(status.health.level, status.health.sentence);
    root.classList.remove("stale");
    shown?.update?.(status);
    await shown?.refresh?.();
  } catch (error) {
    // What is shown is no longer known to be true.
    pulseOf("unknown", error.message);
    root.classList.add("stale");
    if (!status) replace(root, trouble(error));
  }
  setTimeout(poll, POLL_MS);
}

addEventListener("hashchange", () => {
  show();
  root.focus({ preventScroll: true });
  scrollTo(0, 0);
});
show();
poll();
