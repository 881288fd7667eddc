// The latencies of a volume: the usual one, and the slowest hundredth.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { latency } from "../../format.js";
import { figure } from "../../ui/parts.js";

export const Latencies = ({ volume }) => html`<div class="table flat"><table class="latencies">
  <caption class="unseen">${t("vol.latency")}</caption>
  <thead><tr><th scope="col">${t("vol.latency")}</th><th scope="col" class="num">p50</th><th scope="col" class="num">p99</th></tr></thead>
  <tbody>${["write", "flush", "read"].map((kind) => {
    const { p50_us: usual, p99_us: slow } = volume[kind]?.count ? volume[kind] : {};
    return html`<tr key=${kind}><th scope="row">${t(`vol.${kind}`)}</th><td class="num">${figure(usual, latency)}</td><td class="num">${figure(slow, latency)}</td></tr>`;
  })}</tbody></table></div>`;
