// What repair and scrub can be told to do, each asked for with the same as a command.

import { t } from "../../i18n.js";
import { post } from "../../api.js";
import { bytes, quoted } from "../../format.js";
import { question } from "../../ui/dialog.js";

export function pauseRepair() {
  question({ title: t("repair.pause"), text: t("repair.why_pause"), yes: t("repair.pause"), command: () => "blockyard repair pause", run: () => post("repair", { paused: true }) });
}

export function resumeRepair(held) {
  question({
    title: t("repair.resume"), text: held ? t("repair.why_held") : t("repair.why_resume"), yes: t("repair.resume"),
    fields: [{ name: "forced", label: t("repair.force"), type: "checkbox", value: false }],
    advice: ({ forced }) => forced && t("repair.forced"),
    command: ({ forced }) => `blockyard repair resume${forced ? " --force" : ""}`,
    run: ({ forced }) => post("repair", { paused: false, ...(forced ? { forced } : {}) }),
  });
}

const MIB = 1024 * 1024;

export function setPace(limit) {
  question({
    title: t("repair.pace"), text: t("repair.why_pace"), yes: t("files.set"),
    fields: [
      { name: "mode", label: t("repair.pace"), value: limit ? "fixed" : "auto", options: [["auto", t("repair.auto")], ["fixed", t("repair.fixed")]] },
      { name: "mib", label: t("repair.mib"), type: "number", min: 1, value: String(limit ? Math.max(1, Math.round(limit / MIB)) : 50) },
    ],
    command: ({ mode, mib }) => `blockyard repair pace ${mode === "auto" ? "auto" : `${mib}MiB`}`,
    run: ({ mode, mib }) => post("repair", { limit_bytes_per_s: mode === "auto" ? 0 : Number(mib) * MIB }),
  });
}

export function setBalance(off) {
  const word = off ? "off" : "on";
  question({ title: t(`repair.balance_${word}`), text: t("repair.why_balance"), yes: t(`repair.balance_${word}`), command: () => `blockyard balance ${word}`, run: () => post("repair", { balance_off: off }) });
}

// volumes: [{id, name}]; none stands for all.
export function scrub(word, volumes = []) {
  question({
    title: t(`scrub.ask.${word}`, { name: volumes.length ? volumes.map(({ name }) => name).join(", ") : t("scrub.all") }), text: t(`scrub.why.${word}`), yes: t(`scrub.${word}`),
    command: () => ["blockyard scrub", word, ...volumes.map(({ id }) => quoted(id))].join(" "),
    run: () => post("scrub", { order: word, ...(volumes.length ? { volumes: volumes.map(({ id }) => id) } : {}) }),
  });
}

export const pace = (limit) => (limit ? `${bytes(limit)}/s` : t("repair.auto"));
