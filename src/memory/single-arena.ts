// One control plane with one arena: what the low-level allocators stand on.
import { ARENA_CAPACITY_MAX, ControlPlane, SLOT_CAPACITY_MAX } from "../core/control-plane.js";
import { createUnsharedMemory, type MemoryFactory } from "../core/linear-memory.js";
import { arenaMetadataBytesMax } from "../core/metadata-bytes.js";
import type { WasmSource } from "../core/module-instance.js";
import { MisuseError } from "../errors.js";
import { checkBytes } from "../types.js";

export interface SingleArenaOptions {
  /**
   * Bytes to manage, 1 to 2^32; need not be a power of two. Rounded down to whole granules. From
   * 1 MiB on, with granules of 64 bytes, they are cut into slabs and runs of 4 KiB granules.
   */
  readonly totalBytes: number;
  /** Smallest block; a power of two, 16 to 2^20. Default: 64. */
  readonly granuleBytes?: number;
  /** Most blocks live at once. Default: one per granule, at most 2^20. */
  readonly blockCountMax?: number;
  readonly wasm?: WasmSource;
  readonly createMemory?: MemoryFactory;
}

export const SINGLE_ARENA_OPTION_NAMES = [
  "totalBytes",
  "granuleBytes",
  "blockCountMax",
  "wasm",
  "createMemory",
];

/** @throws {MisuseError} `bad-size`, `bad-option`. */
export async function openSingleArena(options: SingleArenaOptions): Promise<{
  readonly core: ControlPlane;
  readonly arena: number;
  readonly capacityBytes: number;
}> {
  const totalBytes = checkBytes(options.totalBytes, "totalBytes", 2 ** 32);
  const granuleBytes = checkBytes(options.granuleBytes ?? 64, "granuleBytes", 2 ** 20);
  const granuleShift = Math.log2(granuleBytes);
  if (granuleShift % 1 !== 0 || granuleShift < 4) {
    throw new MisuseError("bad-size", "granuleBytes is a power of two from 16 to 2^20");
  }
  const granules = Math.floor(totalBytes / granuleBytes);
  if (granules < 1 || granules > 2 ** 26) {
    throw new MisuseError("bad-size", "totalBytes is 1 to 2^26 granules");
  }
  const blockCountMax = checkBytes(
    options.blockCountMax ?? Math.min(granules, 2 ** 20),
    "blockCountMax",
    SLOT_CAPACITY_MAX - 1,
  );
  const capacityBytes = granules * granuleBytes;
  const core = await ControlPlane.create({
    slotCapacity: blockCountMax + 1,
    arenaCapacity: Math.min(4, ARENA_CAPACITY_MAX),
    metadataBytes: arenaMetadataBytesMax(capacityBytes, granuleBytes, capacityBytes),
    createMemory: options.createMemory ?? createUnsharedMemory,
    wasm: options.wasm,
  });
  const arena = core.openArena(0, capacityBytes, granuleShift);
  if (arena === 0) throw new MisuseError("bad-size", "the metadata does not fit");
  return { core, arena, capacityBytes };
}
