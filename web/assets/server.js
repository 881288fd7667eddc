// One server: each of its volumes with the blocks it holds.

import { badge, empty, h, replace, selecting } from "./dom.js";
import { ago } from "./format.js";
import { volume } from "./volume.js";

export function server(root, address) {
  const head = h("div", { class: "head" });
  const list = h("div");
  const shown = new Map();
  replace(root, head, list);

  function update(status) {
    const found = status.servers.find((server) => server.address === address);
    if (!found) return replace(list, empty("No such server", `${address} has not joined since the nameserver started.`));
    if (!selecting(head)) {
      replace(head, h("h1", { class: "mono" }, address), badge(found.state),
        h("span", { class: "legend" }, `${found.host} · zone ${found.zone} · version ${found.version} · heard ${ago(found.since_heartbeat_ms)}`));
    }
    for (const { id } of found.volumes) {
      if (shown.has(id)) continue;
      const part = h("section", { class: "part" });
      list.append(part);
      shown.set(id, volume(part, id));
    }
    for (const view of shown.values()) view.update(status);
  }

  return { update, stop: () => shown.forEach((view) => view.stop()) };
}
