// The uploads panel: a row for each file, over all views.

import { html, useEffect, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { fileLink } from "../api.js";
import { bytes, duration, rate } from "../format.js";
import { Swatch } from "../ui/swatch.js";
import { Cells } from "./cells.js";
import * as jobs from "./jobs.js";

const SHOWN = 60;
const ORDER = { running: 0, exists: 1, failed: 1, lost: 2, paused: 3, waiting: 4, done: 5 };
const SIGNS = { running: "●", exists: "▲", failed: "✕", lost: "▲", paused: "■", waiting: "○", done: "✓" };

function note(job) {
  const flying = [...job.flying.values()].reduce((sum, loaded) => sum + loaded, 0);
  const reached = Math.min(job.size, job.covered + flying);
  switch (job.state) {
    case "running": return [t("up.reached", { part: bytes(reached), whole: bytes(job.size) }), job.rate > 0 && rate(job.rate),
      job.rate > 0 && `${t("eta")} ${duration(((job.size - reached) / job.rate) * 1000)}`].filter(Boolean).join(" · ");
    case "done": return `${t("up.verified")} crc32c ${job.stored.crc32c}${job.stored.degraded_blocks ? ` · ${t("up.degraded", { n: job.stored.degraded_blocks })}` : ""}`;
    case "lost": return t(job.handle ? "up.may_go_on" : "up.choose_again");
    case "exists": return t("up.exists");
    case "failed": return job.error.message;
    default: return t("up.reached", { part: bytes(reached), whole: bytes(job.size) });
  }
}

function Job({ job, round, again }) {
  const button = (name, run) => html`<button class="small" aria-label=${`${t(`up.${name}`)}: ${job.path}`} onClick=${() => run(job)} data-test=${`upload-${name}`}>${t(`up.${name}`)}</button>`;
  const buttons = {
    running: () => button("pause", jobs.pause), waiting: () => button("pause", jobs.pause), paused: () => button("resume", jobs.resume),
    failed: () => button("retry", jobs.resume), exists: () => button("replace", jobs.replace),
    lost: () => (job.handle ? button("go_on", jobs.reopen) : button("again", again)), done: () => null,
  };
  return html`<li class="job" data-test="upload-job" data-state=${job.state} data-path=${job.path}>
    <div class="row"><b class="any grow">${job.state === "done" ? html`<a href=${fileLink(job.path)}>${job.path}</a>` : job.path}</b>
      ${buttons[job.state]()}${button(job.state === "done" ? "dismiss" : "cancel", jobs.cancel)}</div>
    ${job.cells.length > 0 && job.state !== "done" && html`<${Cells} job=${job} round=${round} />`}
    <p class="note ${job.state === "failed" ? "wrong" : ""}"><span aria-hidden="true">${SIGNS[job.state]}</span> <span class="state">${t(`up.is.${job.state}`)}</span> · <span class="any">${note(job)}</span>
      ${job.state === "lost" && job.error && html` <span class="wrong" role="alert">✕ ${job.error.message}</span>`}</p>
  </li>`;
}

export function Uploads() {
  const [round, set] = useState(0);
  const [open, setOpen] = useState(true);
  const input = useRef(null);
  const asked = useRef(null);
  useEffect(() => jobs.onChange(() => set((last) => last + 1)), []);
  const all = jobs.all();
  if (all.length === 0) return null;
  const left = all.filter(({ state }) => state !== "done").length;
  const shown = [...all].sort((one, other) => ORDER[one.state] - ORDER[other.state]).slice(0, SHOWN);
  const again = (job) => { asked.current = job; input.current.click(); };
  const chosen = (event) => { jobs.giveBack([...event.target.files], asked.current); event.target.value = ""; };
  return html`<section class="uploads" aria-label=${t("up.title")} data-test="uploads">
    <div class="row"><h2 class="grow">${t("up.title")} <span class="dim" role="status">${left ? t("up.left", { n: left }) : t("up.all_done")}</span></h2>
      ${left < all.length && html`<button class="small" onClick=${jobs.clearDone}>${t("up.clear")}</button>`}
      <button class="small" aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>${t(open ? "up.fold" : "up.unfold")}</button></div>
    <input ref=${input} type="file" multiple hidden onChange=${chosen} aria-label=${t("up.again")} data-test="again-input" />
    ${open && html`<ul>${shown.map((job) => html`<${Job} key=${job.key} job=${job} round=${round} again=${again} />`)}</ul>
      ${all.length > SHOWN && html`<p class="note">${t("and.more", { n: all.length - SHOWN })}</p>`}
      <p class="note legend">${["waiting", "checking", "sending", "there", "failed"].map((look) => html`<span key=${look}><${Swatch} look=${look} /> ${t(`cell.${look}`)}</span>`)}</p>`}
  </section>`;
}
