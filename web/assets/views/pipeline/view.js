// The pipeline: the chains that write now, hop by hop.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { volumeLink } from "../../api.js";
import { count, latency, rate, volumeName } from "../../format.js";
import { useCluster } from "../../store.js";
import { Badge, Empty, figure, Loading } from "../../ui/parts.js";
import { chains } from "./chains.js";

const role = (at, hops) => t(at === 0 ? "pipe.head" : at === hops.length - 1 ? "pipe.tail" : "pipe.middle");

const Arrow = ({ flow }) => html`<div class="arrow"><span class="rate">${figure(flow?.bytes_per_s, rate)}</span><span class="shaft" aria-hidden="true"></span></div>`;

function Hop({ hop: { volume, id, flow }, word }) {
  return html`<div class="hop"><span class="dim">${word}</span>
    <b class="any"><a href=${volumeLink(id)}>${volume ? volumeName(volume) : id}</a></b>
    ${volume && html`<span class="note any">${volume.server}</span>${volume.state !== "serving" && html`<${Badge} state=${volume.state} />`}`}
    <dl><div><dt>${t("pipe.queue")}</dt><dd>${figure(flow?.in_flight, count)}</dd></div><div><dt>${t("pipe.lag")}</dt><dd>${figure(flow?.lag_us, latency)}</dd></div>
      <div><dt>${t("tile.blocks")}</dt><dd>${figure(flow?.blocks, count)}</dd></div></dl></div>`;
}

const Chain = ({ chain: { client, hops } }) => html`<li class="chain card" data-test="chain" data-hops=${hops.length}>
  <div class="hop client"><span class="dim">${t("pipe.client")}</span><b class="any">${client || t("state.unknown")}</b></div>
  ${hops.map((hop, at) => html`<${Arrow} flow=${hop.flow} /><${Hop} hop=${hop} word=${role(at, hops)} />`)}</li>`;

export function Pipeline() {
  const state = useCluster();
  const all = state ? chains(state) : [];
  return html`<div data-test="view-pipeline"><h1>${t("pipe.title")}</h1><p class="note">${t("pipe.what")}</p>
    ${!state ? html`<${Loading} />` : all.length === 0
      ? html`<div class="card" data-test="pipeline-idle"><${Empty} title=${t("pipe.idle")} /></div>`
      : html`<ul class="chains">${all.map((chain) => html`<${Chain} key=${chain.key} chain=${chain} />`)}</ul>`}
  </div>`;
}
