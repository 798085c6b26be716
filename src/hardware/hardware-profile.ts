// Seam: what the machine is like, as far as it changes how memory is laid out. Presets are plain
// data; detection lives in the platform twins beside this file.

export interface HardwareProfile {
  readonly name: string;
  /** Smallest block of an arena; a power of two, 16 to 2^20. */
  readonly granuleBytes: number;
  /** Arenas are at most this long, and at most a quarter of the RAM budget. */
  readonly arenaBytesMax: number;
  /** Bytes moved between an arena and a tier in one step. */
  readonly chunkBytes: number;
  /** Transfers in flight at once. */
  readonly queueDepth: number;
  /** RAM budget when the caller gives none. */
  readonly ramBudgetBytes: number;
  /** Workers that may code what moves between tiers, 0 to 16. Default: 0. */
  readonly codecWorkerCount?: number;
}

const MIB = 2 ** 20;

/** Safe anywhere: half a GiB of RAM, arenas of 64 MiB. */
const generic: HardwareProfile = {
  name: "generic",
  granuleBytes: 64,
  arenaBytesMax: 64 * MIB,
  chunkBytes: MIB,
  queueDepth: 2,
  ramBudgetBytes: 512 * MIB,
};

/** All presets by name. */
export const HARDWARE_PROFILES: ReadonlyMap<string, HardwareProfile> = new Map([
  ["generic", generic],
  ["phone", { ...generic, name: "phone", arenaBytesMax: 32 * MIB, ramBudgetBytes: 256 * MIB }],
  ["laptop", { ...generic, name: "laptop", ramBudgetBytes: 2048 * MIB }],
  [
    "server",
    {
      ...generic,
      name: "server",
      arenaBytesMax: 256 * MIB,
      queueDepth: 4,
      ramBudgetBytes: 8192 * MIB,
    },
  ],
]);

/** More workers than this code faster than disks and the caller's thread take it. */
const CODEC_WORKERS_MAX = 4;

/**
 * A profile for a machine with this much memory: an eighth of it for tensors.
 *
 * @param coreCount Threads that can run at once; one is the caller's.
 */
export function profileForMemory(
  name: string,
  memoryBytes: number,
  coreCount: number,
): HardwareProfile {
  const ramBudgetBytes = Math.max(64 * MIB, Math.floor(memoryBytes / 8));
  const codecWorkerCount = Math.min(CODEC_WORKERS_MAX, Math.max(0, coreCount - 1));
  return { ...generic, name, ramBudgetBytes, codecWorkerCount };
}
