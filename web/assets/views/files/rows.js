// The entries of a folder, or what a search found, as a table.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { archiveUrl, contentUrl, fileLink, folderLink } from "../../api.js";
import { bytes, count, when } from "../../format.js";
import { More, Table } from "../../ui/table.js";
import { removeEntries, rename, setReplication } from "./actions.js";

const icon = (directory) => new URL(`../../icons/${directory ? "folder" : "page"}.svg`, import.meta.url).href;

function Entry({ entry, chosen, choose, changed, searching }) {
  const { path, name, directory } = entry;
  return html`<tr data-test="file-row" data-path=${path}>
    <td class="pick"><input type="checkbox" checked=${chosen} onChange=${(event) => choose(entry, event.target.checked)} aria-label=${t("files.choose", { name })} data-test="choose" /></td>
    <th scope="row" class="name"><img class="kind" alt=${t(directory ? "files.a_folder" : "files.a_file")} src=${icon(directory)} />
      <a href=${directory ? folderLink(path) : fileLink(path)}>${searching ? path : name}${directory && "/"}</a></th>
    <td class="num">${directory ? t("files.entries", { n: entry.children ?? 0 }) : bytes(entry.size)}</td>
    <td class="time">${when(entry.modified_unix_ms)}</td>
    <td class="num optional">${directory ? "" : count(entry.blocks)}</td>
    <td class="num optional">${directory ? "" : `${entry.replication} ×`}</td>
    <td class="actions">
      <a class="button small" href=${directory ? archiveUrl(path) : contentUrl(path)} download=${directory ? `${name}.tar` : name} aria-label=${`${t(directory ? "files.tar" : "files.download")}: ${name}`}>${t(directory ? "files.tar" : "files.download")}</a>
      <button class="small" aria-label=${`${t("files.rename")}: ${name}`} onClick=${() => rename(entry, changed)} data-test="rename">${t("files.rename")}</button>
      <button class="small" aria-label=${`${t("files.copies")}: ${name}`} onClick=${() => setReplication(entry, changed)} data-test="copies">${t("files.copies")}</button>
      <button class="small danger" aria-label=${`${t("files.delete")}: ${name}`} onClick=${() => removeEntries([entry], changed)} data-test="delete">${t("files.delete")}</button>
    </td></tr>`;
}

function Sorted({ by, sort, order, onSort, children }) {
  const sign = sort !== by ? "" : order === "asc" ? " ↑" : " ↓";
  return html`<button onClick=${() => onSort(by, sort === by && order === "asc" ? "desc" : "asc")} data-test=${`sort-${by}`}>${children}<span aria-hidden="true">${sign}</span>
    ${sign && html`<span class="unseen"> ${t(order === "asc" ? "files.rising" : "files.falling")}</span>`}</button>`;
}

export function Rows({ pages, sorting, onSort, chosen, choose, chooseAll, changed, caption, searching }) {
  const title = (by) => html`<${Sorted} by=${by} ...${sorting} onSort=${onSort}>${t(`files.by_${by}`)}</${Sorted}>`;
  const all = pages.items.length > 0 && pages.items.every(({ path }) => chosen.has(path));
  const columns = [
    [html`<input type="checkbox" checked=${all} onChange=${(event) => chooseAll(event.target.checked)} aria-label=${t("files.choose_all")} />`],
    [title("name")], [title("size"), "num"], [title("modified")], [t("tile.blocks"), "num optional"], [t("files.copies"), "num optional"], [""],
  ];
  return html`<${Table} sortable caption=${caption} columns=${columns} below=${html`<${More} pages=${pages} />`}>
    ${pages.items.map((entry) => html`<${Entry} key=${entry.path} entry=${entry} chosen=${chosen.has(entry.path)} choose=${choose} changed=${changed} searching=${searching} />`)}
  </${Table}>`;
}
