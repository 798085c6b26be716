// One entry of `past_key_values`: a KV tensor, or a state of fixed shape that some layers have instead.
//
// Its elements lie dense in a tensor of the heap that is longer than they are, so that it need not grow
// at each token; the library is fed a view of the first of them. An entry is held, as the library's own
// tensor, while it is on a GPU or while there is no room that can be had without waiting.
import { MisuseError, OutOfMemoryError } from "../../errors.js";
import type { Pin } from "../../memory/pin.js";
import { Tensor } from "../../memory/tensor.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { dtypeTraits } from "../../types.js";
import { copyRows, type RowShape, restride } from "../ort/layout.js";
import {
  bytesOf,
  downloadBytes,
  dtypeOf,
  isOnCpu,
  type LibraryTensor,
  type LibraryTensorClass,
  makeTensor,
} from "./library.js";

/** Tokens by which a tensor grows. */
const PAGE_TOKENS = 64;

/** Rows are moved as whole elements, whatever they mean. */
type Elements = Float32Array | Uint16Array;

/** What is known of an entry without its bytes. */
export interface EntryDescription {
  readonly name: string;
  /** The library's name of the element type. */
  readonly type: string;
  readonly dims: readonly number[];
  /** Its second last dimension counts tokens, so that it can be cut. */
  readonly isGrowing: boolean;
  /** Counts the saved records that its tensors have had. */
  readonly generation: number;
}

/** Whose entries they are. */
export interface EntryOwner {
  readonly memory: TensorMemory;
  /** Begins the ids of the tensors; null: they have none. */
  readonly id: string | null;
}

export function elementCount(dims: readonly number[]): number {
  return dims.reduce((product, length) => product * length, 1);
}

/** The id of an entry's tensor. */
export function tensorIdOf(id: string | null, generation: number, name: string): string {
  return `${id}/${generation}/${name}`;
}

export class CacheEntry {
  readonly name: string;
  readonly type: string;
  /** Its tensor is a saved record's, which must not be written again. */
  isSaved = false;
  readonly #owner: EntryOwner;
  readonly #traits: ReturnType<typeof dtypeTraits>;
  #dims: readonly number[];
  #isGrowing: boolean;
  #generation: number;
  #tensor: Tensor | null = null;
  #pin: Pin | null = null;
  #held: LibraryTensor | null = null;
  /** Of the tensor, when this entry last had it in its hands. */
  #version = 0;

  /** @throws {MisuseError} `bad-dtype` — no tensor of the heap has such elements. */
  constructor(owner: EntryOwner, { name, type, dims, isGrowing, generation }: EntryDescription) {
    this.#owner = owner;
    this.name = name;
    this.type = type;
    this.#traits = dtypeTraits(dtypeOf(type));
    this.#dims = dims;
    this.#isGrowing = isGrowing;
    this.#generation = generation;
  }

  /** The name of its tensor; null when there is none, or it has no name. */
  get tensorId(): string | null {
    return this.#tensor?.id ?? null;
  }

  get isGrowing(): boolean {
    return this.#isGrowing;
  }

  get isHeld(): boolean {
    return this.#held !== null;
  }

  get generation(): number {
    return this.#generation;
  }

  get byteLength(): number {
    return this.#tensor?.byteLength ?? 0;
  }

  get isResident(): boolean {
    return this.#tensor?.isResident ?? true;
  }

  describe(): EntryDescription {
    const { name, type, isGrowing, generation } = this;
    return { name, type, dims: this.#dims, isGrowing, generation };
  }

  /** Whether it may be this entry's next value: it differs at most in the number of tokens. */
  fits({ type, dims }: LibraryTensor): boolean {
    const tokenAxis = this.#isGrowing ? dims.length - 2 : -1;
    return (
      type === this.type &&
      dims.length === this.#dims.length &&
      // The library's empty tensors have 0 for what it does not know.
      this.#dims.every((known, axis) => axis === tokenAxis || known === 0 || known === dims[axis])
    );
  }

  /** What the library is fed. No copy, but of f16 where the engine has a class for it. */
  read(TensorClass: LibraryTensorClass): LibraryTensor {
    if (this.#held !== null) return this.#held;
    const count = elementCount(this.#dims);
    const view = count === 0 ? new this.#traits.View(new ArrayBuffer(0), 0, 0) : this.#view(count);
    // In Node the library takes the whole buffer of such a tensor, wherever its view begins.
    const isCopied = this.type === "float16" && "Float16Array" in globalThis;
    return makeTensor(TensorClass, this.type, isCopied ? view.slice() : view, this.#dims);
  }

  /**
   * Takes over a new value. Without room for it, it is held until {@link settle}.
   *
   * @param tokenCount Of the whole sequence: a layer whose tensor has another length cannot be cut.
   * @returns Bytes copied.
   */
  take(tensor: LibraryTensor, tokenCount: number): number {
    if (this.#held !== null && this.#held !== tensor) this.#held.dispose();
    this.#held = null;
    this.#dims = [...tensor.dims];
    this.#isGrowing &&= this.#dims.at(-2) === tokenCount;
    if (elementCount(this.#dims) === 0) {
      this.#release();
      return 0;
    }
    if (isOnCpu(tensor)) {
      try {
        this.#place();
        return this.#fill(bytesOf(tensor.data));
      } catch (error) {
        if (!(error instanceof OutOfMemoryError)) throw error;
      }
    }
    this.#release();
    this.#held = tensor;
    return 0;
  }

  /**
   * Puts into the heap what is held.
   *
   * @returns Bytes copied.
   * @throws {OutOfMemoryError} There is no room, even if others are demoted.
   */
  async settle(): Promise<number> {
    const held = this.#held;
    if (held === null) return 0;
    const bytes = await downloadBytes(held);
    await this.#reserve(this.#shapeWithRoom(0));
    this.#place();
    this.#held = null;
    held.dispose();
    return this.#fill(bytes);
  }

  /** Pins its tensor, which is resident. */
  pin(): void {
    this.#pin = this.#tensor?.pin({ access: this.isSaved ? "read" : "write" }) ?? null;
    this.#remember();
  }

  unpin(): void {
    this.#pin?.[Symbol.dispose]();
    this.#pin = null;
    this.#remember();
  }

  /** Whether nobody else has had its bytes for writing since {@link pin} or {@link unpin}. */
  isUntouched(): boolean {
    if (this.#tensor === null) return true;
    const { version, writePinCount } = Tensor.recordOf(this.#tensor);
    const ownCount = this.#pin?.access === "write" ? 1 : 0;
    return version === this.#version && writePinCount === ownCount;
  }

  /**
   * Cuts a growing entry, which is pinned, to its first tokens.
   *
   * @throws {OutOfMemoryError} It was saved, so it needs a second tensor, and there is no room.
   */
  async truncate(tokenCount: number): Promise<void> {
    const from = this.#dims.at(-2) as number;
    if (tokenCount === from || !this.#isGrowing) return;
    const dims = this.#dims.with(-2, tokenCount);
    const rows: RowShape = {
      heads: elementCount(dims.slice(0, -2)),
      headDim: dims.at(-1) as number,
    };
    if (!this.isSaved) {
      restride(this.#elements(), rows, from, tokenCount, tokenCount);
      this.#dims = dims;
      return;
    }
    await this.#reserve(this.#shapeWithRoom(tokenCount));
    const [saved, savedPin, source] = [this.#tensor, this.#pin, this.#elements()];
    const savedDims = this.#dims;
    this.#tensor = null;
    this.#pin = null;
    this.#dims = dims;
    try {
      this.#place();
    } catch (error) {
      this.#tensor = saved;
      this.#pin = savedPin;
      this.#dims = savedDims;
      throw error;
    }
    copyRows(this.#elements(), tokenCount, source, from, rows, tokenCount);
    savedPin?.[Symbol.dispose]();
    saved?.free();
  }

  /** Bytes of a tensor with room for so many tokens, or 0 when it has that, or will not be written. */
  growthBytes(tokenCount: number): number {
    if (this.#tensor === null || this.isSaved || !this.#isGrowing) return 0;
    const bytes = elementCount(this.#shapeWithRoom(tokenCount)) * this.#traits.elementBytes;
    return bytes > this.byteLength ? bytes : 0;
  }

  /** Gives its tensor, which is resident and not pinned, that room. @throws {OutOfMemoryError} */
  grow(tokenCount: number): void {
    if (this.growthBytes(tokenCount) === 0) return;
    this.#tensor?.resize({ shape: this.#shapeWithRoom(tokenCount) });
    this.#remember();
  }

  /** @returns false when `tensor` is not a saved record's, or not what the description says. */
  tryAdopt(tensor: Tensor | null): boolean {
    const shape = tensor?.shape;
    const isFitting =
      tensor !== null &&
      Tensor.recordOf(tensor).hasSavedRecord &&
      tensor.dtype === dtypeOf(this.type) &&
      shape?.length === this.#dims.length &&
      shape.every((length, axis) =>
        this.#isGrowing && axis === shape.length - 2
          ? length >= (this.#dims[axis] as number)
          : length === this.#dims[axis],
      );
    if (!isFitting) return false;
    this.#tensor = tensor;
    this.isSaved = true;
    this.#remember();
    return true;
  }

  /** Gives up its bytes; a saved record stays. */
  free(): void {
    this.#held?.dispose();
    this.#held = null;
    this.#release();
  }

  // --- Inside --------------------------------------------------------------------------------------

  #remember(): void {
    if (this.#tensor !== null) this.#version = Tensor.recordOf(this.#tensor).version;
  }

  #release(): void {
    const tensor = this.#tensor;
    this.unpin();
    this.#tensor = null;
    tensor?.[Symbol.dispose]();
  }

  #elements(): Elements {
    return this.#pin?.view as Elements;
  }

  #view(count: number) {
    return this.#elements().subarray(0, count);
  }

  #fill(bytes: Uint8Array): number {
    this.#pin?.bytes.set(bytes);
    return bytes.byteLength;
  }

  /** The entry's shape with room for its tokens or more, in whole pages. */
  #shapeWithRoom(tokenCount: number): readonly number[] {
    if (!this.#isGrowing) return this.#dims;
    const tokens = Math.max(tokenCount, this.#dims.at(-2) as number);
    return this.#dims.with(-2, Math.ceil(tokens / PAGE_TOKENS) * PAGE_TOKENS);
  }

  async #reserve(shape: readonly number[]): Promise<void> {
    const { elementBytes } = this.#traits;
    const bytes = elementCount(shape) * elementBytes;
    await this.#owner.memory.reserve({ kind: "KV_CACHE", bytes, alignment: elementBytes });
  }

  /** Has a pinned tensor that may be written and is long enough. What was in it may be gone. */
  #place(): void {
    const { memory, id } = this.#owner;
    const neededBytes = elementCount(this.#dims) * this.#traits.elementBytes;
    if (this.#tensor !== null && !this.isSaved && neededBytes <= this.byteLength) return;
    this.#release();
    const generation = this.#generation + (this.isSaved ? 1 : 0);
    this.#tensor = memory.allocate({
      kind: "KV_CACHE",
      shape: this.#shapeWithRoom(0),
      dtype: dtypeOf(this.type),
      ...(id !== null && { id: tensorIdOf(id, generation, this.name) }),
    });
    this.#generation = generation;
    this.isSaved = false;
    this.pin();
    if (this.#pin?.view.buffer instanceof ArrayBuffer) return;
    this.#release();
    throw new MisuseError("unsupported", "the native runtime refuses views of a shared memory");
  }
}
