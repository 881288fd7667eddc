// A folder: what is in it, a search below it, and what can be done with it.

import { html, useEffect, useState } from "../../html.js";
import { t } from "../../i18n.js";
import { archiveUrl, get, nameOf } from "../../api.js";
import { useKnown } from "../../store.js";
import { Empty, Trouble } from "../../ui/parts.js";
import { useChange, usePages } from "../../ui/use.js";
import { UploadButtons, useDrop } from "../../upload/pick.js";
import { onStored } from "../../upload/jobs.js";
import { Crumbs } from "./crumbs.js";
import { newFolder, removeEntries } from "./actions.js";
import { Rows } from "./rows.js";

const PAGE = 100;
const SETTLE_MS = 300;

export function Files({ path }) {
  const [typed, type] = useState("");
  const [search, setSearch] = useState("");
  const [sorting, setSorting] = useState({ sort: "name", order: "asc" });
  const [chosen, setChosen] = useState(new Map());
  const contents = useKnown(({ state }) => state && `${state.files} ${state.directories} ${state.file_bytes}`);

  const pages = usePages(async (_, signal, after) => {
    const answer = await get("files", { path, search, after, limit: PAGE, ...(sorting.sort === "name" && sorting.order === "asc" ? {} : sorting) }, signal);
    return { ...answer, items: answer.files };
  }, [path, search, sorting]);

  const changed = () => { setChosen(new Map()); pages.again(); };
  useDrop(path);
  useChange(contents, 2000, pages.again);
  const [stored, setStored] = useState(0);
  useEffect(() => onStored(() => setStored((last) => last + 1)), []);
  useChange(stored, 500, pages.again);
  useEffect(() => {
    const timer = setTimeout(() => setSearch(typed.trim()), SETTLE_MS);
    return () => clearTimeout(timer);
  }, [typed]);

  const choose = (entry, yes) => setChosen((before) => {
    const now = new Map(before);
    if (yes) now.set(entry.path, entry);
    else now.delete(entry.path);
    return now;
  });
  const chooseAll = (yes) => setChosen(new Map(yes ? pages.items.map((entry) => [entry.path, entry]) : []));
  const sort = (by, order) => setSorting({ sort: by, order });

  return html`<div data-test="view-files">
    <div class="head"><${Crumbs} path=${path} />
      <${UploadButtons} folder=${path} />
      <button onClick=${() => newFolder(path, changed)} data-test="new-folder">${t("files.new_folder")}</button>
      <a class="button" href=${archiveUrl(path)} download=${`${nameOf(path) || "blockyard"}.tar`} data-test="tar">${t("files.tar")}</a></div>
    <form class="row tools" role="search" onSubmit=${(event) => event.preventDefault()}>
      <input type="search" value=${typed} onInput=${(event) => type(event.target.value)} placeholder=${t("files.search")} aria-label=${t("files.search")} data-test="search" />
      ${chosen.size > 0 && html`<span role="status">${t("files.chosen", { n: chosen.size })}</span>
        <button type="button" class="danger" onClick=${() => removeEntries([...chosen.values()], changed)} data-test="delete-chosen">${t("files.delete_chosen")}</button>`}
    </form>
    <${Trouble} error=${pages.error} />
    ${pages.answer?.cut && html`<p class="advice">▲ ${t("files.cut")}</p>`}
    ${pages.items.length > 0 || pages.busy
      ? html`<${Rows} pages=${pages} sorting=${sorting} onSort=${sort} chosen=${chosen} choose=${choose} chooseAll=${chooseAll} changed=${changed} searching=${search}
          caption=${search ? t("files.found", { search, path }) : t("files.in", { path })} />`
      : !pages.error && html`<div class="card"><${Empty} title=${t(search ? "files.nothing_found" : "files.nothing")}>${!search && t("files.drop_here")}</${Empty}></div>`}
  </div>`;
}
