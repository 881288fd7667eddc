// A folder: what is in it, and what can be done with it.

import * as api from "./api.js";
import { ask, empty, h, replace, selecting, trouble } from "./dom.js";
import { bytes, count, plural, when } from "./format.js";
import { accept, onStored, pick } from "./upload.js";

const PAGE = 100;

// The way from the root, each part a link.
export function crumbs(path, isFile) {
  const parts = path.split("/").filter(Boolean);
  const links = [parts.length ? h("a", { href: "#/files/" }, "Files") : h("span", {}, "Files")];
  parts.forEach((part, at) => {
    const last = at === parts.length - 1;
    links.push(h("span", { class: "sep", "aria-hidden": "true" }, "/"));
    links.push(last && isFile ? h("span", {}, part) : h("a", { href: `#/files/${api.encodePath(parts.slice(0, at + 1).join("/"))}` }, part));
  });
  return h("h1", { class: "crumbs" }, links);
}

// Runs a change and shows what stood in its way.
async function attempt(change) {
  try {
    await change();
    return true;
  } catch (error) {
    await ask({ title: "That did not work", text: error.message, yes: "OK" });
    return false;
  }
}

export async function removeEntry(entry) {
  const what = entry.directory ? "this folder and everything in it" : `this file (${bytes(entry.size)})`;
  const sure = await ask({ title: `Delete ${entry.name}?`, text: `This removes ${what}: ${entry.path}`, yes: "Delete", danger: true });
  return Boolean(sure) && attempt(() => api.remove(entry.path, entry.directory));
}

export async function renameEntry(entry) {
  const to = await ask({ title: "Rename", text: entry.path, input: { label: "New path", value: entry.path }, yes: "Rename" });
  const wanted = to && (to.startsWith("/") ? to : api.join(api.parent(entry.path), to));
  return wanted && wanted !== entry.path && await attempt(() => api.rename(entry.path, wanted)) ? wanted : "";
}

export function folder(root, path) {
  path = path.replace(/(.)\/+$/, "$1");
  let pages = 1;
  let known = "";
  const stop = new AbortController();

  function row(entry) {
    const target = `#/${entry.directory ? "files" : "file"}/${api.encodePath(entry.path)}`;
    return h("tr", {},
      h("td", { class: "name" }, h("img", { class: "kind", alt: "", src: entry.directory ? "/assets/folder.svg" : "/assets/page.svg" }),
        h("a", { href: target, "data-key": `name ${entry.name}` }, entry.name, entry.directory ? "/" : "")),
      h("td", { class: "num" }, entry.directory ? plural(entry.children, "entry", "entries") : bytes(entry.size)),
      h("td", { class: "time" }, when(entry.modified_unix_ms)),
      h("td", { class: "time optional" }, when(entry.created_unix_ms)),
      h("td", { class: "num optional" }, entry.directory ? "" : count(entry.blocks)),
      h("td", { class: "num optional" }, entry.directory ? "" : `${entry.replication} ×`),
      h("td", { class: "actions" },
        entry.directory ? null : h("a", { class: "button", href: api.contentUrl(entry.path), download: entry.name, "data-key": `get ${entry.name}`, "aria-label": `Download ${entry.name}` }, "Download"),
        h("button", { "data-key": `move ${entry.name}`, "aria-label": `Rename ${entry.name}`, onclick: async () => { if (await renameEntry(entry)) refresh(); } }, "Rename"),
        h("button", { class: "danger", "data-key": `remove ${entry.name}`, "aria-label": `Delete ${entry.name}`, onclick: async () => { if (await removeEntry(entry)) refresh(); } }, "Delete")));
  }

  const head = h("div", { class: "head" }, crumbs(path),
    h("button", { onclick: newFolder }, "New folder"),
    h("button", { class: "primary", onclick: () => pick(path) }, "Upload files"));
  const list = h("div");

  async function newFolder() {
    const name = await ask({ title: "New folder", input: { label: `Its name in ${path}`, value: "" }, yes: "Make folder" });
    if (name && await attempt(() => api.makeFolder(api.join(path, name)))) refresh();
  }

  function draw(files, more) {
    const titles = [["Name"], ["Size", "num"], ["Modified"], ["Created", "optional"], ["Blocks", "num optional"], ["Replicas", "num optional"], [""]];
    replace(list, h("div", { class: "table" },
      files.length
        ? h("table", { class: "stack" }, h("caption", {}, `Entries of ${path}`),
          h("thead", {}, h("tr", {}, titles.map(([title, kind]) => h("th", { class: kind, scope: "col" }, title)))),
          h("tbody", {}, files.map(row)))
        : empty("Nothing here yet", "Drop files or folders anywhere on this page, or choose Upload files."),
      more ? h("div", { class: "more" }, h("button", { "data-key": "more", onclick: () => { pages += 1; refresh(); } }, "Show more")) : null));
  }

  async function refresh() {
    try {
      const files = [];
      let more = true;
      for (let page = 0; page < pages && more; page += 1) {
        const answer = await api.get("files", { path, after: files.at(-1)?.name, limit: PAGE }, stop.signal);
        files.push(...answer.files);
        more = answer.more;
      }
      const now = JSON.stringify([files, more]);
      if (now === known || selecting(list)) return;
      known = now;
      draw(files, more);
    } catch (error) {
      if (error.name === "AbortError") return;
      known = "";
      replace(list, trouble(error));
    }
  }

  replace(root, head, list);
  refresh();
  const forget = onStored(refresh);
  accept(root, path, stop.signal);
  return { refresh, stop: () => { forget(); stop.abort(); } };
}
