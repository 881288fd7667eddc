// The chains that write now, put together from what each volume says of its hop.

const hostOf = (state, volume) => state.servers[volume.server]?.host || volume.server.replace(/:\d+$/, "");

// [{client, hops: [{volume, id, flow}, …]}, …], in an order that stays. A hop that nobody tells of has no flow.
export function chains(state) {
  const volumes = Object.values(state.volumes);
  const follow = (hops, volume, id, flow) => {
    hops.push({ volume, id, flow });
    // A ring can't be, but news of two moments could look like one.
    if (!flow?.next || hops.length > 16) return hops;
    const next = state.volumes[flow.next];
    const from = [hostOf(state, volume), volume.server, volume.server.replace(/:\d+$/, "")];
    const flows = next?.flows?.filter(({ position }) => position === flow.position + 1) ?? [];
    return follow(hops, next, flow.next, flows.find((one) => from.includes(one.from)) ?? (flows.length === 1 ? flows[0] : undefined));
  };
  return volumes.flatMap((volume) => (volume.flows ?? []).filter(({ position }) => position === 0)
    .map((flow) => ({ key: `${flow.from} ${volume.id} ${flow.next}`, client: flow.from, hops: follow([], volume, volume.id, flow) })))
    .sort((one, other) => (one.key < other.key ? -1 : 1));
}
