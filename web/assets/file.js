// A file: its facts, and its blocks with the servers that hold them.

import * as api from "./api.js";
import { badge, empty, h, look, replace, selecting, trouble } from "./dom.js";
import { bytes, count, plural, when } from "./format.js";
import { crumbs, removeEntry, renameEntry } from "./folder.js";

const PAGE = 256;

const readable = (replica) => replica.live && replica.state === "good";

// How a block fares: as many readable replicas as wanted, fewer, or none.
function fare(block, wanted) {
  const good = block.replicas.filter(readable).length;
  return good === 0 ? "bad" : good < wanted ? "warn" : "good";
}

function replicaBadge(replica) {
  const state = replica.live ? replica.state : "dead";
  const chip = badge(state, replica.server);
  chip.title = `${look(state)[2]} on volume ${replica.volume}`;
  return h("a", { href: `#/volume/${replica.volume}`, "aria-label": `${replica.server}: ${look(state)[2]}` }, chip);
}

function facts(file) {
  const tiles = [
    ["Size", bytes(file.size), `${count(file.size)} bytes`],
    ["Blocks", count(file.blocks), `${file.replication} replicas wanted of each`],
    ["CRC32C", h("span", { class: "mono" }, file.crc32c), `version ${file.version}`],
    ["Modified", h("small", {}, when(file.modified_unix_ms)), `created ${when(file.created_unix_ms)}`],
    ["Type", h("small", {}, file.content_type || "told by its name"), null],
  ];
  return h("dl", { class: "tiles" }, tiles.map(([title, value, note]) =>
    h("div", { class: "tile" }, h("dt", {}, title), h("dd", {}, value, note ? h("small", {}, note) : null))));
}

export function file(root, path) {
  let pages = 1;
  let known = "";
  const stop = new AbortController();

  function row(block) {
    return h("tr", { id: `block-${block.index}` },
      h("td", { class: "num", "data-label": "Block" }, count(block.index)),
      h("td", { class: "name mono" }, block.id),
      h("td", { class: "num" }, bytes(block.length)),
      h("td", { class: "mono" }, block.crc32c),
      h("td", { class: "full" }, block.replicas.length ? h("div", { class: "chips" }, block.replicas.map(replicaBadge)) : badge("dead", "no replica")),
      h("td", { class: "actions" }, h("a", {
        class: "button", href: `/api/v1/blocks/${block.id}`, download: `${block.id}.block`,
        "data-key": `block ${block.index}`, "aria-label": `Download block ${block.index}`,
      }, "Download")));
  }

  function find(index) {
    const target = document.getElementById(`block-${index}`);
    root.querySelector("tr.found")?.classList.remove("found");
    target?.classList.add("found");
    target?.scrollIntoView({ block: "center" });
  }

  function distribution(file, blocks) {
    const tally = new Map();
    for (const block of blocks) {
      for (const replica of block.replicas) tally.set(replica.server, (tally.get(replica.server) ?? 0) + 1);
    }
    const cells = blocks.map((block) => {
      const good = block.replicas.filter(readable).length;
      const tone = fare(block, file.replication);
      return h("button", {
        class: tone, "data-key": `cell ${block.index}`, onclick: () => find(block.index),
        "aria-label": `Block ${block.index}: ${plural(good, "readable replica")}`, title: `Block ${block.index}: ${plural(good, "readable replica")}`,
      }, String(good));
    });
    const shares = [...tally].sort().map(([server, held]) => `${server} holds ${count(held)}`);
    return h("div", { class: "card" }, h("div", { class: "map" }, cells),
      h("p", { class: "legend" }, `Each cell is a block with the number of its readable replicas; ${file.replication} are wanted. ${shares.join(" · ")}.`));
  }

  function draw(file, blocks, more) {
    if (file.directory) return location.replace(`#/files/${api.encodePath(path)}`);
    const titles = [["#", "num"], ["Block"], ["Length", "num"], ["CRC32C"], ["Replicas"], [""]];
    replace(root,
      h("div", { class: "head" }, crumbs(file.path, true),
        h("button", { "data-key": "rename", onclick: async () => { const to = await renameEntry(file); if (to) location.hash = `#/file/${api.encodePath(to)}`; } }, "Rename"),
        h("button", { class: "danger", "data-key": "remove", onclick: async () => { if (await removeEntry(file)) location.hash = `#/files/${api.encodePath(api.parent(file.path))}`; } }, "Delete"),
        h("a", { class: "button primary", "data-key": "get", href: api.contentUrl(file.path), download: file.name }, "Download")),
      facts(file),
      h("h2", {}, "Where its blocks are"),
      blocks.length ? distribution(file, blocks) : null,
      h("h2", {}, "Blocks"),
      h("div", { class: "table" },
        blocks.length
          ? h("table", { class: "stack" }, h("caption", {}, `Blocks of ${file.path}`),
            h("thead", {}, h("tr", {}, titles.map(([title, kind]) => h("th", { class: kind, scope: "col" }, title)))),
            h("tbody", {}, blocks.map(row)))
          : empty("An empty file", "It has no blocks."),
        more ? h("div", { class: "more" }, h("button", { "data-key": "more", onclick: () => { pages += 1; refresh(); } }, "Show more")) : null));
  }

  async function refresh() {
    try {
      let answer;
      const blocks = [];
      for (let page = 0; page < pages && (!answer || answer.more); page += 1) {
        answer = await api.get("file", { path, from: blocks.length, limit: PAGE }, stop.signal);
        blocks.push(...answer.block_list);
      }
      const now = JSON.stringify([answer, blocks]);
      if (now === known || selecting(root)) return;
      known = now;
      draw(answer, blocks, answer.more);
    } catch (error) {
      if (error.name === "AbortError") return;
      known = "";
      replace(root, h("div", { class: "head" }, crumbs(path, true)), trouble(error));
    }
  }

  refresh();
  return { refresh, stop: () => stop.abort() };
}
