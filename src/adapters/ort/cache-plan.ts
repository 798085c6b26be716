// What a cache is made with, and the shape of its tensors.
import { MisuseError } from "../../errors.js";
import type { Tensor } from "../../memory/tensor.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { describe } from "../../types.js";
import type { KvEntry } from "../onnx/decoder-graph.js";
import { pagedTokens } from "./layout.js";

/** How a model's KV is kept; the same for all caches of one decoder. */
export interface CachePlan {
  readonly memory: TensorMemory;
  readonly fingerprint: string;
  readonly entries: readonly KvEntry[];
  /** The stride is the number of tokens, not the capacity. */
  readonly isTight: boolean;
  /** Tokens by which the capacity grows; null: as many as suit its length. */
  readonly pageTokens: number | null;
}

/** What a cache is made with. */
export interface CacheOptions {
  /**
   * Begins the ids of its tensors; with one, they may be demoted between steps. Default: none, so they
   * stay resident.
   */
  readonly id?: string;
  /** Room that is allocated at first, where it is known how long the chat will get. Default: 0, a page. */
  readonly capacityTokens?: number;
  /**
   * The chat can be computed again: under pressure its tensors may be dropped in place of being written, and
   * the next step then computes all tokens. Once saved they are not dropped. Needs an id. Default: false.
   */
  readonly disposable?: boolean;
}

const DTYPE_BYTES = { f32: 4, f16: 2 } as const;

/** @throws {MisuseError} `bad-id`, `bad-option`. */
export function checkCacheOptions(options: CacheOptions) {
  const { id, capacityTokens = 0, disposable = false } = options;
  if (id !== undefined && (typeof id !== "string" || id === "")) {
    throw new MisuseError("bad-id", `${describe(id)} is not an id`);
  }
  if (!Number.isSafeInteger(capacityTokens) || capacityTokens < 0) {
    throw new MisuseError("bad-option", `${describe(capacityTokens)} is not a number of tokens`);
  }
  if (disposable && id === undefined) {
    throw new MisuseError("bad-option", "a disposable cache needs an id");
  }
  return { id: id ?? null, capacityTokens, isDisposable: disposable };
}

/** [1, heads, capacity, headDim]. */
export function shapeOf({ heads, headDim }: KvEntry, capacityTokens: number): number[] {
  return [1, heads, capacityTokens, headDim];
}

/** Whether a tensor has the shape and the element type of an entry. */
export function fits(tensor: Tensor, entry: KvEntry, capacityTokens: number): boolean {
  const shape = shapeOf(entry, capacityTokens);
  const hasShape =
    tensor.shape.length === shape.length &&
    tensor.shape.every((length, axis) => length === shape[axis]);
  return tensor.dtype === entry.dtype && hasShape;
}

/** Tokens for which tensors are made that have to hold so many; never fewer than asked for at first. */
export function capacityFor(
  { pageTokens }: CachePlan,
  tokenCount: number,
  firstTokens: number,
): number {
  return tokenCount <= firstTokens ? firstTokens : pagedTokens(tokenCount, pageTokens);
}

/** Bytes of the longest tensor. */
export function tensorBytesMax(entries: readonly KvEntry[], capacityTokens: number): number {
  const bytes = entries.map(({ heads, headDim, dtype }) => heads * headDim * DTYPE_BYTES[dtype]);
  return Math.max(...bytes) * capacityTokens;
}
