// Which arena of a pool to empty into its others, so that it can be given back. Only chooses: the
// compactor moves.
import type { ControlPlane } from "../core/control-plane.js";
import type { PoolArena } from "./arena-shelf.js";
import type { MemoryPool } from "./memory-pool.js";

/**
 * What stays free in the other arenas, in parts of the arena that is given back: a pool that needed it
 * again at once would have moved everything for nothing.
 */
export const EVACUATION_MARGIN = 1 / 8;

/** One plan of the core, of those that follow one another. */
export type PlanStep =
  /** Moves blocks into another arena. */
  | { readonly type: "move"; readonly into: PoolArena }
  /** Compacts the target first: it has the bytes, but not in a row. */
  | { readonly type: "pack"; readonly into: PoolArena; readonly needBytes: number };

export interface Evacuation {
  readonly source: PoolArena;
  readonly steps: PlanStep[];
}

/** An arena, and the bytes that are free in it. */
interface Room {
  readonly opened: PoolArena;
  readonly freeBytes: number;
  readonly grantedBytes: number;
  readonly isPinned: boolean;
}

/**
 * The arena of a pool with the least in it, if that is to be had elsewhere: nothing in it is pinned, no
 * other thread knows it, the others have room for all of it and the margin, and for its longest block in
 * a row, as it is or after compaction.
 *
 * @returns null if there is none. Cost: one look at each arena; where the free space is in pieces, at each
 *   block too.
 */
export function chooseEvacuation(core: ControlPlane, pool: MemoryPool): Evacuation | null {
  const rooms: Room[] = pool.arenas.map((opened) => {
    const { freeBytes, grantedBytes, pinnedCount } = core.arenaCounters(opened.id);
    return { opened, freeBytes, grantedBytes, isPinned: pinnedCount > 0 };
  });
  const isSource = ({ opened, freeBytes, isPinned, grantedBytes }: Room) =>
    !opened.isShared && !isPinned && freeBytes > 0 && grantedBytes > 0;
  const source = rooms
    .filter(isSource)
    .reduce<Room | null>(
      (least, each) => (least !== null && least.grantedBytes <= each.grantedBytes ? least : each),
      null,
    );
  if (source === null) return null;
  // The fullest first, so that what is free stays together.
  const targets = rooms
    .filter((each) => each !== source && each.freeBytes > 0 && !each.opened.isHeld)
    .sort((left, right) => left.freeBytes - right.freeBytes);
  const roomBytes = targets.reduce((sum, { freeBytes }) => sum + freeBytes, 0);
  const marginBytes = source.opened.arena.capacityBytes * EVACUATION_MARGIN;
  if (roomBytes < source.grantedBytes + marginBytes) return null;
  const { grantedBytes } = source;
  const isRoomy = targets.some(({ opened }) => core.longestFreeBytes(opened.id) >= grantedBytes);
  if (!isRoomy) {
    const needBytes = longestBlockBytes(core, source.opened);
    const canHold = (each: Room) =>
      core.longestFreeBytes(each.opened.id) >= needBytes ||
      (!each.isPinned && each.freeBytes >= needBytes);
    if (!targets.some(canHold)) return null;
  }
  const steps = targets.map(({ opened }): PlanStep => ({ type: "move", into: opened }));
  return { source: source.opened, steps };
}

/**
 * What to do about the blocks that found no place: compact the target with the most room and try again.
 *
 * @returns No step if no target has the bytes.
 */
export function packForRest(core: ControlPlane, pool: MemoryPool, source: PoolArena): PlanStep[] {
  const needBytes = longestBlockBytes(core, source);
  let most: PoolArena | null = null;
  let mostBytes = needBytes;
  for (const opened of pool.arenas) {
    const { freeBytes } = core.arenaCounters(opened.id);
    if (opened === source || opened.isHeld || freeBytes < mostBytes) continue;
    most = opened;
    mostBytes = freeBytes;
  }
  if (most === null) return [];
  return [
    { type: "pack", into: most, needBytes },
    { type: "move", into: most },
  ];
}

function longestBlockBytes(core: ControlPlane, opened: PoolArena): number {
  let bytes = 0;
  for (const block of core.blocks(opened.id)) bytes = Math.max(bytes, block.grantedBytes);
  return bytes;
}
