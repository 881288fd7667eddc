// One server: how it does and why, its machine, and its volumes.

import { html, useEffect, useRef } from "../../html.js";
import { known, t } from "../../i18n.js";
import { ago, bytes, rate } from "../../format.js";
import { Badge, Facts, figure, Meter } from "../../ui/parts.js";
import { order } from "./duty.js";
import { Volume } from "./volume.js";

const mark = (points) => (points >= 70 ? "good" : points >= 40 ? "warning" : "critical");
const permille = (value) => `${Math.round(value / 10)}%`;

// The worst part is the score, so all parts are in sight.
function Score({ score }) {
  return html`<details class="score" open=${score.points < 70}>
    <summary><${Badge} state=${mark(score.points)} word=${t("score.points", { points: score.points })} /></summary>
    <ul>${score.parts.map((part, at) => html`<li key=${at}><b class="num">${part.points}</b><span>${known(`score.${part.name}`) ? t(`score.${part.name}`) : part.name}</span><span class="dim any">${part.figure}</span></li>`)}</ul>
  </details>`;
}

function Machine({ machine }) {
  const used = machine.memory_bytes && machine.memory_available_bytes ? machine.memory_bytes - machine.memory_available_bytes : null;
  return html`<${Facts} of=${[
    [t("host.cpu"), figure(machine.cpu_busy_permille, permille)],
    [t("host.load"), figure(machine.load1_permille, (load) => `${(load / 1000).toFixed(1)}${machine.cores ? ` / ${machine.cores}` : ""}`)],
    [t("host.memory"), figure(used, (amount) => t("tile.of", { part: bytes(amount), whole: bytes(machine.memory_bytes) }))],
    [t("host.in"), figure(machine.net_in_bytes_per_s, rate)], [t("host.out"), figure(machine.net_out_bytes_per_s, rate)],
  ]} />
  ${used !== null && html`<${Meter} part=${used} whole=${machine.memory_bytes} label=${t("host.memory")} />`}`;
}

// A server's volumes may have several duties; its buttons are for all of them.
const orders = (volumes) => [
  ...(volumes.some(({ duty }) => duty !== "serving") ? ["resume"] : []), "drain", "maintain", "remove",
];

export function Server({ server, volumes, marked }) {
  const place = useRef(null);
  useEffect(() => { if (marked) place.current.scrollIntoView({ block: "center" }); }, [marked]);
  return html`<article ref=${place} class=${marked ? "card server marked" : "card server"} data-test=${`server-${server.address}`} data-state=${server.state}>
    <div class="row"><h2 class="mono grow">${server.address}</h2><${Badge} state=${server.state} /></div>
    <${Facts} of=${[[t("host.zone"), server.zone || "–"], [t("host.host"), server.host || "–"], [t("host.version"), server.version],
      [t("host.heard"), ago(server.heard_unix_ms)]]} />
    ${server.score && html`<${Score} score=${server.score} />`}
    <${Machine} machine=${server.machine ?? {}} />
    <div class="row orders">${orders(volumes).map((name) => html`<button key=${name} class=${name === "remove" ? "small danger" : "small"}
      aria-label=${`${t(`duty.${name}`)}: ${server.address}`} onClick=${() => order(name, { server: server.address })} data-test=${`server-${name}`}>${t(`duty.${name}`)}</button>`)}</div>
    ${volumes.map((volume) => html`<${Volume} key=${volume.id} volume=${volume} />`)}
  </article>`;
}
