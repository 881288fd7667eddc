// A file: its facts, a look into it, and its blocks with the servers that hold them.

import { html, useCallback, useEffect, useState } from "../../html.js";
import { t } from "../../i18n.js";
import * as api from "../../api.js";
import { bytes, count, when } from "../../format.js";
import { useKnown } from "../../store.js";
import { BlockDownload, fare, Replicas } from "../../ui/blocks.js";
import { CellMap } from "../../ui/cellmap.js";
import { Empty, Loading, Tile, Trouble } from "../../ui/parts.js";
import { Swatch } from "../../ui/swatch.js";
import { More, Table } from "../../ui/table.js";
import { useChange, usePages } from "../../ui/use.js";
import { removeEntries, rename, setReplication } from "../files/actions.js";
import { Crumbs } from "../files/crumbs.js";
import { Preview } from "./preview.js";

const PAGE = 256;

function Facts({ file }) {
  return html`<dl class="tiles">
    <${Tile} title=${t("files.by_size")} note=${t("file.bytes", { n: file.size })}>${bytes(file.size)}</${Tile}>
    <${Tile} title=${t("tile.blocks")} note=${t("tile.copies", { n: file.replication })}>${count(file.blocks)}</${Tile}>
    <${Tile} title="CRC32C" note=${t("file.version", { n: file.version })}><span class="mono">${file.crc32c}</span></${Tile}>
    <${Tile} title=${t("files.by_modified")} note=${t("file.created", { time: when(file.created_unix_ms) })}><small>${when(file.modified_unix_ms)}</small></${Tile}>
    <${Tile} title=${t("file.type")}><small>${file.content_type || t("file.by_name")}</small></${Tile}>
  </dl>`;
}

function Row({ block, found }) {
  return html`<tr id=${`block-${block.index}`} class=${found ? "found" : ""} data-test="block-row">
    <td class="num" data-label="#">${count(block.index)}</td><th scope="row" class="name mono">${block.id}</th>
    <td class="num">${bytes(block.length)}</td><td class="mono" data-label="CRC32C">${block.crc32c}</td>
    <td class="full"><${Replicas} of=${block.replicas} /></td><td class="actions"><${BlockDownload} id=${block.id} /></td></tr>`;
}

function Blocks({ file, pages }) {
  const blocks = pages.items;
  const [found, find] = useState(null);
  const looks = useCallback((at) => fare(blocks[at], file.replication), [blocks, file.replication]);
  const describe = (at) => t("file.cell", { index: blocks[at].index, state: t(`cell.${looks(at)}`), servers: blocks[at].replicas.map(({ server }) => server).join(", ") });
  const open = (at) => {
    find(at);
    document.getElementById(`block-${blocks[at].index}`)?.scrollIntoView({ block: "center" });
  };
  const kinds = [...new Set(blocks.map((_, at) => looks(at)))];
  return html`<section><h2>${t("file.map")}</h2>
    <div class="card"><${CellMap} cells=${blocks.length} look=${looks} describe=${describe} open=${open} opened=${found} label=${t("file.map")} test="filemap" />
      <p class="note legend">${kinds.map((kind) => html`<span key=${kind}><${Swatch} look=${kind} /> ${t(`cell.${kind}`)}</span>`)}
        ${pages.more && html`<span>${t("file.shown", { shown: blocks.length, all: file.blocks })}</span>`}</p></div>
    <h2>${t("tile.blocks")}</h2>
    <${Table} caption=${t("file.blocks_of", { path: file.path })} below=${html`<${More} pages=${pages} />`}
      columns=${[["#", "num"], [t("file.block")], [t("file.length"), "num"], ["CRC32C"], [t("files.copies")], [""]]}>
      ${blocks.map((block, at) => html`<${Row} key=${block.id} block=${block} found=${at === found} />`)}</${Table}>
  </section>`;
}

export function File({ path }) {
  const pages = usePages(async (last, signal) => {
    const answer = await api.get("file", { path, from: last ? last.index + 1 : 0, limit: PAGE }, signal);
    return { ...answer, items: answer.block_list };
  }, [path]);
  const fates = useKnown(({ state }) => state && `${state.missing_blocks} ${state.under_replicated_blocks} ${state.corrupt_replicas}`);
  useChange(fates, 5000, pages.again);
  const file = pages.answer;
  useEffect(() => { if (file?.directory) location.replace(api.folderLink(path)); }, [file]);
  const gone = (undone) => { if (!undone) location.hash = api.folderLink(api.parent(path)); };
  return html`<div data-test="view-file">
    <div class="head"><${Crumbs} path=${path} isFile />
      ${file && html`
        <button onClick=${() => rename(file, (to) => { location.hash = api.fileLink(to); })} data-test="rename">${t("files.rename")}</button>
        <button onClick=${() => setReplication(file, pages.again)} data-test="copies">${t("files.copies")}</button>
        <button class="danger" onClick=${() => removeEntries([file], gone)} data-test="delete">${t("files.delete")}</button>
        <a class="button primary" href=${api.contentUrl(path)} download=${file.name} data-test="download">${t("files.download")}</a>`}</div>
    <${Trouble} error=${pages.error} />
    ${!file && !pages.error && html`<${Loading} />`}
    ${file && html`<${Facts} file=${file} /><${Preview} file=${file} />
      ${pages.items.length ? html`<${Blocks} file=${file} pages=${pages} />` : html`<div class="card"><${Empty} title=${t("file.empty")} /></div>`}`}
  </div>`;
}
