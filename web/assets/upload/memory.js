// Unfinished uploads, remembered by the browser over reloads. Without a memory they last as long as the page.

const STORE = "jobs";
const KEPT = ["key", "path", "name", "size", "mtime", "type", "overwrite", "id", "blockBytes", "crcs", "committed", "handle"];

let opened = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("blockyard", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function within(mode, act) {
  try {
    const store = (await database()).transaction(STORE, mode).objectStore(STORE);
    return await new Promise((resolve, reject) => {
      const request = act(store);
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  } catch {
    return undefined;
  }
}

export const keep = (job) => within("readwrite", (store) => store.put(Object.fromEntries(KEPT.map((name) => [name, job[name]]))));
export const forget = (job) => within("readwrite", (store) => store.delete(job.key));
export const kept = async () => (await within("readonly", (store) => store.getAll())) ?? [];

// Whether this tab is the one that goes on with a job: as long as it lives, no other is.
export function claim(key) {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((resolve) => {
    navigator.locks.request(`blockyard upload ${key}`, { ifAvailable: true }, (lock) => {
      resolve(Boolean(lock));
      return lock ? new Promise(() => {}) : undefined;
    }).catch(() => resolve(true));
  });
}
