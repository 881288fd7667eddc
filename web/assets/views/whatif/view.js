// What if some servers, zones or volumes were lost: what would lose a copy, and what would be lost.

import { html, useMemo, useState } from "../../html.js";
import { t } from "../../i18n.js";
import { fileLink, get } from "../../api.js";
import { bytes, count, volumeName } from "../../format.js";
import { useCluster } from "../../store.js";
import { Badge, Empty, figure, Loading, Tile, Trouble } from "../../ui/parts.js";
import { Table } from "../../ui/table.js";
import { useAnswer } from "../../ui/use.js";

const KINDS = ["zone", "server", "volume"];

function options(state) {
  const servers = Object.values(state.servers);
  return {
    zone: [...new Set(servers.map(({ zone }) => zone))].filter(Boolean).sort().map((zone) => [zone, zone]),
    server: servers.map(({ address }) => [address, address]).sort(),
    volume: Object.values(state.volumes).filter(({ duty }) => duty !== "removed").map((volume) => [volume.id, `${volumeName(volume)} · ${volume.server}`]).sort((one, other) => (one[1] < other[1] ? -1 : 1)),
  };
}

const Loss = ({ title, what, test }) => html`<${Tile} title=${title} test=${test} note=${t("what.in_files", { n: what.files, bytes: bytes(what.bytes) })}>${t("n.blocks", { n: what.blocks })}</${Tile}>`;

const First = ({ title, what }) => what.first?.length > 0 && html`<section><h2>${title}</h2>
  <${Table} caption=${title} columns=${[[t("nav.file")], [t("tile.blocks"), "num"]]} below=${what.files > what.first.length && html`<p class="more dim">${t("and.more", { n: what.files - what.first.length })}</p>`}>
    ${what.first.map(({ path, blocks }) => html`<tr key=${path}><th scope="row" class="name"><a href=${fileLink(path)}>${path}</a></th><td class="num">${count(blocks)}</td></tr>`)}</${Table}></section>`;

function Verdict({ data }) {
  const room = data.room_bytes >= data.needed_bytes;
  const level = data.lost.blocks > 0 ? "critical" : room ? "ok" : "warning";
  return html`<div data-test="whatif-result" aria-live="polite">
    <p><${Badge} state=${level} word=${t(data.lost.blocks > 0 ? "what.loses" : room ? "what.safe" : "what.no_room")} /></p>
    <dl class="tiles">
      <${Tile} title=${t("what.volumes")}>${figure(data.volumes, count)}</${Tile}>
      <${Loss} title=${t("what.lost")} what=${data.lost} test="whatif-lost" /><${Loss} title=${t("what.lose_copy")} what=${data.lose_copy} test="whatif-lose-copy" />
      <${Tile} title=${t("what.risk")}>${t("n.blocks", { n: data.at_risk_now.blocks })}</${Tile}>
      <${Tile} title=${t("what.room")} note=${t("what.needed", { bytes: bytes(data.needed_bytes) })}>${bytes(data.room_bytes)}</${Tile}>
    </dl>
    <${First} title=${t("what.lost_files")} what=${data.lost} /><${First} title=${t("what.lose_copy_files")} what=${data.lose_copy} />
  </div>`;
}

export function WhatIf() {
  const state = useCluster();
  const [chosen, choose] = useState([]); // "kind value"
  const question = useMemo(() => Object.fromEntries(KINDS.map((kind) => [kind, chosen.filter(([of]) => of === kind).map(([, value]) => value)])), [chosen]);
  const { data, error } = useAnswer((signal) => (chosen.length ? get("whatif", question, signal) : Promise.resolve(null)), [question]);
  const has = (kind, value) => chosen.some(([of, one]) => of === kind && one === value);
  const toggle = (kind, value, yes) => choose(yes ? [...chosen, [kind, value]] : chosen.filter(([of, one]) => of !== kind || one !== value));
  const all = state && options(state);
  return html`<div data-test="view-whatif"><h1>${t("what.title")}</h1><p class="note">${t("what.what")}</p>
    ${!state ? html`<${Loading} />` : html`<div class="grid choices3">${KINDS.map((kind) => all[kind].length > 0 && html`<fieldset key=${kind} class="card"><legend>${t(`what.${kind}`)}</legend>
      ${all[kind].map(([value, word]) => html`<label class="check" key=${value}><input type="checkbox" checked=${has(kind, value)} onChange=${(event) => toggle(kind, value, event.target.checked)} data-test=${`whatif-${kind}-${value}`} /><span>${word}</span></label>`)}</fieldset>`)}</div>`}
    <${Trouble} error=${error} />
    ${chosen.length === 0 ? state && html`<${Empty} title=${t("what.choose")} />` : data && html`<${Verdict} data=${data} />`}
  </div>`;
}
