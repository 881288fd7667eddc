// A table with a caption, on phones a list of its rows.

import { html } from "../html.js";
import { t } from "../i18n.js";

// columns: [[title, class], …]; the rows are the children.
export function Table({ caption, columns, children, below, sortable }) {
  return html`<div class="table" tabindex="0" role="region" aria-label=${caption}>
    <table class=${sortable ? "stack sortable" : "stack"}>
      <caption class="unseen">${caption}</caption>
      <thead><tr>${columns.map(([title, kind]) => html`<th scope="col" class=${kind}>${title || html`<span class="unseen">${t("actions")}</span>`}</th>`)}</tr></thead>
      <tbody>${children}</tbody>
    </table>
    ${below}
  </div>`;
}

// What comes below a list that is loaded page by page.
export const More = ({ pages }) => html`
  ${pages.busy && html`<p class="more dim" role="status">${t("loading")}</p>`}
  ${pages.more && !pages.busy && html`<p class="more"><button onClick=${pages.next} data-test="more">${t("more")}</button></p>`}`;
