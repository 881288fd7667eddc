// Sends one block. XMLHttpRequest, because fetch tells no progress of what it sends.

import { ApiError, errorOf } from "../api.js";
import { t } from "../i18n.js";

export function sendBlock(id, index, blob, crc, signal, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const stop = () => request.abort();
    signal.addEventListener("abort", stop);
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    request.onerror = () => reject(new ApiError(0, "retry", t("up.broke")));
    request.onload = () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(errorOf(request.status, request.responseText));
    };
    request.onloadend = () => signal.removeEventListener("abort", stop);
    request.open("PUT", `/api/v1/uploads/${encodeURIComponent(id)}/blocks/${index}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.setRequestHeader("x-crc32c", crc);
    request.send(blob);
  });
}
