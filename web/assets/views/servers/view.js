// All servers and their volumes.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { useCluster } from "../../store.js";
import { Command, Empty, Loading } from "../../ui/parts.js";
import { useNow } from "../../ui/use.js";
import { scrub } from "../repair/orders.js";
import { Server } from "./server.js";

export function Servers({ query }) {
  const state = useCluster();
  useNow(1000); // "heard … ago" goes on when nothing else does
  if (!state) return html`<div data-test="view-servers"><h1>${t("servers.title")}</h1><${Loading} /></div>`;
  const servers = Object.values(state.servers).sort((one, other) => (one.address < other.address ? -1 : 1));
  const volumes = Object.values(state.volumes);
  const marked = query.get("at");
  return html`<div data-test="view-servers">
    <div class="head"><h1>${t("servers.title")}</h1>
      <button onClick=${() => scrub("start")} data-test="scrub-all-start">${t("scrub.start_all")}</button>
      <button onClick=${() => scrub("pause")} data-test="scrub-all-pause">${t("scrub.pause_all")}</button></div>
    <p class="note">${t("servers.sum", { n: servers.length, volumes: volumes.length })}</p>
    ${servers.length === 0 && html`<div class="card"><${Empty} title=${t("servers.none")}>${t("servers.start_one")}</${Empty}><${Command} text=${`blockyard dataserver --volume DIR --nameserver ${state.address}`} /></div>`}
    <div class="grid servers">${servers.map((server) => html`<${Server} key=${server.address} server=${server} marked=${server.address === marked}
      volumes=${volumes.filter((volume) => volume.server === server.address)} />`)}</div>
  </div>`;
}
