// The codec of records: units of docs/codec-format.md, chosen by the adaptive compressor. What does the
// work is loaded when it is first used.
import type { Clock } from "../clock.js";
import type { MemoryFactory } from "../core/linear-memory.js";
import type { WasmSource } from "../core/module-instance.js";
import {
  CODEC_UNITS,
  type Codec,
  type CodecWorkers,
  type StartCodecWorker,
  type UnitCoder,
} from "./codec.js";

/** Most bytes of the original in a unit. A reader needs room for one such unit. */
const PART_BYTES_MAX = 65536;
/** Header, chunk table and code tables of a unit whose part does not get shorter. */
const UNIT_OVERHEAD_BYTES = 1024;
/** Enough for a part of every element type; see `unit-coder.ts`. */
const WORKSPACE_BYTES = 2 ** 20;
/** Bytes of the original that a worker is given together, and of their units at most. */
const JOB_BYTES = 4 * PART_BYTES_MAX;
const JOB_UNIT_BYTES = JOB_BYTES + 16 * UNIT_OVERHEAD_BYTES;
/** Jobs that a worker has room for, and the buffers of each: in, out, and what is kept to be done again. */
const JOB_BUFFERS = 2 * 3;

/** Bytes that a coding worker takes: its workspace, and its jobs. */
export const CODEC_WORKER_BYTES = WORKSPACE_BYTES + JOB_BUFFERS * JOB_UNIT_BYTES;

export interface UnitCodecOptions {
  readonly createMemory: MemoryFactory;
  /** kernels.wasm; default: the one that the package carries. */
  readonly wasm?: WasmSource | undefined;
  /** Names of codecs that are not chosen. Default: none. */
  readonly without?: readonly string[];
  /** Default: no workers. */
  readonly workers?: {
    /** At least 1. */
    readonly workerCount: number;
    readonly start: StartCodecWorker;
    /** Compiled. */
    readonly kernels: WasmSource;
    readonly clock: Clock;
  } | null;
}

export function unitCodec(options: UnitCodecOptions): Codec {
  const { createMemory, wasm, without = [], workers = null } = options;
  const unitBytesMax = PART_BYTES_MAX + UNIT_OVERHEAD_BYTES;
  const lengths = {
    workspaceBytes: WORKSPACE_BYTES,
    partBytesMax: PART_BYTES_MAX,
    unitBytesMax,
    without,
  };
  let loading: Promise<UnitCoder> | null = null;
  let startingWorkers: Promise<CodecWorkers | null> | null = null;
  const loadOnce = async () => {
    const { createUnitCoder } = await import("./unit-coder.js");
    return createUnitCoder({ ...lengths, createMemory, wasm });
  };
  const startWorkers = async () => {
    if (workers === null) return null;
    const { codecWorkers } = await import("./codec-workers.js");
    const started = codecWorkers({
      ...{ ...workers, lengths },
      ...{ jobBytesMax: JOB_BYTES, jobUnitBytesMax: JOB_UNIT_BYTES },
    });
    await started.load();
    return started;
  };
  return {
    id: CODEC_UNITS,
    name: "units",
    unitBytesMax,
    workspaceBytes: WORKSPACE_BYTES,
    load: () => {
      loading ??= loadOnce();
      return loading;
    },
    loadWorkers: () => {
      startingWorkers ??= startWorkers();
      return startingWorkers;
    },
  };
}
