// What a step feeds beside the KV: token ids, positions, mask, lengths. The arrays of a decode step are
// used again by the next one, so each cache has its own.
import type { ControlInput } from "../onnx/decoder-graph.js";
import { makeTensor, type OrtNamespace, type OrtTensor } from "./runtime.js";

/** Where a step stands. */
export interface StepPlace {
  /** The whole sequence; its last `newTokens` are fed. */
  readonly tokens: ArrayLike<number>;
  readonly pastTokens: number;
  readonly newTokens: number;
  /** Tokens of the past as it is fed, padding included. */
  readonly fedPastTokens: number;
  /** The mask covers the padding: of models that make their present by `Concat`. */
  readonly isPaddingMasked: boolean;
}

/**
 * Where these arrays lie, if not in arrays of the engine that are kept between steps. Serves one step
 * at a time.
 */
export interface StepArrays {
  /** @param length.total Tokens that the mask covers. */
  begin(length: { readonly tokens: number; readonly total: number }): void;
  /** An array of `count` integers, valid until {@link end}; it may hold anything. */
  take(type: "int64" | "int32", count: number): BigInt64Array | Int32Array;
  end(): void;
}

interface Kept {
  readonly data: BigInt64Array | Int32Array;
  readonly tensor: OrtTensor;
  /** What a mask held when it was last filled, so that a step changes one element. */
  pastTokens: number;
  seenTokens: number;
}

/** Tensors for the inputs beside the KV. */
export class StepInputs {
  readonly #ort: OrtNamespace;
  readonly #controls: readonly ControlInput[];
  readonly #arrays: StepArrays | null;
  readonly #kept = new Map<string, Kept>();
  /** Typed arrays and tensors made so far, for the statistics. */
  madeCount = 0;

  constructor(
    ort: OrtNamespace,
    controls: readonly ControlInput[],
    arrays: StepArrays | null = null,
  ) {
    this.#ort = ort;
    this.#controls = controls;
    this.#arrays = arrays;
  }

  /** Adds the inputs of one step to `feeds`. They are read until the run has settled. */
  fill(feeds: Record<string, OrtTensor>, place: StepPlace): void {
    for (const input of this.#controls) feeds[input.name] = this.#tensorFor(input, place);
  }

  #tensorFor(input: ControlInput, place: StepPlace): OrtTensor {
    const { pastTokens, newTokens, tokens } = place;
    const totalTokens = pastTokens + newTokens;
    switch (input.role) {
      case "cache-branch":
        this.madeCount += 1;
        return makeTensor(this.#ort, "bool", Uint8Array.of(place.fedPastTokens > 0 ? 1 : 0), [1]);
      case "tokens":
        return this.#sequence(input, newTokens, (at) => tokens[pastTokens + at] as number);
      case "positions":
        return this.#sequence(input, newTokens, (at) => pastTokens + at);
      case "mask":
        return this.#mask(input, place);
      case "last-index":
        return this.#single(input, totalTokens - 1);
      case "total-tokens":
        return this.#single(input, totalTokens);
      case "logit-count":
        return this.#single(input, 1);
    }
  }

  #sequence(input: ControlInput, count: number, valueAt: (at: number) => number): OrtTensor {
    const kept = this.#keep(input, [1, count]);
    for (let at = 0; at < count; at++) setAt(kept.data, at, valueAt(at));
    return kept.tensor;
  }

  #single(input: ControlInput, value: number): OrtTensor {
    const kept = this.#keep(input, input.rank === 0 ? [] : Array<number>(input.rank).fill(1));
    setAt(kept.data, 0, value);
    return kept.tensor;
  }

  #mask(input: ControlInput, place: StepPlace): OrtTensor {
    const { pastTokens, newTokens, fedPastTokens, isPaddingMasked } = place;
    const seenTokens = isPaddingMasked ? fedPastTokens : pastTokens;
    const kept = this.#keep(input, [1, seenTokens + newTokens]);
    if (kept.seenTokens !== seenTokens || kept.pastTokens > pastTokens) {
      for (let at = 0; at < kept.data.length; at++) {
        setAt(kept.data, at, at < pastTokens || at >= seenTokens ? 1 : 0);
      }
    } else {
      for (let at = kept.pastTokens; at < pastTokens; at++) setAt(kept.data, at, 1);
    }
    kept.pastTokens = pastTokens;
    kept.seenTokens = seenTokens;
    return kept.tensor;
  }

  /** The array and tensor of an input, kept while its length stays. */
  #keep({ name, type }: ControlInput, dims: readonly number[]): Kept {
    const count = dims.reduce((product, length) => product * length, 1);
    const known = this.#kept.get(name);
    if (this.#arrays === null && known?.data.length === count) return known;
    const elementType = type === "int32" ? "int32" : "int64";
    const data = this.#arrays?.take(elementType, count) ?? newArray(elementType, count);
    const tensor = makeTensor(this.#ort, elementType, data, dims);
    const kept = { data, tensor, pastTokens: 0, seenTokens: -1 };
    if (this.#arrays === null) this.#kept.set(name, kept);
    this.madeCount += 2;
    return kept;
  }
}

function newArray(type: "int64" | "int32", count: number): BigInt64Array | Int32Array {
  return type === "int32" ? new Int32Array(count) : new BigInt64Array(count);
}

function setAt(data: BigInt64Array | Int32Array, at: number, value: number): void {
  if (data instanceof Int32Array) data[at] = value;
  else data[at] = BigInt(value);
}
