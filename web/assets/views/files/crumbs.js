// The way to a file or folder from the root, each part a link.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { folderLink } from "../../api.js";

export function Crumbs({ path, isFile }) {
  const parts = path.split("/").filter(Boolean);
  const last = parts.length - 1;
  return html`<h1 class="crumbs"><a href="#/files/">${t("nav.files")}</a>${parts.map((part, at) => html`<span class="sep" aria-hidden="true"> / </span>${
    at === last ? html`<span class="any" aria-current=${isFile ? undefined : "page"}>${part}</span>` : html`<a class="any" href=${folderLink(parts.slice(0, at + 1).join("/"))}>${part}</a>`}`)}</h1>`;
}
