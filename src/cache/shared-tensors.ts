// Tensors of equal content, which share one block and one swapped-out copy. The content has a record of
// its own in the directory, named by what it holds and never written: whoever wants to write gets bytes of
// its own first. Each tensor keeps its own record, with its id and its saved copy.
import type { ControlPlane } from "../core/control-plane.js";
import { MisuseError } from "../errors.js";
import { CONTENT_PREFIX } from "../limits.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import { checkObject, checkSignal } from "../memory/checks.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import {
  type CheckedTensor,
  checkTensorOptions,
  TENSOR_OPTION_NAMES,
  type TensorOptions,
} from "../memory/options.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import { type Dtype, describe, type TensorKind } from "../types.js";
import { privateBytes, privateCopy } from "../util/private-bytes.js";
import type { Directory } from "./directory.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { Reclaimer } from "./reclaimer.js";
import type { TensorRecord } from "./tensor-record.js";

export type InternOptions<D extends Dtype = Dtype> = TensorOptions<D> & {
  readonly id: string;
  /** As many as dtype and shape say. They must not change until the call resolves. */
  readonly bytes: ArrayBufferView;
  readonly disposable?: undefined;
  readonly zero?: undefined;
  readonly signal?: AbortSignal | undefined;
};

export interface SharingStats {
  /** Tensors whose bytes are a content's: others may share them. */
  readonly sharedCount: number;
  readonly contentCount: number;
  /** Bytes of those tensors less the bytes of their contents. */
  readonly savedBytes: number;
  /** Copies that were made because a shared tensor was to be written. */
  readonly copyCount: number;
}

export interface SharedTensorsOptions {
  readonly core: ControlPlane;
  readonly shelf: ArenaShelf;
  readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly directory: Directory;
  readonly swapper: MemorySwapper;
  readonly reclaimer: Reclaimer;
  readonly policy: EvictionPolicy;
}

/** What a content is told apart by, beside its bytes. */
type ContentShape = Pick<CheckedTensor, "kind" | "dtype" | "shape" | "layout" | "alignment">;

/** Bytes hashed at once: the engine copies them, outside the budget. */
const HASHED_BYTES_MAX = 2 ** 20;
const DIGEST_BYTES = 32;

/** @throws {MisuseError} `bad-*`. */
export function checkInternOptions(options: InternOptions) {
  const given = checkObject(options, "intern", [...TENSOR_OPTION_NAMES, "bytes", "signal"]);
  const { bytes, signal, ...rest } = given;
  const checked = checkTensorOptions(rest as TensorOptions);
  if (checked.id === null) throw new MisuseError("bad-id", "intern: a shared tensor needs an id");
  if (checked.isDisposable || checked.isZeroed) {
    throw new MisuseError("bad-option", "intern: neither disposable nor zero");
  }
  if (!ArrayBuffer.isView(bytes) || bytes.byteLength !== checked.byteLength) {
    throw new MisuseError("bad-size", `intern: bytes is a view of ${checked.byteLength} bytes`);
  }
  const source = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { checked, id: checked.id, source, signal: checkSignal(signal) };
}

/**
 * The name of a content: SHA-256 over kind, dtype, shape, layout, alignment and the SHA-256 of each
 * mebibyte of its bytes.
 *
 * @param source Must not change meanwhile.
 */
export async function contentName(content: ContentShape, source: Uint8Array): Promise<string> {
  const { kind, dtype, shape, layout, alignment } = content;
  const label = JSON.stringify(["tierheap content 1", kind, dtype, shape, layout, alignment]);
  const head = new TextEncoder().encode(label);
  const partCount = Math.ceil(source.byteLength / HASHED_BYTES_MAX);
  const input = privateBytes(head.byteLength + partCount * DIGEST_BYTES);
  input.set(head);
  for (let part = 0; part < partCount; part++) {
    const start = part * HASHED_BYTES_MAX;
    const bytes = privateCopy(source.subarray(start, start + HASHED_BYTES_MAX));
    const digest = await crypto.subtle.digest("SHA-256", bytes);
    input.set(new Uint8Array(digest), head.byteLength + part * DIGEST_BYTES);
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", input));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return CONTENT_PREFIX + hex;
}

export class SharedTensors {
  readonly #core: ControlPlane;
  readonly #shelf: ArenaShelf;
  readonly #pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly #directory: Directory;
  readonly #swapper: MemorySwapper;
  readonly #reclaimer: Reclaimer;
  readonly #policy: EvictionPolicy;
  #sharedCount = 0;
  #contentCount = 0;
  #savedBytes = 0;
  #copyCount = 0;

  constructor(options: SharedTensorsOptions) {
    this.#core = options.core;
    this.#shelf = options.shelf;
    this.#pools = options.pools;
    this.#directory = options.directory;
    this.#swapper = options.swapper;
    this.#reclaimer = options.reclaimer;
    this.#policy = options.policy;
  }

  /** @throws {MisuseError} `duplicate-id`. */
  checkUnused(id: string): void {
    if (this.#directory.named(id) === undefined) return;
    throw new MisuseError("duplicate-id", `the id ${describe(id)} is in use`);
  }

  /** Whether there is a content of that name whose bytes can be had. */
  has(name: string): boolean {
    return this.#directory.named(name)?.isLost === false;
  }

  /**
   * A new tensor with the content of that name, which is made of `source` unless it is there.
   *
   * @param checked With an id that is not in use.
   * @throws {OutOfMemoryError} It is not there, and no room can be made without waiting.
   */
  intern(checked: CheckedTensor, name: string, source: Uint8Array): TensorRecord {
    const pool = this.#pools.get(checked.kind) as MemoryPool;
    let content = this.#directory.named(name);
    if (content === undefined || content.isLost) {
      const slot = this.#reclaimer.place(pool, checked.byteLength, checked.alignment);
      this.#bytesOf(slot, checked.byteLength).set(source);
      content ??= this.#addContent(checked, name, pool);
      content.isLost = false;
      this.#swapper.attach(content, slot);
    }
    const record = this.#directory.add(checked, pool);
    this.#join(record, content);
    return record;
  }

  /** A new tensor with the content of another one, which is shared already. @param id Not in use. */
  tie(id: string, other: TensorRecord): TensorRecord {
    const { kind, dtype, shape, layout, byteLength, alignment, tag, errorBudget, pool } = other;
    const like = { kind, dtype, shape, layout, byteLength, alignment, tag, errorBudget };
    const options = { ...like, id, isDisposable: false, recomputeMs: null };
    const record = this.#directory.add(options, pool);
    this.#join(record, other.shared as TensorRecord);
    return record;
  }

  /**
   * Makes the bytes of a tensor a content, or gives them up for the one that is there.
   *
   * @param record Resident, without a transfer, a write pin or a content.
   * @param name What its bytes are called.
   * @throws {MisuseError} `pinned` — the content is there, and somebody reads the tensor's own bytes.
   */
  share(record: TensorRecord, name: string): void {
    const { slot, generation, pool } = record;
    let content = this.#directory.named(name);
    if (content !== undefined && !content.isLost) {
      if (this.#core.pinCountOf(slot) > 0) throw new MisuseError("pinned", "the tensor is pinned");
      this.#swapper.strip(record);
      pool.free(slot, generation);
    } else {
      this.#swapper.strip(record);
      content ??= this.#addContent(record, name, pool);
      content.isLost = false;
      this.#swapper.attach(content, slot);
    }
    this.#join(record, content);
  }

  /**
   * Gives a shared tensor bytes of its own: those of the content if nobody else shares them, else a copy.
   *
   * @param record Its content is resident.
   * @throws {OutOfMemoryError} No room for a copy can be made without waiting; nothing has changed.
   * @throws {MisuseError} `pinned` — nobody else shares it, and a transfer of it is under way.
   */
  own(record: TensorRecord): void {
    const content = record.shared as TensorRecord;
    const { slot, byteLength } = content;
    if (content.referenceCount === 1) {
      if (content.transfer !== null) throw new MisuseError("pinned", "the tensor is being moved");
      this.#swapper.releaseFreed(content);
      this.#leave(record);
      this.#swapper.attach(record, slot);
      return;
    }
    const own = this.#reclaimer.placeBeside(content, byteLength);
    this.#bytesOf(own, byteLength).set(this.#bytesOf(slot, byteLength));
    this.#leave(record);
    this.#swapper.attach(record, own);
    this.#copyCount += 1;
  }

  /**
   * Frees a shared tensor; the last one frees the content.
   *
   * @throws {MisuseError} `pinned` — it is the last one. Pins of one that is not stay as they are.
   */
  release(record: TensorRecord): void {
    const content = record.shared as TensorRecord;
    if (content.referenceCount === 1) this.#swapper.release(content);
    this.#leave(record);
    this.#swapper.endShared(record);
    this.#directory.remove(record);
  }

  /** After a recovery: the tensors that are gone, and those that shared a content that is gone. */
  withHolders(gone: readonly TensorRecord[]): TensorRecord[] {
    const all = new Set(gone);
    for (const record of this.#directory) {
      const { shared } = record;
      if (shared === null || !all.has(shared)) continue;
      this.#uncount(record, shared);
      if (shared.referenceCount === 0) this.#contentCount -= 1;
      record.isFreed = true;
      all.add(record);
    }
    return [...all];
  }

  stats(): SharingStats {
    return {
      sharedCount: this.#sharedCount,
      contentCount: this.#contentCount,
      savedBytes: this.#savedBytes,
      copyCount: this.#copyCount,
    };
  }

  #addContent(like: ContentShape & { byteLength: number }, id: string, pool: MemoryPool) {
    const { kind, dtype, shape, layout, byteLength, alignment } = like;
    const options = { id, kind, dtype, shape, layout, byteLength, alignment };
    // Exact, or it would no longer be what its name says.
    const rest = {
      ...{ tag: "", isDisposable: false, recomputeMs: null },
      errorBudget: "exact" as const,
    };
    return this.#directory.add({ ...options, ...rest }, pool);
  }

  #join(record: TensorRecord, content: TensorRecord): void {
    record.shared = content;
    content.referenceCount += 1;
    this.#sharedCount += 1;
    if (content.referenceCount === 1) this.#contentCount += 1;
    else this.#savedBytes += content.byteLength;
  }

  /** The tensor no longer shares; a content that nobody shares has given everything up before. */
  #leave(record: TensorRecord): void {
    const content = record.shared as TensorRecord;
    this.#uncount(record, content);
    if (content.referenceCount > 0) return;
    this.#contentCount -= 1;
    this.#policy.forget(content.index);
    this.#directory.remove(content);
  }

  #uncount(record: TensorRecord, content: TensorRecord): void {
    record.shared = null;
    content.referenceCount -= 1;
    this.#sharedCount -= 1;
    if (content.referenceCount > 0) this.#savedBytes -= content.byteLength;
  }

  #bytesOf(slot: number, byteLength: number): Uint8Array {
    return this.#shelf.arenaOf(slot).bytes(this.#core.offsetOf(slot), byteLength);
  }
}
