// One volume: its state, and the blocks it holds, page by page.

import { encodePath, get } from "./api.js";
import { badge, empty, h, meter, replace, selecting, trouble } from "./dom.js";
import { bytes, count, plural, volumeName } from "./format.js";

const PAGE = 100;

export function volume(root, id) {
  const head = h("div");
  const body = h("tbody");
  const below = h("div", { class: "more" });
  const table = h("div", { class: "table" },
    h("table", { class: "stack" }, h("caption", {}, "Blocks of this volume"),
      h("thead", {}, h("tr", {}, ["Block", "File", "#", "Length", "CRC32C", "State", ""].map((title) =>
        h("th", { class: ["#", "Length"].includes(title) ? "num" : null, scope: "col" }, title)))),
      body),
    below);
  let after = "";
  let stopped = false;
  replace(root, head, h("h2", {}, "Blocks it holds"), table);

  function row(block) {
    return h("tr", {},
      h("td", { class: "name mono" }, block.id),
      h("td", { class: "full" }, block.path ? h("a", { href: `#/file/${encodePath(block.path)}` }, block.path) : "of no current file"),
      h("td", { class: "num", "data-label": "block" }, count(block.index)),
      h("td", { class: "num" }, bytes(block.length)),
      h("td", { class: "mono" }, block.crc32c),
      h("td", {}, badge(block.state)),
      h("td", { class: "actions" }, h("a", { class: "button", href: `/api/v1/blocks/${block.id}`, download: `${block.id}.block`, "aria-label": `Download block ${block.id}` }, "Download")));
  }

  async function more() {
    replace(below, h("span", {}, "Loading…"));
    try {
      const page = await get(`volumes/${encodeURIComponent(id)}/blocks`, { after, limit: PAGE });
      if (stopped) return;
      body.append(...page.blocks.map(row));
      after = page.blocks.at(-1)?.id ?? after;
      const left = page.more ? h("button", { onclick: more }, "Show more") : null;
      replace(below, left ?? (body.children.length ? h("span", { class: "legend" }, "These are all.") : empty("No blocks", "New uploads will bring some.")));
    } catch (error) {
      replace(below, trouble(error));
    }
  }

  function update(status) {
    if (selecting(head)) return;
    const server = status.servers.find((server) => server.volumes.some((volume) => volume.id === id));
    const found = server?.volumes.find((volume) => volume.id === id);
    if (!found) return replace(head, h("div", { class: "head" }, h("h1", {}, `Volume ${id}`)));
    replace(head,
      h("div", { class: "head" }, h("h1", {}, volumeName(found)), badge(found.state)),
      h("p", { class: "legend" }, `on ${server.address}, data at ${found.address} · ${id}`),
      meter(found.used_bytes, found.capacity_bytes, "Space used"),
      h("p", { class: "legend" }, `${bytes(found.used_bytes)} of ${bytes(found.capacity_bytes)} used · ${plural(found.blocks, "block")} · ` +
        `${bytes(found.written_bytes)} written and ${bytes(found.read_bytes)} read since its start`));
  }

  more();
  return { update, stop: () => { stopped = true; } };
}
