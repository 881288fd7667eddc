// A chart over time with events across it.

import uPlot from "../vendor/uplot.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { figure } from "./parts.js";
import { clock } from "../format.js";
import { colour, useTheme } from "./colours.js";
import { look } from "./state.js";

const HEIGHT = 160;
const NEAR = 9; // pixels within which two marks would lie on each other
const POWERS = Array.from({ length: 60 }, (_, power) => 2 ** power); // so that bytes have round marks
const TONES = ["one", "two", "three"];
const DASHES = [[], [7, 4], [2, 3]];

// Seconds are told where marks lie closer than a minute.
const times = (_, at, __, ___, step) => at.map((seconds) => clock(seconds * 1000).slice(0, step < 60 ? 8 : 5));

const GRAVITY = ["critical", "warning", "ok"];

// Marks where something happened: a line, and a sign above it. Of those too near each other the gravest is marked.
function marks(plot, events) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.font = `${11 * devicePixelRatio}px system-ui`;
  ctx.textAlign = "center";
  const taken = [];
  const gravest = [...events].sort((one, other) => GRAVITY.indexOf(one.level) - GRAVITY.indexOf(other.level));
  for (const { at_unix_ms: at, level } of gravest) {
    const x = plot.valToPos(at / 1000, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width || taken.some((other) => Math.abs(other - x) < NEAR * devicePixelRatio)) continue;
    taken.push(x);
    const [tone, sign] = look(level);
    ctx.strokeStyle = ctx.fillStyle = colour(tone || "dim");
    ctx.globalAlpha = level === "ok" ? 0.45 : 1;
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(sign, x, bbox.top - 2 * devicePixelRatio);
  }
  ctx.restore();
}

// series: [{label}, …] for the columns of `data` after the times; `show` writes a figure.
export function Chart({ title, series, data, show, events, inBytes, test }) {
  const place = useRef(null);
  const plot = useRef(null);
  const latest = useRef(events);
  latest.current = events;
  const theme = useTheme();
  const [cursor, setCursor] = useState(null);

  useLayoutEffect(() => {
    const axis = { stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    plot.current = new uPlot({
      width: place.current.clientWidth || 300, height: HEIGHT, legend: { show: false }, padding: [14, 24, 0, 0],
      cursor: { sync: { key: "charts" }, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: true }, y: { range: (_, __, top) => [0, top > 0 ? top * 1.1 : 1] } },
      axes: [
        { ...axis, space: 70, size: 26, values: times },
        { ...axis, size: 72, space: 28, values: (_, at) => at.map((value) => show(value)), ...(inBytes ? { incrs: POWERS } : {}) },
      ],
      series: [{}, ...series.map(({ label }, at) => ({ label, stroke: colour(TONES[at]), width: 2, dash: DASHES[at], points: { show: false }, spanGaps: false }))],
      hooks: {
        draw: [(drawn) => marks(drawn, latest.current)],
        setCursor: [(drawn) => setCursor(drawn.cursor.idx ?? null)],
      },
    }, data, place.current);
    const resized = new ResizeObserver(() => plot.current.setSize({ width: place.current.clientWidth, height: HEIGHT }));
    resized.observe(place.current);
    return () => { resized.disconnect(); plot.current.destroy(); };
  }, [theme]);

  useEffect(() => plot.current.setData(data), [data, events]);

  const at = cursor !== null && cursor < data[0].length ? cursor : data[0].length - 1;
  return html`<figure class="chart card" data-test=${test}>
    <figcaption><h3>${title}</h3>
      <ul class="key">${series.map(({ label }, index) => html`<li key=${label}>
        <svg width="26" height="8" aria-hidden="true"><line class=${`line-${TONES[index]}`} x1="0" y1="4" x2="26" y2="4" stroke-width="2.5" stroke-dasharray=${DASHES[index].join(" ") || null} /></svg>
        ${label} <b>${figure(data[index + 1][at], show)}</b></li>`)}
        ${cursor !== null && data[0][at] && html`<li class="dim">${clock(data[0][at] * 1000)}</li>`}</ul>
    </figcaption>
    <div ref=${place} aria-hidden="true"></div>
  </figure>`;
}
