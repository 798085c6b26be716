// A tensor as its user holds it: a handle to the one residency record.
import type { TensorRecord } from "../cache/tensor-record.js";
import type { Dtype, Layout, Shape, TensorKind } from "../types.js";
import { checkObject, checkPinOptions } from "./checks.js";
import type { Pin, PinAccess } from "./pin.js";
import type { TensorMessage } from "./tokens.js";

/** What a tensor asks of the memory that it belongs to. */
export interface TensorOwner {
  pin(record: TensorRecord, access: PinAccess): Pin;
  free(record: TensorRecord): void;
  resize(record: TensorRecord, shape: Shape): void;
  handOver(record: TensorRecord): TensorMessage;
  markDisposable(record: TensorRecord, isDisposable: boolean): void;
  /** After this, everything is gone already. */
  readonly isClosed: boolean;
}

export class Tensor<D extends Dtype = Dtype> {
  readonly #record: TensorRecord;
  readonly #owner: TensorOwner;

  /** @internal Tensors are made by `allocate`. */
  constructor(record: TensorRecord, owner: TensorOwner) {
    this.#record = record;
    this.#owner = owner;
  }

  /** @internal */
  static recordOf(tensor: Tensor): TensorRecord {
    return tensor.#record;
  }

  /** null for an anonymous tensor, which no pressure demotes and nothing can acquire. */
  get id(): string | null {
    return this.#record.id;
  }

  get kind(): TensorKind {
    return this.#record.kind;
  }

  get dtype(): D {
    return this.#record.dtype as D;
  }

  get shape(): Shape {
    return this.#record.shape;
  }

  get layout(): Layout {
    return this.#record.layout;
  }

  get byteLength(): number {
    return this.#record.byteLength;
  }

  get tag(): string {
    return this.#record.tag;
  }

  /**
   * Pressure may drop it instead of writing it to a colder tier, as if it had been allocated with
   * `disposable`. Set it when its owner can make it again from now on, or cannot any more.
   *
   * @throws {MisuseError} When it is set: `freed`, `closed`; `unsupported` — it has no id, or shares its
   *   bytes with another.
   */
  get isDisposable(): boolean {
    return this.#record.isDisposable;
  }

  set isDisposable(isDisposable: boolean) {
    this.#owner.markDisposable(this.#record, isDisposable);
  }

  /** Its bytes are in an arena, so that {@link pin} works. */
  get isResident(): boolean {
    return (this.#record.shared ?? this.#record).isResident;
  }

  get isFreed(): boolean {
    return this.#record.isFreed;
  }

  /**
   * Pins the tensor and shows its bytes.
   *
   * @param options.access Default: `"write"`. `"read"` keeps a clean tensor clean.
   * @throws {MisuseError} `freed`; `not-resident` — use `acquire`; `pin-limit`; `closed`; `pinned` — a
   *   pin for writing, while the last holder of a content reads it and it is moved or saved.
   * @throws {OutOfMemoryError} A pin for writing, to a shared tensor, and there is no room for a copy.
   * @remarks One call into the core; the view is cached until the block moves. A pin for writing gives a
   *   shared tensor bytes of its own first; pins taken before go on to show the old ones.
   */
  pin(options?: { readonly access?: PinAccess }): Pin<D> {
    const { access } = checkPinOptions(options, "pin", ["access"]);
    const pin = this.#owner.pin(this.#record, access);
    pin.tensor = this;
    return pin as Pin<D>;
  }

  /**
   * Gives the tensor another shape. Its first bytes stay, as many as both shapes have; what is new is
   * whatever the block's last owner left. The handle stays valid, views of it do not.
   *
   * @param options.shape 1 to 8 lengths of at least 1, outermost first.
   * @throws {MisuseError} `freed`; `not-resident` — use `acquire`; `pinned` — also while it is saved
   *   or swapped out; `bad-shape`, `bad-size`, `bad-option`, `closed`.
   * @throws {OutOfMemoryError} It has to move, and there is no room for a second block.
   * @remarks In place when its size class stays, when it shrinks, or when what follows it is free;
   *   else it needs room for both blocks and copies. What is refused has changed nothing.
   */
  resize(options: { readonly shape: Shape }): void {
    const { shape } = checkObject(options, "resize", ["shape"]);
    this.#owner.resize(this.#record, shape as Shape);
  }

  /**
   * Gives up the block and every copy that this tensor owns; a saved record stays.
   *
   * @throws {MisuseError} `freed` — it was freed before; `pinned`.
   * @throws {GuardError} Debug mode: it was written past its end. It is freed all the same.
   */
  free(): void {
    this.#owner.free(this.#record);
  }

  /**
   * Gives the tensor away: post what this returns to a worker, which adopts it. Until then it is
   * nobody's, and stays if nobody ever does. This object is then as one that was freed.
   *
   * @throws {MisuseError} `unsupported` — it has an id, or the memory is not shared; `freed`, `pinned`,
   *   `closed`.
   */
  handOver(): TensorMessage {
    return this.#owner.handOver(this.#record);
  }

  /** {@link free}, unless that was done before or the memory is closed. */
  [Symbol.dispose](): void {
    if (!this.#record.isFreed && !this.#owner.isClosed) this.free();
  }
}
