// Blocks and their copies, as all views show them.

import { html } from "../html.js";
import { t } from "../i18n.js";
import { blockUrl, volumeLink } from "../api.js";
import { stateWord } from "./parts.js";
import { copyState, look } from "./state.js";

const readable = ({ live, state }) => live && state === "good";

// How a block fares, by the look of its cell.
export function fare({ replicas }, wanted) {
  const good = replicas.filter(readable).length;
  if (good === 0) return "lost";
  if (replicas.some(({ state }) => state === "corrupt")) return "damaged";
  if (good >= wanted) return "good";
  return good === 1 ? "one_left" : "under";
}

function Replica({ replica }) {
  const state = replica.live ? copyState(replica.state) : "dead";
  const [tone, sign] = look(state);
  return html`<a class="badge ${tone}" href=${volumeLink(replica.volume)} title=${`${replica.volume} · ${replica.zone ?? ""}`}>
    <span aria-hidden="true">${sign}</span>${replica.server} <span class="state">${stateWord(state)}</span></a>`;
}

export const Replicas = ({ of }) => html`<div class="chips">${of.length ? of.map((replica) => html`<${Replica} key=${replica.volume} replica=${replica} />`)
  : html`<span class="badge bad"><span aria-hidden="true">✕</span>${t("file.no_copy")}</span>`}</div>`;

export const BlockDownload = ({ id }) => html`<a class="button small" href=${blockUrl(id)} download=${`${id}.block`} aria-label=${`${t("files.download")}: ${id}`} data-test="block-download">${t("files.download")}</a>`;
