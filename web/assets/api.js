// Calls to the JSON API.

import { t } from "./i18n.js";

export class ApiError extends Error {
  constructor(status, kind, message) {
    super(message);
    this.status = status;
    this.kind = kind;
  }
}

// "/a b/c" → "a%20b/c": each part by itself, for the path of a URL.
export const encodePath = (path) => path.split("/").filter(Boolean).map(encodeURIComponent).join("/");
export const contentUrl = (path) => `/api/v1/content/${encodePath(path)}`;
export const archiveUrl = (path) => `/api/v1/archive/${encodePath(path)}`;
export const blockUrl = (id) => `/api/v1/blocks/${encodeURIComponent(id)}`;
export const fileLink = (path) => `#/file/${encodePath(path)}`;
export const folderLink = (path) => `#/files/${encodePath(path)}`;
export const volumeLink = (id) => `#/volume/${encodeURIComponent(id)}`;
export const join = (folder, name) => `${folder.replace(/\/+$/, "")}/${name}`;
export const parent = (path) => path.slice(0, path.lastIndexOf("/")) || "/";
export const nameOf = (path) => path.slice(path.lastIndexOf("/") + 1);

export function errorOf(status, text) {
  try {
    const { kind, message } = JSON.parse(text);
    return new ApiError(status, kind, message ?? kind);
  } catch {
    return new ApiError(status, "failed", t("error.answered", { status: String(status) }));
  }
}

export async function ask(target, options) {
  let response;
  try {
    response = await fetch(target, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "retry", t("error.unreachable"));
  }
  if (!response.ok) throw errorOf(response.status, await response.text());
  return response;
}

// get("files", {path: "/a"}) asks /api/v1/files?path=%2Fa; a list is given as the same name several times.
export async function get(name, parameters = {}, signal) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) if (one !== undefined && one !== "") query.append(key, one);
  }
  return (await ask(`/api/v1/${name}?${query}`, { signal })).json();
}

async function send(method, name, body, signal) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const response = await ask(`/api/v1/${name}`, { method, headers, body: body && JSON.stringify(body), signal });
  const text = await response.text();
  return text ? JSON.parse(text) : {};
}

export const post = (name, body, signal) => send("POST", name, body, signal);
export const remove = (name) => send("DELETE", name);
export const removePath = (path, recursive) => remove(`content/${encodePath(path)}${recursive ? "?recursive" : ""}`);
export const restore = (entry, to) => post(`trash/${encodeURIComponent(entry)}/restore`, to ? { to } : {});
