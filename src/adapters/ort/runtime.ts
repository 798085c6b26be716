// The part of ONNX Runtime that is used here, by shape: neither its package nor its types are imported.

/** A tensor of the runtime. */
export interface OrtTensor {
  readonly type: string;
  readonly dims: readonly number[];
  /** A typed array, when its location is the CPU. */
  readonly data: unknown;
  dispose(): void;
}

/** A loaded model. */
export interface OrtSession {
  run(
    feeds: Record<string, OrtTensor>,
    fetches: readonly string[],
  ): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}

/**
 * `onnxruntime-node`, or `onnxruntime-web` with its wasm provider: pass what `import * as ort` gives.
 *
 * @remarks Checked with version 1.30 of both. Parameters are `never` so that any version's overloads
 *   fit; what is passed is an element type's name, a typed array of it, and dimensions. With `env.wasm.proxy`
 *   onnxruntime-web starts and computes in a worker, so that the page stays alive: each run then gets copies of
 *   all that is fed, the past included.
 */
export interface OrtNamespace {
  readonly InferenceSession: {
    create(model: Uint8Array, options?: never): Promise<object>;
  };
  readonly Tensor: new (type: never, data: never, dims: readonly number[]) => object;
  readonly env?: { readonly wasm?: { readonly proxy?: boolean | undefined } };
}

export type OrtElementType = "float32" | "float16" | "int64" | "int32" | "bool";

/** A tensor over `data`, which is not copied. */
export function makeTensor(
  { Tensor }: OrtNamespace,
  type: OrtElementType,
  data: ArrayBufferView,
  dims: readonly number[],
): OrtTensor {
  return new Tensor(type as never, data as never, dims) as OrtTensor;
}

/** Floating-point elements of an output; f16 as bit patterns, whatever class the engine has for it. */
export function numbersOf({ data }: OrtTensor): Float32Array | Uint16Array {
  if (data instanceof Float32Array || data instanceof Uint16Array) return data;
  const { buffer, byteOffset, length } = data as ArrayBufferView & ArrayLike<unknown>;
  return new Uint16Array(buffer, byteOffset, length);
}
