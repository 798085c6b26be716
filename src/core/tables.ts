// The memory of a control plane: how long it is, and its tables laid out in it by the core. Layer: core.
import * as abi from "../../assembly/abi.js";
import { MisuseError } from "../errors.js";
import type { LaneToken } from "./lanes.js";
import { isSharedMemory, LinearMemory, type MemoryFactory } from "./linear-memory.js";
import type { WasmSource } from "./module-instance.js";
import {
  type CoreExports,
  compileCore,
  compileSharedCore,
  instantiateCore,
  instantiateSharedCore,
} from "./wasm-modules.js";

export interface ControlPlaneOptions {
  /** Most blocks that can be live at once; at most 2^21 − 1. */
  readonly slotCapacity: number;
  /** Most arenas open at once. */
  readonly arenaCapacity: number;
  /** Room for the arenas' trees, slabs and caches: {@link arenaMetadataBytesMax} over all of them. */
  readonly metadataBytes: number;
  /** The kind of its memories decides which build of the core runs on them. */
  readonly createMemory: MemoryFactory;
  readonly wasm?: WasmSource | undefined;
}

/** Handles of one batch: enough that the calls cost next to nothing, few enough to be no burden. */
const BATCH_HANDLES_MAX = 1024;

/** A laid out control plane, and the instance of the core that laid it out. */
export interface Tables {
  readonly core: CoreExports;
  readonly memory: LinearMemory;
  readonly place: Omit<LaneToken, "memory">;
  /** Bytes behind the tables, for the handles of a batch. */
  readonly batchBytes: number;
}

/**
 * Makes the memory and lays the tables out.
 *
 * @throws {MisuseError} `bad-option` — the tables do not fit 4 GiB.
 * @throws {OutOfMemoryError} The platform refuses the memory for them.
 */
export async function createTables(options: ControlPlaneOptions): Promise<Tables> {
  // The tables' size is a question to the module, and the module needs a memory: ask a throwaway
  // instance on the smallest one.
  const { slotCapacity, arenaCapacity, metadataBytes, createMemory } = options;
  const smallest = LinearMemory.create(1, createMemory);
  const isShared = isSharedMemory(smallest.wasm);
  const module = await (isShared ? compileSharedCore : compileCore)(options.wasm);
  const lane = abi.LANE_FIRST;
  const open = (wasm: WebAssembly.Memory) =>
    isShared ? instantiateSharedCore(wasm, module, lane) : instantiateCore(wasm, module);
  const probe = await open(smallest.wasm);
  const base = probe.controlHeapBase() >>> 0;
  const isDescribable = metadataBytes < 2 ** 32;
  const tableBytes = isDescribable
    ? probe.controlBytes(slotCapacity, arenaCapacity, metadataBytes) >>> 0
    : 0;
  if (tableBytes === 0) {
    throw new MisuseError("bad-option", "the control plane does not fit: use a smaller budget");
  }
  const batchHandles = Math.min(Math.ceil(slotCapacity / 8) * 8, BATCH_HANDLES_MAX);
  const batchBytes = batchHandles * abi.BATCH_ENTRY_BYTES;
  const memory = LinearMemory.create(base + tableBytes + batchBytes, createMemory);
  const core = await open(memory.wasm);
  const totalBytes = memory.byteLength - batchBytes - base;
  const status = core.controlInit(base, totalBytes, slotCapacity, arenaCapacity) >>> 0;
  if (status !== abi.STATUS_OK) {
    throw new MisuseError("bad-option", `the core refused its configuration (status ${status})`);
  }
  return { core, memory, place: { module, base, lane }, batchBytes };
}
