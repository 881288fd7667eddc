// The block map: a cell for each block or range of blocks, to be gone into down to single blocks.

import { html, useCallback, useEffect, useMemo, useState } from "../../html.js";
import { t } from "../../i18n.js";
import { get } from "../../api.js";
import { count } from "../../format.js";
import { useKnown } from "../../store.js";
import { capacity, CellMap } from "../../ui/cellmap.js";
import { Choice, Empty, Trouble } from "../../ui/parts.js";
import { Swatch } from "../../ui/swatch.js";
import { useAnswer, useChange, useNow } from "../../ui/use.js";
import { KINDS, tell } from "./kinds.js";
import { Panel } from "./panel.js";
import { MapTable } from "./table.js";

const ROWS = 100;
const MOST = 16_384;
const AGAIN_MS = 15_000;

function Legend({ kind, cells, only, choose }) {
  const sums = useMemo(() => kind.looks.map((look) => cells.reduce((sum, cell) => sum + kind.count(cell, look), 0)), [kind, cells]);
  return html`<div class="group legend" role="group" aria-label=${t("map.legend")}>${kind.looks.map((look, at) => html`
    <button key=${look} class="small" aria-pressed=${look === only ? "true" : "false"} onClick=${() => choose(look === only ? "" : look)} data-test=${`legend-${look}`}>
      <${Swatch} look=${look} /> ${kind.word(look)} <b>${count(sums[at])}</b></button>`)}</div>`;
}

// Where a block is among the cells: ids of one length are in the order of their text.
const placeOf = (cells, id) => cells.findIndex(({ from, to }) => from.length === id.length && from <= id && id <= to);

export function BlockMap({ query }) {
  const asked = query.get("block");
  const [by, setBy] = useState("health");
  const [only, setOnly] = useState(query.get("only") ?? "");
  const [asTable, setTable] = useState(false);
  const [ranges, setRanges] = useState([]); // each within the one before it
  const [opened, setOpened] = useState(asked ? { from: asked, to: asked } : null);
  const [room, setRoom] = useState(0);
  const range = ranges.at(-1);
  const cellsWanted = asTable ? ROWS : Math.min(MOST, room);
  const { data, error, again } = useAnswer(
    (signal) => (cellsWanted ? get("blockmap", { cells: cellsWanted, ...range }, signal) : Promise.resolve(undefined)), [cellsWanted, range]);
  const fates = useKnown(({ state }) => state && `${state.missing_blocks} ${state.under_replicated_blocks} ${state.corrupt_replicas} ${state.blocks}`);
  useChange(fates, AGAIN_MS / 3, again);
  useChange(useNow(AGAIN_MS), 0, again);
  useEffect(() => { if (asked) setOpened({ from: asked, to: asked }); }, [asked]);
  useEffect(() => setOnly(query.get("only") ?? ""), [query]);

  const cells = data?.cells ?? [];
  const kind = KINDS[by];
  const look = useCallback((at) => (!only ? kind.of(cells[at]) : kind.has(cells[at], only) ? only : ""), [cells, kind, only]);
  const within = (first, last) => {
    if (cells[first] === undefined) return setRanges(ranges.slice(0, -1));
    return setRanges([...ranges, { from: cells[first].from, to: cells[last].to }]);
  };
  const zoomTo = ({ from, to }) => { setRanges([...ranges, { from, to }]); setOpened(null); };
  const back = () => { setRanges(ranges.slice(0, -1)); setOpened(null); };
  const at = opened ? placeOf(cells, opened.from) : -1;

  return html`<div data-test="view-blocks">
    <div class="head"><h1>${t("nav.blocks")}</h1>
      <${Choice} label=${t("map.by")} value=${by} test="map-by" onChange=${(one) => { setBy(one); setOnly(""); }} options=${Object.keys(KINDS).map((one) => [one, t(`map.by_${one}`)])} />
      <button class="small" aria-pressed=${asTable ? "true" : "false"} onClick=${() => setTable(!asTable)} data-test="as-table">${t("map.as_table")}</button>
      <button class="small" disabled=${ranges.length === 0} onClick=${back} data-test="zoom-out">${t("map.zoom_out")}</button>
      <button class="small" disabled=${ranges.length === 0} onClick=${() => { setRanges([]); setOpened(null); }} data-test="zoom-all">${t("map.all")}</button></div>
    <${Trouble} error=${error} />
    ${data && html`<p class="note" data-test="map-range">${t("map.shown", { shown: cells.reduce((sum, cell) => sum + cell.count, 0), all: data.blocks, n: cells.length })}</p>`}
    <${Legend} kind=${kind} cells=${cells} only=${only} choose=${setOnly} />
    ${data && cells.length === 0 && html`<div class="card"><${Empty} title=${t("map.none")} /></div>`}
    ${asTable
      ? html`<${MapTable} cells=${cells} only=${only && ((cell) => kind.has(cell, only))} open=${setOpened} zoom=${zoomTo} />`
      : html`<div class="card blockmap"><${CellMap} cells=${cells.length} look=${look} describe=${(index) => tell(cells[index])} open=${(index) => setOpened(cells[index])}
          zoom=${within} opened=${at} label=${t("nav.blocks")} onWidth=${(width) => setRoom(capacity(width))} /></div>`}
    ${opened && html`<${Panel} key=${`${opened.from} ${opened.to}`} range=${opened} close=${() => { setOpened(null); document.querySelector("[data-test=blockmap]")?.focus(); }}
      zoom=${opened.count > 1 ? () => zoomTo(opened) : null} />`}
  </div>`;
}
