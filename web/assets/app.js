// Boots the page: follows the cluster, and shows the view that the address names.

import { html, render, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { language, onLanguage, t } from "./i18n.js";
import { setTheme, theme } from "./prefs.js";
import { start, useKnown } from "./store.js";
import { Footer, Header } from "./ui/shell.js";
import { Dialogs } from "./ui/dialog.js";
import { Toasts } from "./ui/toast.js";
import { recallJobs } from "./upload/jobs.js";
import { Uploads } from "./upload/panel.js";
import { BlockMap } from "./views/blocks/view.js";
import { File } from "./views/file/view.js";
import { Files } from "./views/files/view.js";
import { Overview } from "./views/overview/view.js";
import { Pipeline } from "./views/pipeline/view.js";
import { RepairAndScrub } from "./views/repair/view.js";
import { Servers } from "./views/servers/view.js";
import { Trash } from "./views/trash/view.js";
import { Volume } from "./views/volume/view.js";
import { WhatIf } from "./views/whatif/view.js";

// Each is drawn with {argument, path, query}.
const VIEWS = {
  "": Overview, servers: Servers, volume: Volume, blocks: BlockMap, pipeline: Pipeline, files: Files, file: File,
  trash: Trash, repair: RepairAndScrub, whatif: WhatIf,
};

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // typed by hand
  }
}

// "#/files/a%20b?x=1" → the view "files" of "/a b" with x
function route() {
  const [address, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...parts] = address.split("/");
  const argument = parts.map(decoded).join("/").replace(/\/+$/, "");
  const known = name in VIEWS;
  return { name: known ? name : "", argument: known ? argument : "", query: new URLSearchParams(query ?? "") };
}

function App() {
  const [at, go] = useState(route);
  const [lang, setLang] = useState(language);
  const up = useKnown((known) => known.up);
  const main = useRef(null);
  const came = useRef(false);
  useEffect(() => onLanguage(setLang), []);
  useEffect(() => {
    const moved = () => go(route());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  useLayoutEffect(() => {
    document.title = at.name ? `${t(`nav.${at.name}`)} · Blockyard` : "Blockyard";
    if (came.current) {
      main.current.focus({ preventScroll: true });
      if (!at.query.has("at")) scrollTo(0, 0);
    }
    came.current = true;
  }, [at, lang]);
  const View = VIEWS[at.name];
  const skip = (event) => { event.preventDefault(); main.current.focus(); };
  return html`
    <a class="skip" href="#view" onClick=${skip}>${t("skip")}</a>
    <${Header} key=${lang} name=${at.name} />
    <main id="view" ref=${main} tabindex="-1" class=${up ? "" : "stale"}>
      <${View} key=${`${lang} ${at.name} ${at.argument}`} argument=${at.argument} path=${`/${at.argument}`} query=${at.query} />
    </main>
    <${Footer} />
    <${Uploads} key=${`${lang} uploads`} />
    <${Toasts} />
    <${Dialogs} />`;
}

// A file that is dropped where none is taken would take the page's place.
for (const name of ["dragover", "drop"]) {
  addEventListener(name, (event) => { if (event.dataTransfer.types.includes("Files")) event.preventDefault(); });
}
setTheme(theme());
start();
recallJobs();
render(html`<${App} />`, document.getElementById("page"));
