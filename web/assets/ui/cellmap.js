// A map of many cells on a canvas, for pointers and for the keyboard.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { colour, useTheme } from "./colours.js";
import { fit, painter } from "./paint.js";

const ROOM = 380; // the height that a map tries to fill, in pixels
const SMALLEST = 7;
const LARGEST = 22;
const ZOOM = 12; // how much closer one step is

// How many cells of which pitch go across a width.
export function layout(cells, width) {
  const ideal = Math.floor(Math.sqrt((width * ROOM) / Math.max(1, cells)));
  const pitch = Math.max(SMALLEST, Math.min(LARGEST, ideal));
  return { pitch, across: Math.max(1, Math.floor(width / pitch)) };
}

// How many cells fill a map of this width.
export const capacity = (width) => Math.floor(width / 9) * Math.floor(ROOM / 9);

function useWidth() {
  const place = useRef(null);
  const [width, set] = useState(0);
  useLayoutEffect(() => {
    const look = () => set(place.current.clientWidth);
    look();
    const resized = new ResizeObserver(look);
    resized.observe(place.current);
    return () => resized.disconnect();
  }, []);
  return [place, width];
}

const MOVES = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: (across) => -across, ArrowDown: (across) => across, Home: () => -Infinity, End: () => Infinity };

// look(i) names a cell's look, "" for one that is faded; describe(i) tells of it; open(i) is what a click or Enter does.
// Where there is more to see, zoom(first, last) shows a range that was dragged over, or is around a cell with "+"; zoom() goes back.
export function CellMap({ cells, look, describe, open, zoom, label, opened, round, test = "blockmap", onWidth }) {
  const [place, width] = useWidth();
  const canvas = useRef(null);
  const theme = useTheme();
  const [at, move] = useState(null);
  const [focused, focus] = useState(false);
  const last = useRef(null); // where the keyboard was
  const pressed = useRef(null);
  if (at !== null) last.current = at;
  const { pitch, across } = layout(cells, width);

  useEffect(() => { if (width) onWidth?.(width); }, [width]);
  useEffect(() => move(null), [cells]);

  useLayoutEffect(() => {
    if (!width) return;
    const ctx = fit(canvas.current, width, Math.max(1, Math.ceil(cells / across)) * pitch);
    const scale = devicePixelRatio;
    const size = Math.max(2, Math.round((pitch - 1) * scale));
    const paint = painter(size);
    const spot = (index) => [Math.round((index % across) * pitch * scale), Math.round(Math.floor(index / across) * pitch * scale)];
    for (let index = 0; index < cells; index += 1) {
      const name = look(index);
      ctx.globalAlpha = name ? 1 : 0.25;
      paint(ctx, name || "waiting", ...spot(index));
    }
    ctx.globalAlpha = 1;
    const ring = (index, tone) => {
      const [x, y] = spot(index);
      ctx.lineWidth = 2 * scale;
      ctx.strokeStyle = colour(tone);
      ctx.strokeRect(x, y, size, size);
    };
    if (opened !== null && opened !== undefined && opened < cells) ring(opened, "text");
    if (at !== null && at < cells) ring(at, "accent");
  }, [width, cells, round, theme, at, opened, look]);

  const under = (event) => {
    const column = Math.floor(event.offsetX / pitch);
    const index = Math.floor(event.offsetY / pitch) * across + column;
    return column < across && index >= 0 && index < cells ? index : null;
  };
  const key = (event) => {
    const step = MOVES[event.key]?.(across);
    if (step !== undefined) {
      event.preventDefault();
      move(Math.max(0, Math.min(cells - 1, at === null ? (step === Infinity ? cells - 1 : 0) : at + step)));
    } else if (zoom && (event.key === "+" || event.key === "-")) {
      if (event.key === "-") zoom();
      else if (at !== null) zoom(Math.max(0, at - Math.ceil(cells / ZOOM / 2)), Math.min(cells - 1, at + Math.ceil(cells / ZOOM / 2)));
    } else if ((event.key === "Enter" || event.key === " ") && at !== null) {
      event.preventDefault();
      open(at);
    }
  };
  const leave = () => { if (!focused) move(null); };
  const click = (event) => {
    const index = under(event);
    const from = pressed.current;
    if (index === null) return;
    move(index);
    if (zoom && from !== null && Math.abs(from - index) > 1) zoom(Math.min(from, index), Math.max(from, index));
    else open(index);
  };
  return html`<div class="map" ref=${place}>
    <canvas ref=${canvas} tabindex="0" role="application" aria-label=${`${label}. ${t(zoom ? "map.keys_zoom" : "map.keys")}`} data-test=${test} data-cells=${cells} data-pitch=${pitch} data-across=${across}
      onPointerMove=${(event) => move(under(event))} onPointerLeave=${leave} onPointerDown=${(event) => { pressed.current = under(event); }} onFocus=${() => { focus(true); move((now) => now ?? last.current); }} onBlur=${() => { focus(false); move(null); }} onClick=${click} onKeyDown=${key}></canvas>
    <p class="note any" aria-live=${focused ? "polite" : "off"} data-test="map-cell">${at === null || at >= cells ? t(zoom ? "map.point_zoom" : "map.point") : describe(at)}</p>
  </div>`;
}
