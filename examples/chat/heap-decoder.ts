/**
 * The model as the chats use it: a decoder that keeps its past in tierheap and returns new rows only.
 * The runtime by itself, which `runtime.ts` opens, is what its tokens are compared with.
 */
import { readFile } from "node:fs/promises";
import type { TensorMemory } from "tierheap";
import {
  ModelError,
  type OrtDecoder,
  openOrtDecoder,
  type StepArrays,
} from "tierheap/adapters/ort";
import { type KvCaches, openKvCaches } from "tierheap/kv";
import { type DecoderRuntime, NATIVE_RUNTIME, WASM_RUNTIME } from "./runtime.js";

export interface OpenHeapDecoderOptions {
  /** The runtime by itself: the decoder runs on the same package. */
  readonly runtime: Pick<DecoderRuntime, "name">;
  /** The bytes of an ONNX file, or the path of one. */
  readonly model: Uint8Array<ArrayBuffer> | string;
  readonly memory: TensorMemory;
  readonly fingerprint: string;
  /** Where ids, positions and mask of a step lie; for one step at a time. Default: plain arrays. */
  readonly arrays?: StepArrays;
}

/** ONNX Runtime's severity "fatal": what it logs below that also rejects, or concerns exporters. */
const LOG_SEVERITY_FATAL = 4;

/**
 * @returns null when the model cannot be used that way: its KV is of another form, or its weights are in
 *   files of their own, which a model from memory does not find. The chats then use the runtime by itself.
 */
export async function openHeapDecoder(options: OpenHeapDecoderOptions): Promise<OrtDecoder | null> {
  const { runtime, model, memory, fingerprint, arrays } = options;
  const candidate = runtime.name === WASM_RUNTIME.name ? WASM_RUNTIME : NATIVE_RUNTIME;
  const ort = await candidate.load();
  const bytes = typeof model === "string" ? Uint8Array.from(await readFile(model)) : model;
  const sessionOptions = {
    executionProviders: candidate.providers,
    logSeverityLevel: LOG_SEVERITY_FATAL,
  };
  try {
    const rest = { model: bytes, fingerprint, sessionOptions, ...(arrays && { arrays }) };
    return await openOrtDecoder({ ort, memory, ...rest });
  } catch (error) {
    if (error instanceof ModelError) return null;
    throw error;
  }
}

/** KV of what chats have in common at their beginning; null for a model of unlike keys and values. */
export function openPrefixes(memory: TensorMemory, decoder: OrtDecoder): KvCaches | null {
  try {
    const { fingerprint, kvLayers: layers } = decoder;
    return openKvCaches(memory, { fingerprint, layers });
  } catch (error) {
    if (error instanceof ModelError) return null;
    throw error;
  }
}
