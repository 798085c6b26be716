// Where every block lies, as plain data for maps that people look at. Loaded when it is first asked for.
import type { Directory } from "../cache/directory.js";
import type { TensorRecord } from "../cache/tensor-record.js";
import type { ControlPlane } from "../core/control-plane.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { TensorKind } from "../types.js";

/** One live block. What lies between two blocks is free, or kept for the next request of its size. */
export interface MappedBlock {
  /** Bytes from the arena's base. */
  readonly offset: number;
  /** Bytes of the block: what was requested, rounded up. */
  readonly byteLength: number;
  readonly requestedBytes: number;
  readonly kind: TensorKind;
  /** The tensor's id; null for an anonymous tensor, and for a block that belongs to none. */
  readonly id: string | null;
  /** It neither moves nor leaves at this moment. */
  readonly isPinned: boolean;
}

export interface MappedArena {
  /** Its number in this memory; used again after the arena was closed. */
  readonly id: number;
  readonly kind: TensorKind;
  /** Bytes that the arena manages. */
  readonly byteLength: number;
  /** Lowest offset first; they do not overlap. */
  readonly blocks: readonly MappedBlock[];
}

/** The open arenas of a memory at one moment. Survives `JSON.stringify`. */
export interface MemoryMap {
  /** By kind, and within a kind in the order in which they are asked for room. */
  readonly arenas: readonly MappedArena[];
}

/** The parts of a memory that know of its blocks. */
export interface MapSources {
  readonly core: ControlPlane;
  readonly pools: ReadonlyMap<unknown, MemoryPool>;
  readonly directory: Directory;
}

/**
 * Lists the live blocks of all open arenas, those that worker threads own included.
 *
 * @remarks Changes nothing. Cost: one walk over the slot table and one over the tensors, and a sort.
 */
export function collectMap({ core, pools, directory }: MapSources): MemoryMap {
  const owners = new Map<number, TensorRecord>();
  for (const record of directory) if (record.isResident) owners.set(record.slot, record);
  const arenas: (MappedArena & { readonly blocks: MappedBlock[] })[] = [];
  const byId = new Map<number, (typeof arenas)[number]>();
  for (const { kind, arenas: opened } of pools.values()) {
    for (const { id, arena } of opened) {
      const mapped = { id, kind, byteLength: arena.capacityBytes, blocks: [] };
      arenas.push(mapped);
      byId.set(id, mapped);
    }
  }
  for (const { slot, offset, grantedBytes, requestedBytes, pinCount } of core.blocks()) {
    const arena = byId.get(core.arenaOf(slot));
    arena?.blocks.push({
      offset,
      byteLength: grantedBytes,
      requestedBytes,
      kind: arena.kind,
      id: owners.get(slot)?.id ?? null,
      isPinned: pinCount > 0,
    });
  }
  for (const { blocks } of arenas) blocks.sort((left, right) => left.offset - right.offset);
  return { arenas };
}
