// The vocabulary of tensors: kinds, element types, shapes, byte sizes. Layer 0: knows nothing else.
import { MisuseError } from "./errors.js";

/** What a tensor is for. Each kind has a pool of its own. */
export type TensorKind =
  | "KV_CACHE"
  | "IMAGE_FEATURES"
  | "TEXT_EMBEDDINGS"
  | "GRADIENTS"
  | "ACTIVATIONS"
  | "PARAMETERS";

/** All kinds, in the order of their pool numbers in the core and of their ids in records. */
export const TENSOR_KINDS: readonly TensorKind[] = [
  "KV_CACHE",
  "IMAGE_FEATURES",
  "TEXT_EMBEDDINGS",
  "GRADIENTS",
  "ACTIVATIONS",
  "PARAMETERS",
];

/** Element type, little-endian. `f16` and `bf16` are seen as `Uint16Array`, `bool` as `Uint8Array`. */
export type Dtype =
  | "f32"
  | "f16"
  | "bf16"
  | "f64"
  | "i8"
  | "u8"
  | "i16"
  | "u16"
  | "i32"
  | "u32"
  | "i64"
  | "u64"
  | "bool";

/** The typed array through which a pin shows a tensor of element type `D`. */
export type TensorView<D extends Dtype = Dtype> = D extends "f32"
  ? Float32Array
  : D extends "f64"
    ? Float64Array
    : D extends "f16" | "bf16" | "u16"
      ? Uint16Array
      : D extends "i8"
        ? Int8Array
        : D extends "u8" | "bool"
          ? Uint8Array
          : D extends "i16"
            ? Int16Array
            : D extends "i32"
              ? Int32Array
              : D extends "u32"
                ? Uint32Array
                : D extends "i64"
                  ? BigInt64Array
                  : BigUint64Array;

/** How much the values of a tensor may change when it leaves RAM. */
export interface ErrorLimit {
  /**
   * `relative`: root of the squared error's share of the squares. `max`: largest absolute error as a share
   * of the largest magnitude. Either holds for every part, and so for the whole.
   */
  readonly metric: "relative" | "max";
  /** Largest error, from 0 to 1; 0 is exact. */
  readonly epsilon: number;
}

/** The error budget of one tensor; `"exact"`: none, whatever is said about its kind. */
export type TensorErrorBudget = ErrorLimit | "exact";

/** Lengths of the dimensions, outermost first; 1 to 8 integers of at least 1. */
export type Shape = readonly number[];

/** How the dimensions are ordered in memory. A label that travels with the tensor. */
export type Layout = "row-major" | "nchw" | "nhwc";

/** All layouts, in the order of their ids in records. */
export const LAYOUTS: readonly Layout[] = ["row-major", "nchw", "nhwc"];

export const RANK_MAX = 8;

type ViewConstructor = new (
  buffer: ArrayBufferLike,
  byteOffset: number,
  length: number,
) => TensorView;

interface DtypeTraits {
  /** Number in records; never reused. */
  readonly id: number;
  readonly elementBytes: number;
  readonly View: ViewConstructor;
}

// A Map, so that names such as "__proto__" are simply unknown.
const DTYPES = new Map<Dtype, DtypeTraits>([
  ["f32", { id: 1, elementBytes: 4, View: Float32Array }],
  ["f16", { id: 2, elementBytes: 2, View: Uint16Array }],
  ["bf16", { id: 3, elementBytes: 2, View: Uint16Array }],
  ["f64", { id: 4, elementBytes: 8, View: Float64Array }],
  ["i8", { id: 5, elementBytes: 1, View: Int8Array }],
  ["u8", { id: 6, elementBytes: 1, View: Uint8Array }],
  ["i16", { id: 7, elementBytes: 2, View: Int16Array }],
  ["u16", { id: 8, elementBytes: 2, View: Uint16Array }],
  ["i32", { id: 9, elementBytes: 4, View: Int32Array }],
  ["u32", { id: 10, elementBytes: 4, View: Uint32Array }],
  ["i64", { id: 11, elementBytes: 8, View: BigInt64Array }],
  ["u64", { id: 12, elementBytes: 8, View: BigUint64Array }],
  ["bool", { id: 13, elementBytes: 1, View: Uint8Array }],
]);

export const DTYPE_NAMES: readonly Dtype[] = [...DTYPES.keys()];

/** @throws {MisuseError} `bad-dtype` — not the name of an element type. */
export function dtypeTraits(dtype: unknown): DtypeTraits {
  const traits = DTYPES.get(dtype as Dtype);
  if (traits === undefined) {
    throw new MisuseError("bad-dtype", `unknown dtype ${describe(dtype)}`);
  }
  return traits;
}

/** The element type of a record's dtype id, or undefined. */
export function dtypeOfId(id: number): Dtype | undefined {
  return DTYPE_NAMES[id - 1];
}

/** @throws {MisuseError} `bad-kind` — not a {@link TensorKind}. */
export function checkKind(kind: unknown): TensorKind {
  if (!TENSOR_KINDS.includes(kind as TensorKind)) {
    throw new MisuseError("bad-kind", `unknown tensor kind ${describe(kind)}`);
  }
  return kind as TensorKind;
}

/** @throws {MisuseError} `bad-layout` — not a {@link Layout}. */
export function checkLayout(layout: unknown): Layout {
  if (!LAYOUTS.includes(layout as Layout)) {
    throw new MisuseError("bad-layout", `unknown layout ${describe(layout)}`);
  }
  return layout as Layout;
}

/**
 * Number of bytes of a dense tensor.
 *
 * @throws {MisuseError} `bad-shape` — not an array of 1 to 8 positive integers, or the product
 *   exceeds 2^53 − 1.
 */
export function shapeBytes(shape: unknown, elementBytes: number): number {
  if (!Array.isArray(shape) || shape.length === 0 || shape.length > RANK_MAX) {
    throw new MisuseError("bad-shape", `a shape is an array of 1 to ${RANK_MAX} lengths`);
  }
  let bytes = elementBytes;
  for (const length of shape as unknown[]) {
    if (!Number.isSafeInteger(length) || (length as number) < 1) {
      throw new MisuseError("bad-shape", `${describe(length)} is not the length of a dimension`);
    }
    bytes *= length as number;
    if (bytes > Number.MAX_SAFE_INTEGER) {
      throw new MisuseError("bad-shape", "the product of the dimensions overflows");
    }
  }
  return bytes;
}

/** @throws {MisuseError} `bad-size` — not an integer of at least 1 and at most `limit`. */
export function checkBytes(bytes: unknown, name: string, limit = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isSafeInteger(bytes) || (bytes as number) < 1 || (bytes as number) > limit) {
    throw new MisuseError("bad-size", `${name} must be an integer from 1 to ${limit}`);
  }
  return bytes as number;
}

/** A count of bytes: an integer, or text such as `"64MiB"` (B, KiB, MiB, GiB, TiB). */
export type ByteSize = number | string;

const UNIT_BYTES = new Map([
  ["B", 1],
  ["KiB", 2 ** 10],
  ["MiB", 2 ** 20],
  ["GiB", 2 ** 30],
  ["TiB", 2 ** 40],
]);

/** @throws {MisuseError} `bad-size` — neither a positive integer nor text such as `"64MiB"`. */
export function parseByteSize(size: unknown, name: string): number {
  if (typeof size !== "string") return checkBytes(size, name);
  const match = /^([0-9]+(?:\.[0-9]+)?) ?(B|KiB|MiB|GiB|TiB)$/.exec(size);
  const unitBytes = UNIT_BYTES.get(match?.[2] ?? "");
  if (match === null || unitBytes === undefined) {
    throw new MisuseError("bad-size", `${name}: ${describe(size)} is not a size such as "64MiB"`);
  }
  return checkBytes(Math.floor(Number(match[1]) * unitBytes), name);
}

/** A short, safe rendering of any value for an error message. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 40));
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "number" || value === undefined || value === null) return String(value);
  return typeof value;
}
