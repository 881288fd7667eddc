// Cells on a canvas: each look is a colour and a pattern, so that none is told by colour alone.

import { colour } from "./colours.js";

// name: [ground, ink, pattern]
const LOOKS = {
  good: ["map-good", "map-good", "plain"], misplaced: ["map-good", "map-ink", "dot"], under: ["map-warn", "map-ink", "stripes"],
  one_left: ["map-warn", "map-ink", "hatch"], damaged: ["map-bad", "map-ink", "bars"], lost: ["map-bad", "map-ink", "cross"],
  unknown: ["map-none", "map-ink", "ring"],
  waiting: ["map-none", "map-none", "plain"], checking: ["map-none", "map-ink", "dot"], sending: ["map-warn", "map-ink", "stripes"],
  there: ["map-good", "map-good", "plain"], failed: ["map-bad", "map-ink", "cross"],
  step0: ["map-none", "map-ink", "ring"], step1: ["step-1", "step-1", "plain"], step2: ["step-2", "map-ink", "dot"],
  step3: ["step-3", "step-ink", "stripes"], step4: ["step-4", "step-ink", "hatch"],
};
const MARKED_FROM = 5; // smaller cells have no room for a pattern

const STROKES = {
  plain: () => {},
  dot: (ctx, s) => { ctx.beginPath(); ctx.arc(s / 2, s / 2, Math.max(1, s / 6), 0, 7); ctx.fill(); },
  ring: (ctx, s) => { ctx.beginPath(); ctx.arc(s / 2, s / 2, s / 4.5, 0, 7); ctx.stroke(); },
  stripes: (ctx, s) => lines(ctx, [[0, s, s, 0]]),
  hatch: (ctx, s) => lines(ctx, [[0, s, s, 0], [0, s / 2, s / 2, 0], [s / 2, s, s, s / 2]]),
  bars: (ctx, s) => lines(ctx, [[s * 0.3, 0, s * 0.3, s], [s * 0.7, 0, s * 0.7, s]]),
  cross: (ctx, s) => lines(ctx, [[0, 0, s, s], [0, s, s, 0]]),
};

function lines(ctx, list) {
  ctx.beginPath();
  for (const [x0, y0, x1, y1] of list) {
    ctx.moveTo(x0, y0);
    ctx.lineTo(x1, y1);
  }
  ctx.stroke();
}

// How to draw cells of `size` (in the canvas's own pixels): a function (ctx, name, x, y).
export function painter(size) {
  const stamps = new Map();
  function stamp(name) {
    const [ground, ink, pattern] = LOOKS[name] ?? LOOKS.unknown;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = size;
    const ctx = canvas.getContext("2d");
    ctx.fillStyle = colour(ground);
    ctx.fillRect(0, 0, size, size);
    ctx.strokeStyle = ctx.fillStyle = colour(ink);
    ctx.lineWidth = Math.max(1, size / 9);
    if (size >= MARKED_FROM) STROKES[pattern](ctx, size);
    return canvas;
  }
  return (ctx, name, x, y) => {
    if (!stamps.has(name)) stamps.set(name, stamp(name));
    ctx.drawImage(stamps.get(name), x, y);
  };
}

// A canvas as large as it is shown, whatever the screen's density. Returns its context, cleared.
export function fit(canvas, width, height) {
  canvas.width = Math.round(width * devicePixelRatio);
  canvas.height = Math.round(height * devicePixelRatio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  return canvas.getContext("2d");
}
