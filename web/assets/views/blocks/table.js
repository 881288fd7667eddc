// The block map as a table: its ranges, each to be opened or gone into.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { count, when } from "../../format.js";
import { figure } from "../../ui/parts.js";
import { Table } from "../../ui/table.js";

const NUMBERS = ["lost", "damaged", "one_left", "under", "misplaced"];

export function MapTable({ cells, only, open, zoom }) {
  const shown = only ? cells.filter((cell) => only(cell)) : cells;
  return html`<${Table} caption=${t("nav.blocks")} columns=${[[t("map.range")], [t("tile.blocks"), "num"], ...NUMBERS.map((name) => [t(`cell.${name}`), "num"]), [t("map.oldest")], [t("map.heat"), "num"], [""]]}>
    ${shown.map((cell) => html`<tr key=${cell.from} data-test="map-row"><th scope="row" class="name mono">${cell.count === 1 ? cell.from : `${cell.from} … ${cell.to}`}</th>
      <td class="num" data-label=${t("tile.blocks")}>${count(cell.count)}</td>
      ${NUMBERS.map((name) => html`<td key=${name} class="num" data-label=${t(`cell.${name}`)}>${count(cell[name])}</td>`)}
      <td class="time">${cell.verified_unix_ms ? when(cell.verified_unix_ms) : t("age.step0")}</td><td class="num" data-label=${t("map.heat")}>${figure(cell.heat, count)}</td>
      <td class="actions"><button class="small" aria-label=${`${t("map.open")}: ${cell.from}`} onClick=${() => open(cell)}>${t("map.open")}</button>
        ${cell.count > 1 && html`<button class="small" aria-label=${`${t("map.zoom_here")}: ${cell.from}`} onClick=${() => zoom(cell)}>${t("map.zoom_here")}</button>`}</td></tr>`)}
  </${Table}>`;
}
