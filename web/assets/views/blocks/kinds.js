// By what the block map can be coloured: each with the looks of its legend, and what a cell has of them.

import { number, t } from "../../i18n.js";

const DAY_MS = 86_400_000;

const HEALTH = ["lost", "damaged", "one_left", "under", "misplaced"]; // the worst first

// An aggregated cell shows the worst that is in it.
const health = {
  looks: [...HEALTH, "good"],
  of: (cell) => HEALTH.find((kind) => cell[kind] > 0) ?? "good",
  has: (cell, look) => (look === "good" ? health.of(cell) === "good" : cell[look] > 0),
  count: (cell, look) => (look === "good" ? Math.max(0, cell.count - HEALTH.reduce((sum, kind) => sum + cell[kind], 0)) : cell[look]),
  word: (look) => t(`cell.${look}`),
};

const stepped = (of, name) => ({
  looks: ["step1", "step2", "step3", "step4", "step0"],
  of,
  has: (cell, look) => of(cell) === look,
  count: (cell, look) => (of(cell) === look ? cell.count : 0),
  word: (look) => t(`${name}.${look}`),
});

const age = stepped(({ verified_unix_ms: at }) => {
  if (!at) return "step0";
  const days = (Date.now() - at) / DAY_MS;
  return days < 1 ? "step1" : days < 7 ? "step2" : days < 30 ? "step3" : "step4";
}, "age");

const heat = stepped(({ heat: times }) => (times === null ? "step0" : times === 0 ? "step1" : times < 10 ? "step2" : times < 100 ? "step3" : "step4"), "heat");

export const KINDS = { health, age, heat };

// What is to be said of a cell.
export function tell(cell) {
  const ills = HEALTH.filter((kind) => cell[kind] > 0).map((kind) => `${t(`cell.${kind}`)}: ${number(cell[kind])}`);
  return [cell.count === 1 ? cell.from : `${cell.from} … ${cell.to}`, t("n.blocks", { n: cell.count }), ills.join(", ") || t("cell.good"), age.word(age.of(cell)), heat.word(heat.of(cell))].join(" · ");
}
