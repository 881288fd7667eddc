// The header and the footer around each view.

import { html, useState } from "../html.js";
import { LANGUAGES, language, setLanguage, t } from "../i18n.js";
import { setTheme, theme, THEMES } from "../prefs.js";
import { useKnown } from "../store.js";
import { clock } from "../format.js";
import { Badge } from "./parts.js";

const NAMES = ["", "servers", "blocks", "pipeline", "files", "trash", "repair", "whatif"];
const ICON = new URL("../icon.svg", import.meta.url).href;
const UNDER = { file: "files", volume: "servers" };

function Pulse() {
  const up = useKnown((known) => known.up);
  const at = useKnown((known) => (known.up ? 0 : known.at));
  const level = useKnown((known) => known.state?.health.level);
  const word = up ? t(`level.${level ?? "unknown"}`) : at ? t("link.lost", { time: clock(at) }) : t("link.none");
  return html`<a class="pulse" href="#/" aria-live="polite" data-test="pulse"><${Badge} state=${up ? level : "unknown"} word=${word} /></a>`;
}

export function Header({ name }) {
  const [open, setOpen] = useState(false);
  const [chosen, choose] = useState(theme);
  const current = UNDER[name] ?? name;
  return html`<header class="bar">
    <a class="brand" href="#/" aria-label="Blockyard"><img src=${ICON} alt="" width="26" height="26" /><span>Blockyard</span></a>
    <button class="menu small" aria-expanded=${open ? "true" : "false"} aria-controls="nav" onClick=${() => setOpen(!open)} aria-label=${t("menu")} data-test="menu">☰<span> ${t("menu")}</span></button>
    <nav id="nav" class=${open ? "open" : ""} aria-label=${t("views")}>${NAMES.map((one) => html`
      <a key=${one} href=${`#/${one}${one === "files" ? "/" : ""}`} aria-current=${one === current ? "page" : undefined} onClick=${() => setOpen(false)} data-test=${`nav-${one || "overview"}`}>${t(`nav.${one}`)}</a>`)}</nav>
    <${Pulse} />
    <select aria-label=${t("language")} data-test="lang" value=${language} onChange=${(event) => setLanguage(event.target.value)}>
      ${LANGUAGES.map(([code, word]) => html`<option value=${code} selected=${code === language}>${word}</option>`)}</select>
    <select aria-label=${t("theme")} data-test="theme" value=${chosen} onChange=${(event) => { choose(event.target.value); setTheme(event.target.value); }}>
      ${THEMES.map((one) => html`<option value=${one} selected=${one === chosen}>${t(`theme.${one}`)}</option>`)}</select>
  </header>`;
}

export function Footer() {
  const version = useKnown((known) => known.state?.version);
  const cluster = useKnown((known) => known.state?.cluster);
  return html`<footer class="foot">
    <span>Blockyard ${version}</span>
    ${cluster && html`<span>${t("cluster")} <span class="mono any">${cluster}</span></span>`}
    <a href="/api/v1/openapi.json">${t("foot.api")}</a>
    <a href="/metrics">${t("foot.metrics")}</a>
  </footer>`;
}
