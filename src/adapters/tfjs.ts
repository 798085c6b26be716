// TensorFlow.js over tensors of the heap: `tierheap/adapters/tfjs`. Reads only, and moves nothing: the `cpu`
// backend works on the heap's own bytes, others copy them when they want to. Needs `@tensorflow/tfjs-core`
// beside it, which the caller imports.
import { MisuseError } from "../errors.js";
import type { Pin } from "../memory/pin.js";
import type { Dtype } from "../types.js";

/** The part of a backend that is used here. */
interface TfBackend {
  /** @returns Whether the data is gone: nothing refers to it any more. */
  disposeData(dataId: object, force?: boolean): boolean;
}

/** A tensor of the library. */
export interface TfTensor {
  readonly dataId: object;
  dispose(): void;
}

/** What `import * as tf from "@tensorflow/tfjs-core"` gives. */
export interface TfNamespace<T extends TfTensor = TfTensor> {
  // Parameters are `never` so that any version's overloads fit.
  tensor(values: never, shape: never, dtype: never): T;
  backend(): object;
}

const DTYPES: Partial<Record<Dtype, string>> = { f32: "float32", i32: "int32", bool: "bool" };

/** Pins by the data that they are for, of each backend that has some. */
const pinsOf = new WeakMap<object, WeakMap<object, Pin>>();

/** Several tensors may share one piece of data; only its backend knows when the last of them is gone. */
function watch(backend: TfBackend): WeakMap<object, Pin> {
  const known = pinsOf.get(backend);
  if (known !== undefined) return known;
  const pins = new WeakMap<object, Pin>();
  const disposeData = backend.disposeData.bind(backend);
  backend.disposeData = (dataId, force) => {
    const isGone = disposeData(dataId, force);
    if (isGone) {
      pins.get(dataId)?.[Symbol.dispose]();
      pins.delete(dataId);
    }
    return isGone;
  };
  pinsOf.set(backend, pins);
  return pins;
}

/**
 * A tensor of TensorFlow.js over the bytes of a pinned one, without a copy on its `cpu` backend.
 *
 * @param pin f32, i32 or bool, for reading or writing. It belongs to the new tensor from now on, and ends
 *   when that is disposed, together with everything that shares its data: clones and reshapes. Until
 *   then whoever writes through another pin changes what the library reads.
 * @param tf The library, with the backend set that is to have the data.
 * @throws {MisuseError} `bad-dtype` — the library has no such elements; `unpinned` — the pin was disposed.
 *   The pin is still the caller's then.
 * @remarks Wraps the backend's `disposeData`, once for each backend.
 */
export function toTfjs<T extends TfTensor>(pin: Pin, tf: TfNamespace<T>): T {
  const dtype = DTYPES[pin.dtype];
  if (dtype === undefined) {
    throw new MisuseError("bad-dtype", `TensorFlow.js has no elements of ${pin.dtype}`);
  }
  const { view, shape } = pin;
  const pins = watch(tf.backend() as TfBackend);
  const tensor = tf.tensor(view as never, [...shape] as never, dtype as never);
  pins.set(tensor.dataId, pin);
  return tensor;
}
