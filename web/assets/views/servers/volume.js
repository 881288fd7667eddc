// One volume within its server's card.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { volumeLink } from "../../api.js";
import { bytes, count, rate, volumeName, when } from "../../format.js";
import { Badge, Facts, figure, Meter } from "../../ui/parts.js";
import { scrub } from "../repair/orders.js";
import { order, ordersFor } from "./duty.js";
import { Latencies } from "./latency.js";

export function VolumeBadges({ volume }) {
  return html`<${Badge} state=${volume.state} />
    ${volume.duty !== "serving" && html`<${Badge} state=${volume.duty} word=${volume.duty === "maintenance" && volume.until_unix_ms ? t("vol.until", { time: when(volume.until_unix_ms) }) : undefined} />`}
    ${volume.suspicion && html`<${Badge} state="warning" word=${t("vol.suspicious")} title=${volume.suspicion} />`}`;
}

export const volumeFacts = (volume) => [
  [t("tile.blocks"), figure(volume.blocks, count)], [t("vol.in_flight"), figure(volume.in_flight, count)],
  [t("vol.writing"), figure(volume.write_bytes_per_s, rate)], [t("vol.reading"), figure(volume.read_bytes_per_s, rate)],
  [t("vol.errors"), figure(volume.io_errors, count)], [t("vol.damaged"), figure(volume.corrupt, count)],
  [t("vol.scrubbed"), volume.scrub?.last_pass_unix_ms ? when(volume.scrub.last_pass_unix_ms) : t("scrub.never")],
  [t("scrub.state"), html`<${Badge} state=${volume.scrub?.state} />`],
];

export function VolumeButtons({ volume }) {
  const target = { volume: volume.id, name: volumeName(volume) };
  const running = volume.scrub?.state === "running" || volume.scrub?.state === "waiting";
  const word = running ? "pause" : "start";
  return html`<div class="row orders">${ordersFor(volume.duty).map((name) => html`
      <button key=${name} class=${name === "remove" ? "small danger" : "small"} aria-label=${`${t(`duty.${name}`)}: ${target.name}`} onClick=${() => order(name, target)} data-test=${name}>${t(`duty.${name}`)}</button>`)}
    <button class="small" aria-label=${`${t(`scrub.${word}`)}: ${target.name}`} onClick=${() => scrub(word, [{ id: volume.id, name: target.name }])} data-test=${`scrub-${word}`}>${t(`scrub.${word}`)}</button></div>`;
}

export function Volume({ volume }) {
  return html`<section class="volume" data-test=${`volume-${volume.id}`} data-state=${volume.state} data-duty=${volume.duty}>
    <div class="row"><h3 class="any grow"><a href=${volumeLink(volume.id)}>${volumeName(volume)}</a></h3><${VolumeBadges} volume=${volume} /></div>
    ${volume.reason && html`<p class="note any">${volume.reason}</p>`}
    <${Meter} part=${volume.used_bytes} whole=${volume.capacity_bytes} label=${t("tile.space")} />
    <p class="note">${t("tile.of", { part: bytes(volume.used_bytes), whole: bytes(volume.capacity_bytes) })} · ${t("vol.free", { free: bytes(volume.free_bytes) })}</p>
    <${Facts} of=${volumeFacts(volume)} />
    <${Latencies} volume=${volume} />
    <${VolumeButtons} volume=${volume} />
  </section>`;
}
