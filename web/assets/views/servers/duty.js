// What a server or volume can be told to do, each asked for with the same as a command.

import { t } from "../../i18n.js";
import { post } from "../../api.js";
import { quoted } from "../../format.js";
import { question } from "../../ui/dialog.js";
import { toast } from "../../ui/toast.js";

const DUTIES = { drain: "draining", maintain: "maintenance", resume: "serving", remove: "removed" };

// Which of them make sense for something that has this duty.
export const ordersFor = (duty) => (duty === "serving" ? ["drain", "maintain", "remove"] : ["resume", "drain", "remove"].filter((order) => DUTIES[order] !== duty));

// target: {server: address} or {volume: id, name}
export function order(name, target) {
  const kind = target.server ? "node" : "volume";
  const id = target.server ?? target.volume;
  const of = target.server ? { servers: [id] } : { volumes: [id] };
  const fields = [
    name === "maintain" && { name: "hours", label: t("duty.hours"), type: "number", min: 1, max: 720, value: "2" },
    name === "remove" && { name: "force", label: t("duty.force"), type: "checkbox", value: false },
  ].filter(Boolean);
  question({
    title: t(`duty.ask.${name}`, { name: target.server ?? target.name }), text: t(`duty.why.${name}`), fields, yes: t(`duty.${name}`), danger: name === "remove",
    advice: ({ force }) => force && t("duty.forced"),
    command: ({ hours, force }) => `blockyard ${kind} ${name} ${quoted(id)}${hours ? ` --for ${hours}h` : ""}${force ? " --force" : ""}`,
    run: ({ hours, force }) => post("duty", { ...of, duty: DUTIES[name], ...(hours ? { hours: Number(hours) } : {}), ...(force ? { force } : {}) }),
    done: () => toast(t("duty.done", { name: target.server ?? target.name })),
  });
}
