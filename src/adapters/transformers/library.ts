// The part of transformers.js that is used here, by shape: neither its package nor its types are imported.
import { MisuseError } from "../../errors.js";
import { type Dtype, describe } from "../../types.js";

/** A tensor of the library. */
export interface LibraryTensor {
  readonly type: string;
  readonly dims: readonly number[];
  /** `"cpu"`, `"cpu-pinned"`, `"gpu-buffer"` and others. */
  readonly location: string;
  /** A typed array, when its location is the CPU. */
  readonly data: unknown;
  /** The runtime's tensor inside of it. */
  readonly ort_tensor: object;
  dispose(): void;
}

/** The library's class `Tensor`. Parameters are `never` so that any version's types fit. */
export type LibraryTensorClass = new (type: never, data: never, dims: never) => object;

/** The library's loaded model. */
export interface LibraryModel {
  // Any version's options fit.
  generate(options: never): Promise<unknown>;
}

/** Token ids: of the library's tensor [1, tokens], of its `tolist()[0]`, or plain numbers. */
export type TokenIds = LibraryTensor | ArrayLike<number | bigint>;

const DTYPES = new Map<string, Dtype>([
  ["float32", "f32"],
  ["float16", "f16"],
  ["float64", "f64"],
  ["int8", "i8"],
  ["uint8", "u8"],
  ["int16", "i16"],
  ["uint16", "u16"],
  ["int32", "i32"],
  ["uint32", "u32"],
  ["int64", "i64"],
  ["uint64", "u64"],
  ["bool", "bool"],
]);

/** @throws {MisuseError} `bad-dtype` — a tensor of such elements has no place in the heap. */
export function dtypeOf(type: string): Dtype {
  const dtype = DTYPES.get(type);
  if (dtype === undefined) throw new MisuseError("bad-dtype", `no dtype for ${describe(type)}`);
  return dtype;
}

export function makeTensor(
  TensorClass: LibraryTensorClass,
  type: string,
  data: ArrayBufferView,
  dims: readonly number[],
): LibraryTensor {
  return new TensorClass(type as never, data as never, [...dims] as never) as LibraryTensor;
}

/** Whether the tensor's elements can be read without waiting. */
export function isOnCpu({ location }: LibraryTensor): boolean {
  return location.startsWith("cpu");
}

/** The bytes of a tensor, from wherever they are. */
export async function downloadBytes(tensor: LibraryTensor): Promise<Uint8Array> {
  if (isOnCpu(tensor)) return bytesOf(tensor.data);
  const { getData } = tensor.ort_tensor as { getData(): Promise<unknown> };
  return bytesOf(await getData.call(tensor.ort_tensor));
}

/** f16 may be of either of two classes, and copying between them would convert: bytes are neutral. */
export function bytesOf(data: unknown): Uint8Array {
  const { buffer, byteOffset, byteLength } = data as ArrayBufferView;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** @throws {MisuseError} `bad-option` — not one sequence of token ids. */
export function tokensOf(ids: TokenIds): number[] {
  const given = ids as Partial<LibraryTensor> & ArrayLike<number | bigint>;
  const { dims } = given;
  if (dims !== undefined && (dims.length > 2 || (dims.length === 2 && dims[0] !== 1))) {
    throw new MisuseError("bad-option", "token ids are of one sequence: [1, tokens]");
  }
  const source = dims === undefined ? given : (given.data as ArrayLike<number | bigint>);
  const tokens = Array.from(source ?? [], Number);
  if (tokens.length > 0 && tokens.every((token) => Number.isSafeInteger(token))) return tokens;
  throw new MisuseError("bad-option", "token ids are at least one integer");
}
