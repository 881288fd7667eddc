// The trash: what was deleted, to be taken back or to go for good.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { fileLink, folderLink, get, remove, restore } from "../../api.js";
import { bytes, quoted, when } from "../../format.js";
import { useKnown } from "../../store.js";
import { question } from "../../ui/dialog.js";
import { Empty, Trouble } from "../../ui/parts.js";
import { More, Table } from "../../ui/table.js";
import { toast } from "../../ui/toast.js";
import { useChange, usePages } from "../../ui/use.js";

function takeBack({ entry, path, directory }, done) {
  question({
    title: t("trash.restore"), yes: t("trash.restore"), fields: [{ name: "to", label: t("trash.to"), value: path }],
    command: ({ to }) => `blockyard trash restore ${entry}${to === path ? "" : ` --to ${quoted(to)}`}`,
    run: ({ to }) => restore(entry, to === path ? "" : to),
    done: (_, { to }) => {
      toast(t("trash.restored", { path: to }), { label: t("trash.show"), run: () => { location.hash = directory ? folderLink(to) : fileLink(to); } });
      done();
    },
  });
}

function empty(one, done) {
  question({
    title: one ? t("trash.empty_one") : t("trash.empty_all"), text: `${one ? one.path : t("trash.everything")} ${t("trash.for_good")}`, yes: t("trash.destroy"), danger: true,
    command: () => `blockyard trash empty${one ? ` ${one.entry}` : ""}`,
    run: () => remove(one ? `trash/${encodeURIComponent(one.entry)}` : "trash"),
    done: ({ files = 0, bytes: freed = 0 }) => { toast(t("trash.emptied", { n: files, bytes: bytes(freed) })); done(); },
  });
}

const Row = ({ entry, changed }) => html`<tr data-test="trash-row" data-path=${entry.path}>
  <th scope="row" class="name">${entry.path}${entry.directory && "/"}</th><td class="num">${bytes(entry.size)}</td><td class="num">${t("n.files", { n: entry.files })}</td>
  <td class="time">${when(entry.at_unix_ms)}</td>
  <td class="actions"><button class="small" aria-label=${`${t("trash.restore")}: ${entry.path}`} onClick=${() => takeBack(entry, changed)} data-test="restore">${t("trash.restore")}</button>
    <button class="small danger" aria-label=${`${t("trash.destroy")}: ${entry.path}`} onClick=${() => empty(entry, changed)} data-test="destroy">${t("trash.destroy")}</button></td></tr>`;

export function Trash() {
  const pages = usePages(async (last, signal) => {
    const answer = await get("trash", { after: last?.entry }, signal);
    return { ...answer, items: answer.entries };
  }, []);
  const contents = useKnown(({ state }) => state && `${state.trash_files} ${state.trash_bytes}`);
  useChange(contents, 2000, pages.again);
  return html`<div data-test="view-trash">
    <div class="head"><h1>${t("nav.trash")}</h1>
      ${pages.items.length > 0 && html`<button class="danger" onClick=${() => empty(null, pages.again)} data-test="empty-all">${t("trash.empty_all")}</button>`}</div>
    <${Trouble} error=${pages.error} />
    ${pages.items.length > 0
      ? html`<${Table} caption=${t("nav.trash")} below=${html`<${More} pages=${pages} />`}
          columns=${[[t("trash.path")], [t("files.by_size"), "num"], [t("tile.files"), "num"], [t("trash.deleted")], [""]]}>
          ${pages.items.map((entry) => html`<${Row} key=${entry.entry} entry=${entry} changed=${pages.again} />`)}</${Table}>`
      : !pages.busy && !pages.error && html`<div class="card"><${Empty} title=${t("trash.is_empty")}>${t("trash.what")}</${Empty}></div>`}
  </div>`;
}
