// Repair and scrub: what waits and why, how fast it goes, and what can be told to them.

import { html } from "../../html.js";
import { known as hasText, t } from "../../i18n.js";
import { volumeLink } from "../../api.js";
import { bytes, count, duration, rate, volumeName, when } from "../../format.js";
import { useCluster } from "../../store.js";
import { Badge, figure, Loading, Meter, Tile } from "../../ui/parts.js";
import { Table } from "../../ui/table.js";
import { pace, pauseRepair, resumeRepair, scrub, setBalance, setPace } from "./orders.js";
import { CLASSES, waiting } from "./queues.js";

const heldText = (held) => (typeof held === "string" && hasText(`held.${held}`) ? t(`held.${held}`) : typeof held === "string" ? held : t("repair.held"));

function standing(repair) {
  if (repair.paused) return ["paused"];
  if (repair.held) return ["warning", t("repair.held")];
  return waiting(repair).blocks > 0 || repair.copying > 0 ? ["running"] : ["ok", t("repair.idle")];
}

function Queues({ repair }) {
  return html`<${Table} caption=${t("repair.queues")} columns=${[[t("repair.class")], [t("repair.why")], [t("tile.blocks"), "num"], [t("files.by_size"), "num"]]}>
    ${CLASSES.map((name) => html`<tr key=${name} data-test=${`queue-${name}`}><th scope="row">${t(`repair.${name}`)}</th><td class="full dim">${t(`repair.why_${name}`)}</td>
      <td class="num" data-label=${t("tile.blocks")}>${figure(repair[name]?.blocks, count)}</td><td class="num">${figure(repair[name]?.bytes, bytes)}</td></tr>`)}</${Table}>`;
}

function Repair({ repair }) {
  const [level, word] = standing(repair);
  return html`<section><div class="head"><h1>${t("repair.title")}</h1><${Badge} state=${level} word=${word} />
      ${repair.paused || repair.held
        ? html`<button class="primary" onClick=${() => resumeRepair(repair.held)} data-test="repair-resume">${t("repair.resume")}</button>`
        : html`<button onClick=${pauseRepair} data-test="repair-pause">${t("repair.pause")}</button>`}
      <button onClick=${() => setPace(repair.limit_bytes_per_s)} data-test="repair-pace">${t("repair.pace")}</button>
      <button onClick=${() => setBalance(!repair.balance_off)} data-test="balance">${t(repair.balance_off ? "repair.balance_on" : "repair.balance_off")}</button></div>
    ${repair.held && html`<p class="advice" data-test="held">▲ ${heldText(repair.held)}</p>`}
    ${repair.forced && html`<p class="advice">▲ ${t("repair.is_forced")}</p>`}
    <${Queues} repair=${repair} />
    <dl class="tiles">
      <${Tile} title=${t("repair.speed")} note=${`${t("repair.pace")}: ${pace(repair.limit_bytes_per_s)}`}>${figure(repair.bytes_per_s, rate)}</${Tile}>
      <${Tile} title=${t("repair.eta")}>${figure(repair.eta_ms, duration)}</${Tile}>
      <${Tile} title=${t("repair.copying")}>${figure(repair.copying, count)}</${Tile}>
      <${Tile} title=${t("repair.copied")} note=${bytes(repair.copied?.bytes ?? 0)}>${t("n.blocks", { n: repair.copied?.blocks ?? 0 })}</${Tile}>
      <${Tile} title=${t("repair.balanced")} note=${t(repair.balance_off ? "repair.balance_is_off" : "repair.balance_is_on")}>${t("n.blocks", { n: repair.balanced?.blocks ?? 0 })}</${Tile}>
      <${Tile} title=${t("repair.failed")}>${figure(repair.failed, count)}</${Tile}>
    </dl></section>`;
}

function ScrubRow({ volume }) {
  const { state, passes, pass_bytes: done, last_pass_unix_ms: last, damaged, bytes_per_s: speed } = volume.scrub;
  const name = volumeName(volume);
  const word = state === "running" || state === "waiting" ? "pause" : "start";
  return html`<tr data-test=${`scrub-${volume.id}`}><th scope="row" class="name"><a href=${volumeLink(volume.id)}>${name}</a><div class="note any">${volume.server}</div></th>
    <td><${Badge} state=${state} /></td>
    <td class="full progress"><${Meter} part=${done ?? 0} whole=${volume.used_bytes} label=${t("scrub.progress")} /><span class="note">${t("tile.of", { part: bytes(done ?? 0), whole: bytes(volume.used_bytes) })}</span></td>
    <td class="num" data-label=${t("scrub.pace")}>${figure(speed, rate)}</td>
    <td class="time">${last ? when(last) : t("scrub.never")} · ${t("scrub.passes", { n: passes ?? 0 })}</td>
    <td class="num" data-label=${t("vol.damaged")}>${figure(damaged, count)}</td>
    <td class="actions"><button class="small" aria-label=${`${t(`scrub.${word}`)}: ${name}`} onClick=${() => scrub(word, [{ id: volume.id, name }])} data-test=${`scrub-${word}`}>${t(`scrub.${word}`)}</button></td></tr>`;
}

function Scrubs({ volumes }) {
  return html`<section><div class="head"><h2>${t("scrub.title")}</h2>
      <button onClick=${() => scrub("start")} data-test="scrub-all-start">${t("scrub.start_all")}</button>
      <button onClick=${() => scrub("pause")} data-test="scrub-all-pause">${t("scrub.pause_all")}</button></div>
    <${Table} caption=${t("scrub.title")} columns=${[[t("nav.volume")], [t("vol.state")], [t("scrub.progress")], [t("scrub.pace"), "num"], [t("vol.scrubbed")], [t("vol.damaged"), "num"], [""]]}>
      ${volumes.filter(({ scrub: known }) => known).map((volume) => html`<${ScrubRow} key=${volume.id} volume=${volume} />`)}</${Table}></section>`;
}

export function RepairAndScrub() {
  const state = useCluster();
  return html`<div data-test="view-repair">${state
    ? html`<${Repair} repair=${state.repair} /><${Scrubs} volumes=${Object.values(state.volumes)} />`
    : html`<h1>${t("repair.title")}</h1><${Loading} />`}</div>`;
}
