// Questions in dialogs: what will be done, the same as a command, and what stood in its way.

import { html, useEffect, useId, useLayoutEffect, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { Command, Trouble } from "./parts.js";

let show = () => {};

// Opens what `draw(close)` draws.
export const open = (draw) => show(() => draw);

export function Dialogs() {
  const [draw, set] = useState(null);
  useEffect(() => { show = set; }, []);
  return draw && draw(() => set(null));
}

export function Dialog({ title, close, test, children }) {
  const box = useRef(null);
  const name = useId();
  useLayoutEffect(() => {
    const dialog = box.current;
    const before = document.activeElement;
    dialog.showModal();
    return () => {
      dialog.close();
      if (before?.isConnected) before.focus({ preventScroll: true });
    };
  }, []);
  return html`<dialog ref=${box} aria-labelledby=${name} data-test=${test ?? "dialog"} onCancel=${(event) => { event.preventDefault(); close(); }}>
    <h2 id=${name}>${title}</h2>${children}</dialog>`;
}

// fields: [{name, label, value, type?, min?, max?, options?, required?}]; command(values) and run(values) get what was filled in.
function Question({ close, title, text, advice, fields = [], command, yes, danger, run, done }) {
  const [values, set] = useState(() => Object.fromEntries(fields.map((field) => [field.name, field.value])));
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  async function submit(event) {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const answer = await run(values);
      close();
      done?.(answer, values);
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  }
  const change = (name, value) => set((before) => ({ ...before, [name]: value }));
  return html`<${Dialog} title=${title} close=${close}><form onSubmit=${submit}>
    ${text && html`<p>${text}</p>`}
    ${fields.map((field) => html`<${Field} key=${field.name} ...${field} value=${values[field.name]} onChange=${(value) => change(field.name, value)} />`)}
    ${advice?.(values) && html`<p class="advice">▲ ${advice(values)}</p>`}
    ${command && html`<p class="note">${t("same.command")}</p><${Command} text=${command(values)} />`}
    <${Trouble} error=${error} />
    <div class="choices">
      <button type="button" onClick=${close} data-test="cancel">${t("cancel")}</button>
      <button class=${danger ? "primary danger" : "primary"} disabled=${busy} data-test="confirm">${yes}</button>
    </div></form></${Dialog}>`;
}

function Field({ label, type = "text", value, onChange, options, ...rest }) {
  if (type === "checkbox") {
    return html`<label class="check"><input type="checkbox" checked=${value} onChange=${(event) => onChange(event.target.checked)} /><span>${label}</span></label>`;
  }
  if (options) {
    return html`<label class="field"><span>${label}</span><select value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${options.map(([one, word]) => html`<option value=${one}>${word}</option>`)}</select></label>`;
  }
  return html`<label class="field"><span>${label}</span>
    <input type=${type} value=${value} required autocomplete="off" ...${rest} onInput=${(event) => onChange(event.target.value)} /></label>`;
}

export const question = (given) => open((close) => html`<${Question} close=${close} ...${given} />`);
