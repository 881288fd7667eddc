// Short news at the edge of the page, with what can be done about it.

import { html, useEffect, useState } from "../html.js";
import { t } from "../i18n.js";

const STAYS_MS = 20_000;
let add = () => {};
let last = 0;

// toast("2 files deleted", {label: "Undo", run})
export const toast = (text, action) => add({ text, action, id: last += 1 });

export function Toasts() {
  const [list, set] = useState([]);
  const drop = (id) => set((before) => before.filter((one) => one.id !== id));
  useEffect(() => {
    add = (one) => {
      set((before) => [...before.slice(-2), one]);
      setTimeout(() => drop(one.id), STAYS_MS);
    };
  }, []);
  return html`<div class="toasts" role="status" aria-live="polite" data-test="toasts">${list.map(({ id, text, action }) => html`
    <div class="toast" key=${id}><span class="any grow">${text}</span>
      ${action && html`<button class="small" data-test=${action.test ?? "toast-action"} onClick=${() => { drop(id); action.run(); }}>${action.label}</button>`}
      <button class="small" aria-label=${t("dismiss")} onClick=${() => drop(id)}>✕</button></div>`)}</div>`;
}
