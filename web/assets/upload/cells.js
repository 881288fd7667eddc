// The blocks of an upload as a strip of cells; of many blocks, a cell stands for several.

import { html, useLayoutEffect, useRef } from "../html.js";
import { t } from "../i18n.js";
import { useTheme } from "../ui/colours.js";
import { fit, painter } from "../ui/paint.js";
import { CELL } from "./run.js";

const MOST = 400;
const GAP = 1;
const NAMES = ["waiting", "checking", "sending", "there", "failed"];

// Of several blocks that one which there is most to say of.
const RANK = [1, 2, 3, 0, 4];

function gathered(cells) {
  if (cells.length <= MOST) return cells;
  return Uint8Array.from({ length: MOST }, (_, at) => {
    let worst = CELL.there;
    const end = Math.floor(((at + 1) * cells.length) / MOST);
    for (let index = Math.floor((at * cells.length) / MOST); index < end; index += 1) if (RANK[cells[index]] > RANK[worst]) worst = cells[index];
    return worst;
  });
}

export function Cells({ job, round }) {
  const place = useRef(null);
  const theme = useTheme();
  const there = job.cells.reduce((sum, cell) => sum + (cell === CELL.there), 0);
  useLayoutEffect(() => {
    const shown = gathered(job.cells);
    const width = place.current.parentElement.clientWidth;
    const size = shown.length > 120 ? 7 : 11;
    const across = Math.max(1, Math.floor((width + GAP) / (size + GAP)));
    const ctx = fit(place.current, width, Math.max(1, Math.ceil(shown.length / across)) * (size + GAP));
    const paint = painter(Math.round(size * devicePixelRatio));
    const step = (size + GAP) * devicePixelRatio;
    shown.forEach((cell, at) => paint(ctx, NAMES[cell], Math.round((at % across) * step), Math.round(Math.floor(at / across) * step)));
  }, [round, theme]);
  return html`<div class="cells"><canvas ref=${place} role="img" aria-label=${t("up.cells", { there, n: job.cells.length })}
    data-test="upload-cells" data-there=${there} data-blocks=${job.cells.length}></canvas></div>`;
}
