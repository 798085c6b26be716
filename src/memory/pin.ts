// The only way to see a tensor's bytes. While a pin lives, its block neither moves nor leaves.
import type { TensorRecord } from "../cache/tensor-record.js";
import type { ControlPlane } from "../core/control-plane.js";
import { MisuseError } from "../errors.js";
import type { Dtype, TensorView } from "../types.js";

/** What a pin is for. Writing makes a clean tensor dirty, so say "read" where that is all. */
export type PinAccess = "read" | "write";

/**
 * A lease when `acquire` gave it. Dispose it as soon as the bytes are no longer needed; a runtime
 * reads its inputs after `run()` has returned its promise, so wait for that promise first.
 */
export class Pin<D extends Dtype = Dtype> {
  readonly access: PinAccess;
  /** @internal Kept alive: while its pin is in use, a tensor that nobody holds has not leaked. */
  tensor: object | null = null;
  readonly #core: ControlPlane;
  readonly #record: TensorRecord;
  readonly #slot: number;
  readonly #generation: number;
  #view: TensorView<D> | null;

  /** @internal Pins are made by {@link Tensor.pin} and by `acquire`. */
  constructor(core: ControlPlane, record: TensorRecord, access: PinAccess, view: TensorView) {
    this.access = access;
    this.#core = core;
    this.#record = record;
    const { slot, generation } = record.shared ?? record;
    this.#slot = slot;
    this.#generation = generation;
    this.#view = view as TensorView<D>;
    if (access === "write") {
      record.writePinCount += 1;
      record.version += 1;
    }
  }

  get id(): string | null {
    return this.#record.id;
  }

  get shape(): readonly number[] {
    return this.#record.shape;
  }

  get dtype(): D {
    return this.#record.dtype as D;
  }

  /**
   * The elements, row-major, `shape` product long; `f16` and `bf16` as `Uint16Array`. Must not be
   * used after the pin is disposed.
   *
   * @throws {MisuseError} `unpinned` — the pin was disposed.
   */
  get view(): TensorView<D> {
    if (this.#view === null) throw new MisuseError("unpinned", "the pin was disposed");
    return this.#view;
  }

  /** The same memory as bytes. @throws {MisuseError} `unpinned`. */
  get bytes(): Uint8Array<ArrayBuffer> {
    const { buffer, byteOffset, byteLength } = this.view;
    return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
  }

  /** Ends the pin. May be called again. */
  [Symbol.dispose](): void {
    if (this.#view === null) return;
    this.#view = null;
    this.tensor = null;
    if (this.access === "write") {
      this.#record.writePinCount -= 1;
      this.#record.version += 1;
    }
    this.#core.unpin(this.#slot, this.#generation);
  }
}
