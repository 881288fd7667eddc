// One volume: its facts, and the blocks it holds page by page.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { fileLink, get } from "../../api.js";
import { bytes, count, volumeName, when } from "../../format.js";
import { useCluster } from "../../store.js";
import { BlockDownload } from "../../ui/blocks.js";
import { Badge, Empty, Facts, Meter, Trouble } from "../../ui/parts.js";
import { More, Table } from "../../ui/table.js";
import { usePages } from "../../ui/use.js";
import { Latencies } from "../servers/latency.js";
import { copyState } from "../../ui/state.js";
import { VolumeBadges, VolumeButtons, volumeFacts } from "../servers/volume.js";

const PAGE = 100;

function About({ volume }) {
  return html`<div class="head"><h1>${volumeName(volume)}</h1><${VolumeBadges} volume=${volume} /></div>
    <div class="card">
      ${volume.reason && html`<p class="advice">▲ ${volume.reason}</p>`}
      <${Facts} of=${[["id", html`<span class="mono">${volume.id}</span>`], [t("vol.server"), html`<a class="mono" href=${`#/servers?at=${encodeURIComponent(volume.server)}`}>${volume.server}</a>`],
        [t("vol.address"), html`<span class="mono">${volume.address}</span>`]]} />
      <${Meter} part=${volume.used_bytes} whole=${volume.capacity_bytes} label=${t("tile.space")} />
      <p class="note">${t("tile.of", { part: bytes(volume.used_bytes), whole: bytes(volume.capacity_bytes) })} · ${t("vol.free", { free: bytes(volume.free_bytes) })}</p>
      <${Facts} of=${[...volumeFacts(volume), [t("vol.written"), bytes(volume.write_bytes)], [t("vol.read_sum"), bytes(volume.read_bytes)],
        [t("vol.deletes"), count(volume.pending_deletes)], volume.returning > 0 && [t("vol.returning"), count(volume.returning)]]} />
      <${Latencies} volume=${volume} /><${VolumeButtons} volume=${volume} />
    </div>`;
}

function Row({ block }) {
  return html`<tr data-test="block-row"><th scope="row" class="name mono">${block.id}</th>
    <td class="name">${block.path ? html`<a href=${fileLink(block.path)}>${block.path}</a>` : html`<span class="dim">${t("vol.no_file")}</span>`}</td>
    <td class="num" data-label="#">${count(block.index)}</td><td class="num">${bytes(block.length)}</td><td class="mono" data-label="CRC32C">${block.crc32c}</td>
    <td><${Badge} state=${copyState(block.state)} /></td><td class="actions"><${BlockDownload} id=${block.id} /></td></tr>`;
}

export function Volume({ argument: id }) {
  const volume = useCluster()?.volumes[id];
  const pages = usePages(async (last, signal) => {
    const answer = await get(`volumes/${encodeURIComponent(id)}/blocks`, { after: last?.id, limit: PAGE }, signal);
    return { ...answer, items: answer.blocks };
  }, [id]);
  return html`<div data-test="view-volume">
    ${volume ? html`<${About} volume=${volume} />` : html`<h1 class="any">${t("vol.unknown", { id })}</h1>`}
    <h2>${t("vol.holds")}</h2>
    <${Trouble} error=${pages.error} />
    ${pages.items.length > 0 || pages.busy
      ? html`<${Table} caption=${t("vol.holds")} below=${html`<${More} pages=${pages} />`}
          columns=${[[t("file.block")], [t("nav.file")], ["#", "num"], [t("file.length"), "num"], ["CRC32C"], [t("vol.state")], [""]]}>
          ${pages.items.map((block) => html`<${Row} key=${block.id} block=${block} />`)}</${Table}>`
      : !pages.error && html`<div class="card"><${Empty} title=${t("vol.no_blocks")} /></div>`}
  </div>`;
}
