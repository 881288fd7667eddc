// The overview: how the cluster fares, its figures, how they went, what happened, and how the cluster is set up.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { bytes, count, duration, percent, perSecond, rate } from "../../format.js";
import { useCluster, useKnown } from "../../store.js";
import { Facts, figure, Loading, Meter, Tile } from "../../ui/parts.js";
import { useNow } from "../../ui/use.js";
import { waiting } from "../repair/queues.js";
import { Charts } from "./charts.js";
import { Health } from "./health.js";
import { Timeline } from "./timeline.js";

function Tiles({ state }) {
  const sample = useKnown((known) => known.sample) ?? [];
  const queue = waiting(state.repair);
  const eta = state.repair.eta_ms;
  return html`<dl class="tiles">
    <${Tile} title=${t("tile.space")} test="tile-space" note=${t("tile.free", { whole: bytes(state.capacity_bytes), free: bytes(state.free_bytes), share: percent(state.used_bytes, state.capacity_bytes) })}>
      ${bytes(state.used_bytes)}
      <${Meter} part=${state.used_bytes} whole=${state.capacity_bytes} label=${t("tile.space")} /></${Tile}>
    <${Tile} title=${t("tile.in")} test="tile-in">${figure(sample[1], rate)}</${Tile}>
    <${Tile} title=${t("tile.out")} test="tile-out">${figure(sample[2], rate)}</${Tile}>
    <${Tile} title=${t("tile.requests")} test="tile-requests">${figure(sample[3], perSecond)}</${Tile}>
    <${Tile} title=${t("tile.repair")} test="tile-repair" note=${queue.blocks === 0 ? t("tile.no_repair") : `${bytes(queue.bytes)}${eta ? ` · ${t("eta")} ${duration(eta)}` : ""}`}>
      <a href="#/repair">${t("n.blocks", { n: queue.blocks })}</a></${Tile}>
    <${Tile} title=${t("tile.files")} note=${t("tile.in_folders", { bytes: bytes(state.file_bytes), n: state.directories })}><a href="#/files/">${count(state.files)}</a></${Tile}>
    <${Tile} title=${t("tile.blocks")} note=${t("tile.copies", { n: state.replication })}><a href="#/blocks">${count(state.blocks)}</a></${Tile}>
    <${Tile} title=${t("tile.trash")} note=${bytes(state.trash_bytes ?? 0)}><a href="#/trash">${t("n.files", { n: state.trash_files ?? 0 })}</a></${Tile}>
  </dl>`;
}

function About({ state }) {
  const servers = Object.values(state.servers);
  const now = useNow(60_000);
  return html`<section><h2>${t("about.title")}</h2><div class="card"><${Facts} of=${[
    [t("about.address"), html`<span class="mono any">${state.address}</span>`],
    [t("about.up"), duration(Math.max(0, now - state.started_unix_ms))],
    [t("about.servers"), count(servers.length)],
    [t("about.copies"), t("about.at_least", { n: state.replication, least: state.min_replicas })],
    [t("about.block"), bytes(state.block_bytes)],
    [t("about.epoch"), count(state.epoch)],
    [t("about.journal"), bytes(state.journal_bytes)],
    [t("about.uploads"), count(state.uploads)],
  ]} /></div></section>`;
}

export function Overview() {
  const state = useCluster();
  const events = useKnown((known) => known.timeline);
  return html`<div data-test="view-overview">
    <${Health} />
    ${state ? html`<${Tiles} state=${state} /><${Charts} events=${events} /><${Timeline} events=${events} /><${About} state=${state} />` : html`<${Loading} />`}
  </div>`;
}
