// Seam: what the machine is like, as far as it changes how memory is laid out. Presets are plain
// data; detection lives in the platform twins beside this file, measuring in `calibrate`.
// docs/profiles.md says what each field sets.

/** What is known of a tier's device. Rates are bytes per second. */
export interface TierFigures {
  readonly readBytesPerSecond: number;
  readonly writeBytesPerSecond: number;
  /** Milliseconds before the first byte. Default: 0. */
  readonly latencyMs?: number;
  /** Of the device. Default: unknown. */
  readonly capacityBytes?: number;
}

/** What is known of the machine; a field that is absent is unknown. */
export interface MachineFacts {
  readonly coreCount?: number;
  /** Threads that can run at once, within what a container may use. */
  readonly threadCount?: number;
  /** Memory that the process may have, a container's limit included. */
  readonly memoryBytes?: number;
  /** Data cache of a core. */
  readonly l1Bytes?: number;
  /** Of a core. */
  readonly l2Bytes?: number;
  /** Of all cores. */
  readonly l3Bytes?: number;
  readonly cacheLineBytes?: number;
  /** Bytes of f32 that the threads of a warp read together. */
  readonly warpBytes?: number;
  readonly pageBytes?: number;
}

export interface HardwareProfile {
  readonly name: string;
  /** Smallest block of an arena; a power of two, 16 to 2^20. */
  readonly granuleBytes: number;
  /** Tensors of at least this length start at a multiple of it; a power of two, 1 to 65,536. Default: 1. */
  readonly alignmentBytes?: number;
  /** Arenas are at most this long, and at most a quarter of the RAM budget. */
  readonly arenaBytesMax: number;
  /** Bytes moved between an arena and a tier in one step. */
  readonly chunkBytes: number;
  /** Transfers in flight at once. Short records that are read in place are not counted. */
  readonly queueDepth: number;
  /** RAM budget when the caller gives none. */
  readonly ramBudgetBytes: number;
  /** Workers that may code what moves between tiers, 0 to 16. Default: 0. */
  readonly codecWorkerCount?: number;
  /** As the option `watermarks`, where that is not given. Default: 0.8 and 0.7. */
  readonly watermarks?: { readonly high: number; readonly low: number };
  /** As the option `codecs.default`, where that is not given and there is no warm tier. Default: `"auto"`. */
  readonly codec?: "auto" | "raw" | "lossless" | "when-full";
  /** Guesses that an access may prefetch, 1 to 64. Default: 8. */
  readonly prefetchDepthMax?: number;
  /** Expected of loads before any has been measured. Default: unknown. */
  readonly tiers?: { readonly [tier in "gpu" | "ram" | "ssd" | "hdd"]?: TierFigures };
  /** Says what the figures are for; sets nothing. */
  readonly machine?: MachineFacts;
}

const MIB = 2 ** 20;
const GB = 1e9;

/** Safe anywhere: half a GiB of RAM, arenas of 64 MiB. */
const generic: HardwareProfile = {
  name: "generic",
  granuleBytes: 64,
  arenaBytesMax: 64 * MIB,
  chunkBytes: MIB,
  queueDepth: 2,
  ramBudgetBytes: 512 * MIB,
};

/** A tier as fast in both directions. */
function tierOf(gigabytesPerSecond: number, gigabytes: number): TierFigures {
  const bytesPerSecond = gigabytesPerSecond * GB;
  return {
    readBytesPerSecond: bytesPerSecond,
    writeBytesPerSecond: bytesPerSecond,
    capacityBytes: gigabytes * GB,
  };
}

const presets: readonly HardwareProfile[] = [
  generic,
  {
    ...generic,
    name: "phone",
    arenaBytesMax: 32 * MIB,
    chunkBytes: MIB / 2,
    ramBudgetBytes: 256 * MIB,
    codecWorkerCount: 1,
    // Its flash is slow to write: earlier, and fewer guesses.
    watermarks: { high: 0.7, low: 0.6 },
    prefetchDepthMax: 4,
  },
  { ...generic, name: "laptop", ramBudgetBytes: 2048 * MIB, codecWorkerCount: 2 },
  {
    ...generic,
    name: "desktop",
    arenaBytesMax: 128 * MIB,
    ramBudgetBytes: 4096 * MIB,
    codecWorkerCount: 3,
  },
  {
    ...generic,
    name: "server",
    arenaBytesMax: 256 * MIB,
    queueDepth: 4,
    ramBudgetBytes: 8192 * MIB,
    codecWorkerCount: 4,
  },
  // Intel i5-10210U, an NVIDIA device of compute capability 6.1, an NVMe disk.
  {
    ...generic,
    name: "i5-10210u-sm61-nvme",
    alignmentBytes: 128,
    queueDepth: 4,
    ramBudgetBytes: 8 * GB,
    codecWorkerCount: 3,
    tiers: { gpu: tierOf(200, 8), ram: tierOf(50, 8), ssd: tierOf(3, 512), hdd: tierOf(0.2, 1000) },
    machine: {
      coreCount: 4,
      threadCount: 8,
      l1Bytes: 32_768,
      l2Bytes: 262_144,
      l3Bytes: 6 * MIB,
      cacheLineBytes: 64,
      warpBytes: 128,
      pageBytes: 4096,
    },
  },
];

/** All presets by name. */
export const HARDWARE_PROFILES: ReadonlyMap<string, HardwareProfile> = new Map(
  presets.map((preset) => [preset.name, preset]),
);

/** More workers than this code faster than disks and the caller's thread take it. */
const CODEC_WORKERS_MAX = 4;

/**
 * A profile for a machine with this much memory: an eighth of it for tensors.
 *
 * @param memoryBytes null: nobody tells, and it gets what is safe on a phone.
 * @param threadCount Threads that can run at once; one is the caller's. null: nobody tells.
 */
export function profileForMemory(
  name: string,
  memoryBytes: number | null,
  threadCount: number | null,
): HardwareProfile {
  const safe = HARDWARE_PROFILES.get("phone") as HardwareProfile;
  const { arenaBytesMax, ramBudgetBytes } =
    memoryBytes === null
      ? safe
      : { ...generic, ramBudgetBytes: Math.max(64 * MIB, Math.floor(memoryBytes / 8)) };
  return {
    ...{ ...generic, name, arenaBytesMax, ramBudgetBytes },
    codecWorkerCount: Math.min(CODEC_WORKERS_MAX, Math.max(0, (threadCount ?? 1) - 1)),
    machine: {
      ...(memoryBytes !== null && { memoryBytes }),
      ...(threadCount !== null && { threadCount }),
    },
  };
}
