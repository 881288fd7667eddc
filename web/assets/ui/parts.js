// Small parts of all views.

import { html, useState } from "../html.js";
import { known, t } from "../i18n.js";
import { percent } from "../format.js";
import { look } from "./state.js";

export const Sign = ({ state }) => {
  const [tone, sign] = look(state);
  return html`<span class="sign ${tone}" aria-hidden="true">${sign}</span>`;
};

export const stateWord = (state) => (known(`state.${state}`) ? t(`state.${state}`) : state || t("state.unknown"));

export function Badge({ state, word, title }) {
  const [tone, sign] = look(state);
  return html`<span class="badge ${tone}" title=${title}><span aria-hidden="true">${sign}</span>${word ?? stateWord(state)}</span>`;
}

// A figure as `show` writes it; what wasn't measured is no zero.
export const figure = (value, show = String) =>
  value === null || value === undefined
    ? html`<span class="unmeasured" title=${t("unmeasured")}>–<span class="unseen"> ${t("unmeasured")}</span></span>`
    : show(value);

export function Meter({ part, whole, label }) {
  const share = whole > 0 ? Math.min(1, part / whole) : 0;
  return html`<div class=${share > 0.9 ? "meter high" : "meter"} role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${Math.round(share * 100)} aria-valuetext=${percent(part, whole)}><span style=${{ width: `${share * 100}%` }}></span></div>`;
}

export const Tile = ({ title, note, test, children }) =>
  html`<div class="tile" data-test=${test}><dt>${title}</dt><dd>${children}${note && html`<small>${note}</small>`}</dd></div>`;

// [[title, value], …]
export const Facts = ({ of }) =>
  html`<dl class="facts">${of.filter(Boolean).map(([title, value]) => html`<div><dt>${title}</dt><dd>${value}</dd></div>`)}</dl>`;

export const Empty = ({ title, children }) => html`<p class="empty"><b>${title}</b>${children}</p>`;
export const Trouble = ({ error }) => error && html`<p class="trouble" role="alert">✕ ${error.message}</p>`;
export const Loading = () => html`<p class="empty" aria-busy="true">${t("loading")}</p>`;

// The same as the page does, for a terminal.
export function Command({ text }) {
  const [copied, setCopied] = useState(false);
  const copy = () => navigator.clipboard.writeText(text).then(() => setCopied(true), () => {});
  return html`<div class="command" data-test="command"><code>${text}</code>
    ${navigator.clipboard && html`<button type="button" class="small" onClick=${copy}>${copied ? t("copied") : t("copy")}</button>`}</div>`;
}

// One of several: [[value, word], …]
export const Choice = ({ label, value, options, onChange, test }) =>
  html`<div class="group" role="group" aria-label=${label} data-test=${test}>${options.map(([one, word]) =>
    html`<button key=${one} class="small" aria-pressed=${one === value ? "true" : "false"} onClick=${() => onChange(one)}>${word}</button>`)}</div>`;
