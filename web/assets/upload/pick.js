// Files and folders from the user: chosen or dropped.

import { html, useEffect, useRef } from "../html.js";
import { t } from "../i18n.js";
import { enqueue } from "./jobs.js";

const plain = (list) => [...list].map((file) => ({ path: file.webkitRelativePath || file.name, file }));

// All files of a dropped entry.
async function walk(entry, above, handle) {
  const path = above + entry.name;
  if (entry.isFile) return [{ path, file: await new Promise((resolve, reject) => entry.file(resolve, reject)), handle }];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A reader hands out its entries in runs and ends with an empty one.
    const run = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!run.length) return found;
    for (const child of run) found.push(...await walk(child, `${path}/`));
  }
}

async function dropped(transfer) {
  // Both must be asked for before the event ends. A handle lets an upload go on after a reload by itself.
  const items = [...transfer.items].filter(({ kind }) => kind === "file")
    .map((item) => [item.webkitGetAsEntry?.(), item.getAsFileSystemHandle?.().catch(() => undefined)]);
  const files = plain(transfer.files);
  if (items.some(([entry]) => !entry)) return files;
  return (await Promise.all(items.map(async ([entry, handle]) => walk(entry, "", entry.isFile ? await handle : undefined)))).flat();
}

// Takes what is dropped anywhere on the page into `folder`.
export function useDrop(folder) {
  useEffect(() => {
    const stop = new AbortController();
    const root = document.documentElement;
    const on = (name, act) => document.addEventListener(name, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      act(event);
    }, { signal: stop.signal });
    on("dragover", () => root.classList.add("dropping"));
    on("dragleave", (event) => { if (!event.relatedTarget) root.classList.remove("dropping"); });
    on("drop", async (event) => {
      root.classList.remove("dropping");
      enqueue(folder, await dropped(event.dataTransfer));
    });
    return () => { stop.abort(); root.classList.remove("dropping"); };
  }, [folder]);
}

export function UploadButtons({ folder }) {
  const files = useRef(null);
  const folders = useRef(null);
  const take = (event) => {
    enqueue(folder, plain(event.target.files));
    event.target.value = "";
  };
  async function choose() {
    if (!globalThis.showOpenFilePicker) return files.current.click();
    try {
      const handles = await showOpenFilePicker({ multiple: true });
      return enqueue(folder, await Promise.all(handles.map(async (handle) => ({ path: handle.name, file: await handle.getFile(), handle }))));
    } catch (error) {
      return error.name === "AbortError" ? undefined : files.current.click();
    }
  }
  return html`
    <button class="primary" onClick=${choose} data-test="upload-files">${t("up.files")}</button>
    <button onClick=${() => folders.current.click()} data-test="upload-folder">${t("up.folder")}</button>
    <input ref=${files} type="file" multiple hidden onChange=${take} data-test="file-input" aria-label=${t("up.files")} />
    <input ref=${folders} type="file" webkitdirectory hidden onChange=${take} data-test="folder-input" aria-label=${t("up.folder")} />`;
}
