// The cluster at a glance: health in a sentence, figures, servers with their volumes.

import { badge, empty, h, look, meter, replace, selecting } from "./dom.js";
import { ago, bytes, count, duration, plural, volumeName } from "./format.js";

function tile(title, value, note, wide) {
  return h("div", { class: wide ? "tile wide" : "tile" }, h("dt", {}, title), h("dd", {}, value, note ? h("small", {}, note) : null));
}

function health({ health }) {
  const [tone, sign] = look(health.level);
  return h("section", { class: `health ${tone}`, "aria-label": "Health" },
    h("span", { class: "sign", "aria-hidden": "true" }, sign),
    h("h1", {}, health.sentence));
}

function figures(status) {
  const used = status.capacity_bytes ? Math.round((100 * status.used_bytes) / status.capacity_bytes) : 0;
  const space = h("span", {}, `${bytes(status.used_bytes)} of ${bytes(status.capacity_bytes)}`);
  const tiles = [
    tile("Space used", space, [`${used}% · ${bytes(status.free_bytes)} free`, meter(status.used_bytes, status.capacity_bytes, "Space used")], true),
    tile("Files", count(status.files), `${bytes(status.file_bytes)} in ${plural(status.directories, "folder")}`),
    tile("Blocks", count(status.blocks), `at most ${bytes(status.block_bytes)} each`),
    tile("Replication", `${status.replication} ×`, `at least ${status.min_replicas} to accept a write`),
    tile("Too few replicas", count(status.under_replicated_blocks), plural(status.repairing, "copy under way", "copies under way")),
    tile("Unreadable blocks", count(status.missing_blocks), plural(status.corrupt_replicas, "damaged replica")),
    tile("Uploads now", count(status.uploads), plural(status.pending_deletes, "deletion queued", "deletions queued")),
    tile("Nameserver", h("span", { class: "mono" }, status.address), `version ${status.version} · up ${duration(status.uptime_ms)}`, true),
    tile("Cluster", h("span", { class: "mono" }, status.cluster.slice(0, 8)), `epoch ${count(status.epoch)} · journal ${bytes(status.journal_bytes)}`, true),
  ];
  return h("dl", { class: "tiles" }, tiles);
}

function volume(volume) {
  const facts = [plural(volume.blocks, "block"), `${bytes(volume.free_bytes)} free`];
  if (volume.corrupt) facts.push(`${count(volume.corrupt)} damaged`);
  if (volume.suspects) facts.push(`${count(volume.suspects)} unverified`);
  if (volume.io_errors) facts.push(plural(volume.io_errors, "I/O error"));
  if (volume.reason) facts.push(volume.reason);
  return h("a", { class: "volume", href: `#/volume/${volume.id}`, "data-key": volume.id, title: "See the blocks it holds" },
    h("span", { class: "row" }, h("b", {}, volumeName(volume)), badge(volume.state)),
    meter(volume.used_bytes, volume.capacity_bytes, "Space used"),
    h("span", { class: "note" }, `${bytes(volume.used_bytes)} of ${bytes(volume.capacity_bytes)} · ${facts.join(" · ")}`));
}

function server(server) {
  const facts = [server.host, server.zone && `zone ${server.zone}`, `version ${server.version}`, `heard ${ago(server.since_heartbeat_ms)}`];
  return h("article", { class: "card" },
    h("header", {}, h("h3", { class: "mono" }, h("a", { href: `#/server/${server.address}`, "data-key": server.address, title: "See the blocks it holds" }, server.address)), badge(server.state)),
    h("p", { class: "sub" }, facts.filter(Boolean).join(" · ")),
    server.volumes.map(volume));
}

export function overview(root) {
  function update(status) {
    if (selecting(root)) return;
    replace(root, health(status), figures(status),
      h("h2", {}, "Servers"),
      status.servers.length
        ? h("div", { class: "servers" }, status.servers.map(server))
        : h("div", { class: "card" }, empty("No dataserver yet", `Start one with: blockyard dataserver --volume DIR --nameserver ${status.address}`)));
  }
  return { update };
}
