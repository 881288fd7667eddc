// The queues of repair, the most urgent first.

export const CLASSES = ["one_left", "under", "leaving", "misplaced"];

// All that waits: {blocks, bytes}
export const waiting = (repair) => CLASSES.reduce((sum, name) => ({
  blocks: sum.blocks + (repair[name]?.blocks ?? 0), bytes: sum.bytes + (repair[name]?.bytes ?? 0),
}), { blocks: 0, bytes: 0 });
