// A look into a file: the beginning of a text, or an image. It is shown as nothing but that.

import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { ask, contentUrl } from "../../api.js";
import { useAnswer } from "../../ui/use.js";

const TEXT_MAX = 64 * 1024;
const IMAGE_MAX = 16 * 1024 * 1024;
const IMAGES = /\.(png|jpe?g|gif|webp|avif|bmp|ico|svg)$/i;
const TEXTS = /\.(txt|md|log|csv|tsv|json|ya?ml|toml|xml|html?|css|js|ts|rs|py|sh|c|h|cpp|go|java|conf|ini|sql)$|^[^.]*$/i;

function Text({ file }) {
  const { data, error } = useAnswer(async (signal) => {
    const response = await ask(`${contentUrl(file.path)}?preview`, { signal, headers: { range: `bytes=0-${TEXT_MAX - 1}` } });
    return (await response.text()).slice(0, TEXT_MAX);
  }, [file.path, file.etag]);
  if (error) return html`<p class="note">${t("file.no_preview")} ${error.message}</p>`;
  if (data === undefined) return html`<p class="note">${t("loading")}</p>`;
  return html`<pre class="preview card" tabindex="0" role="region" aria-label=${t("file.preview")} data-test="preview-text">${data}</pre>
    ${file.size > TEXT_MAX && html`<p class="note">${t("file.first_part")}</p>`}`;
}

export function Preview({ file }) {
  const type = file.content_type ?? "";
  if (file.size === 0) return null;
  const image = type.startsWith("image/") || (!type && IMAGES.test(file.name));
  const text = type.startsWith("text/") || /json|xml|javascript/.test(type) || ((!type || type === "application/octet-stream") && TEXTS.test(file.name));
  if (!image && !text) return null;
  return html`<section><h2>${t("file.preview")}</h2>
    ${!image ? html`<${Text} file=${file} />`
      : file.size > IMAGE_MAX ? html`<p class="note">${t("file.too_large")}</p>`
        : html`<img class="preview card" src=${`${contentUrl(file.path)}?preview`} alt=${t("file.image", { name: file.name })} data-test="preview-image" />`}
  </section>`;
}
