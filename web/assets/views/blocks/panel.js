// The blocks of a cell, or one that was asked for by its id.

import { html, useEffect, useRef } from "../../html.js";
import { t } from "../../i18n.js";
import { fileLink, get } from "../../api.js";
import { bytes, count } from "../../format.js";
import { BlockDownload, Replicas } from "../../ui/blocks.js";
import { Trouble } from "../../ui/parts.js";
import { More, Table } from "../../ui/table.js";
import { usePages } from "../../ui/use.js";

const PAGE = 20;

function Row({ block }) {
  return html`<tr data-test="block-row"><th scope="row" class="name mono">${block.id}</th>
    <td class="name">${block.path ? html`<a href=${fileLink(block.path)}>${block.path}</a>` : html`<span class="dim">${t("vol.no_file")}</span>`}</td>
    <td class="num" data-label="#">${count(block.index)}</td><td class="num">${bytes(block.length)}</td><td class="mono" data-label="CRC32C">${block.crc32c}</td>
    <td class="full"><${Replicas} of=${block.replicas} /></td><td class="actions"><${BlockDownload} id=${block.id} /></td></tr>`;
}

// range: {from, to}, of which the ends may be the same block
export function Panel({ range: { from, to }, close, zoom }) {
  const title = useRef(null);
  const pages = usePages(async (last, signal) => {
    if (from === to) return { items: [await get("block", { id: from }, signal)], more: false };
    const answer = await get("blocks", { from: last ? undefined : from, to, after: last?.id, limit: PAGE }, signal);
    return { ...answer, items: answer.blocks };
  }, [from, to]);
  useEffect(() => title.current.focus(), [from, to]);
  return html`<section data-test="block-panel">
    <div class="head"><h2 ref=${title} tabindex="-1" class="mono any">${from === to ? from : `${from} … ${to}`}</h2>
      ${zoom && html`<button onClick=${zoom} data-test="zoom-here">${t("map.zoom_here")}</button>`}<button onClick=${close} data-test="close-panel">${t("close")}</button></div>
    <${Trouble} error=${pages.error} />
    <${Table} caption=${t("map.blocks_here")} below=${html`<${More} pages=${pages} />`}
      columns=${[[t("file.block")], [t("nav.file")], ["#", "num"], [t("file.length"), "num"], ["CRC32C"], [t("files.copies")], [""]]}>
      ${pages.items.map((block) => html`<${Row} key=${block.id} block=${block} />`)}</${Table}>
  </section>`;
}
