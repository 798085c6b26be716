// The codec of records: units of docs/codec-format.md, chosen by the adaptive compressor. What does the
// work is loaded when it is first used.
import type { MemoryFactory } from "../core/linear-memory.js";
import type { WasmSource } from "../core/wasm-modules.js";
import { CODEC_UNITS, type Codec, type UnitCoder } from "./codec.js";

/** Most bytes of the original in a unit. A reader needs room for one such unit. */
const PART_BYTES_MAX = 65536;
/** Header, chunk table and code tables of a unit whose part does not get shorter. */
const UNIT_OVERHEAD_BYTES = 1024;
/** Enough for a part of every element type; see `unit-coder.ts`. */
const WORKSPACE_BYTES = 2 ** 20;

export interface UnitCodecOptions {
  readonly createMemory: MemoryFactory;
  /** kernels.wasm; default: the one that the package carries. */
  readonly wasm?: WasmSource | undefined;
}

export function unitCodec({ createMemory, wasm }: UnitCodecOptions): Codec {
  const unitBytesMax = PART_BYTES_MAX + UNIT_OVERHEAD_BYTES;
  let loading: Promise<UnitCoder> | null = null;
  const loadOnce = async () => {
    const { createUnitCoder } = await import("./unit-coder.js");
    const workspaceBytes = WORKSPACE_BYTES;
    const partBytesMax = PART_BYTES_MAX;
    return createUnitCoder({ workspaceBytes, partBytesMax, unitBytesMax, createMemory, wasm });
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
  };
}
