// Calls to the JSON API.

export class ApiError extends Error {
  constructor(status, kind, message) {
    super(message);
    this.status = status;
    this.kind = kind;
  }
}

// "/a b/c" → "a%20b/c": each part by itself, for the path of a URL.
export function encodePath(path) {
  return path.split("/").filter(Boolean).map(encodeURIComponent).join("/");
}

export function contentUrl(path) {
  return `/api/v1/content/${encodePath(path)}`;
}

export function join(folder, name) {
  return `${folder === "/" ? "" : folder.replace(/\/+$/, "")}/${name}`;
}

export function parent(path) {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

export async function errorOf(response) {
  try {
    const { kind, message } = await response.json();
    return new ApiError(response.status, kind, message);
  } catch {
    return new ApiError(response.status, "failed", `the nameserver answered ${response.status}`);
  }
}

async function call(target, options) {
  let response;
  try {
    response = await fetch(target, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "retry", "the nameserver can't be reached");
  }
  if (!response.ok) throw await errorOf(response);
  return response.json();
}

// get("files", {path: "/a"}) asks /api/v1/files?path=%2Fa
export function get(name, parameters = {}, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const query = given.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
  return call(`/api/v1/${name}${query ? `?${query}` : ""}`, { signal, cache: "no-store" });
}

export function remove(path, recursive) {
  return call(contentUrl(path) + (recursive ? "?recursive" : ""), { method: "DELETE" });
}

export function makeFolder(path) {
  return call(`/api/v1/folders/${encodePath(path)}`, { method: "POST" });
}

export function rename(from, to) {
  return call("/api/v1/rename", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ from, to }),
  });
}
