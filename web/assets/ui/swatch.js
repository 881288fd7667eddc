// One cell by itself, for legends.

import { html, useLayoutEffect, useRef } from "../html.js";
import { useTheme } from "./colours.js";
import { fit, painter } from "./paint.js";

const SIZE = 14;

export function Swatch({ look }) {
  const place = useRef(null);
  const theme = useTheme();
  useLayoutEffect(() => painter(Math.round(SIZE * devicePixelRatio))(fit(place.current, SIZE, SIZE), look, 0, 0), [look, theme]);
  return html`<canvas ref=${place} class="swatch" aria-hidden="true"></canvas>`;
}
