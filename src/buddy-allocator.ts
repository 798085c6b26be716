// The buddy allocator by itself: offsets without bytes, for callers who own the memory.
import { LANE_COUNT_MAX, SLOT_CAPACITY_MAX } from "../assembly/abi.js";
import { ControlPlane } from "./core/control-plane.js";
import { invariantName } from "./core/invariants.js";
import { type LaneToken, type LockCounters, requireLanes } from "./core/lanes.js";
import { createSharedMemory, createUnsharedMemory } from "./core/linear-memory.js";
import { MisuseError, TierError } from "./errors.js";
import { TENSOR_BYTES_MAX } from "./limits.js";
import { checkAlignment, checkObject, checkShared } from "./memory/checks.js";
import {
  openSingleArena,
  SINGLE_ARENA_OPTION_NAMES,
  type SingleArenaOptions,
} from "./memory/single-arena.js";
import { type Random, systemRandom } from "./random.js";
import { checkBytes } from "./types.js";

/**
 * A block, as one safe integer: slot in the low 21 bits; in the 32 above its generation, mixed with
 * the allocator's key. A handle whose block was freed is refused for ever, however often its slot is
 * used again. One of another allocator is refused because that one has another key.
 */
export type Handle = number;

/** The handle of no block: what {@link BuddyAllocator.tryAllocate} gives when it refuses. */
export const NULL_HANDLE: Handle = 0;

const SLOT_COUNT = SLOT_CAPACITY_MAX + 1;
const SLOT_MASK = SLOT_COUNT - 1;

export interface BuddyAllocatorOptions extends SingleArenaOptions {
  /**
   * Whether other threads can be given the allocator: {@link BuddyAllocator.share}. Default: false.
   * Needs shared memory, so in browsers a cross-origin isolated page.
   */
  readonly shared?: boolean;
  /** Draws the key of the handles. Default: the platform's generator. */
  readonly random?: Random;
}

/** Copies `byteLength` bytes; the two ranges may overlap. Offsets count from the managed range. */
export type BlockMove = (sourceOffset: number, targetOffset: number, byteLength: number) => void;

export interface BuddyStats {
  readonly capacityBytes: number;
  readonly requestedBytes: number;
  readonly requestedBytesPeak: number;
  readonly grantedBytes: number;
  /** Highest sum of granted bytes, with those of freed blocks that were kept for reuse. */
  readonly claimedBytesPeak: number;
  readonly freeBytes: number;
  readonly largestFreeBlockBytes: number;
  readonly allocationCount: number;
  readonly freeCount: number;
  readonly liveCount: number;
  readonly internalFragmentation: number;
  readonly externalFragmentation: number;
}

/** What one other thread needs to work on a shared allocator. Post it to that thread. */
export interface BuddyToken extends LaneToken {
  readonly arena: number;
  readonly key: number;
}

export class BuddyAllocator {
  readonly #core: ControlPlane;
  readonly #arena: number;
  /** Handles hold generations xor this. */
  readonly #key: number;
  #isMoving = false;

  private constructor(core: ControlPlane, arena: number, key: number) {
    this.#core = core;
    this.#arena = arena;
    this.#key = key;
  }

  /** @throws {MisuseError} `bad-size`, `bad-option`. */
  static async create(options: BuddyAllocatorOptions): Promise<BuddyAllocator> {
    checkObject(options, "BuddyAllocator.create", [
      ...SINGLE_ARENA_OPTION_NAMES,
      "random",
      "shared",
    ]);
    const isShared = checkShared(options.shared);
    const { core, arena } = await openSingleArena({
      ...options,
      createMemory: options.createMemory ?? (isShared ? createSharedMemory : createUnsharedMemory),
    });
    return new BuddyAllocator(core, arena, (options.random ?? systemRandom).uint32());
  }

  /**
   * Allocates a block that is large enough: the one of its size freed last, else a low one.
   *
   * @param bytes 1 to 2^32 − 1.
   * @param alignment A power of two up to 65,536. Default: 1.
   * @returns {@link NULL_HANDLE} when it does not fit.
   * @throws {MisuseError} `bad-size`, `bad-alignment`.
   * @remarks O(log n); one call into the core.
   */
  tryAllocate(bytes: number, alignment = 1): Handle {
    checkBytes(bytes, "bytes", TENSOR_BYTES_MAX);
    const slot = this.#core.allocate(this.#arena, bytes, checkAlignment(alignment));
    if (slot === 0) return NULL_HANDLE;
    return ((this.#core.generationOf(slot) ^ this.#key) >>> 0) * SLOT_COUNT + slot;
  }

  /** @throws {MisuseError} `stale-handle`, `foreign-handle`, `pinned`. */
  free(handle: Handle): void {
    this.#core.free(slotOf(handle), this.#generationOf(handle));
  }

  /**
   * Gives a block another length under the same handle: in place if its class stays, if it shrinks or
   * if what follows it is free; else by a second block, if the caller can move bytes.
   *
   * @param bytes 1 to 2^32 − 1. The first bytes are kept, as many as both lengths have.
   * @param options.alignment A power of two up to 65,536. Default: 1.
   * @param options.move Default: none; a block that would have to move is then not resized.
   * @returns Whether it was resized. If not, nothing has changed.
   * @throws {MisuseError} `bad-size`, `bad-alignment`, `bad-option`; `stale-handle`,
   *   `foreign-handle`; `re-entrant` — called from inside a `move`.
   * @throws Whatever `move` throws; the block is then what it was.
   */
  tryResize(
    handle: Handle,
    bytes: number,
    options: { readonly alignment?: number; readonly move?: BlockMove } = {},
  ): boolean {
    checkObject(options, "tryResize", ["alignment", "move"]);
    const { alignment = 1, move } = options;
    if (move !== undefined && typeof move !== "function") {
      throw new MisuseError("bad-option", "move is a function");
    }
    checkBytes(bytes, "bytes", TENSOR_BYTES_MAX);
    checkAlignment(alignment);
    const slot = slotOf(handle);
    const generation = this.#generationOf(handle);
    if (this.#isMoving) throw new MisuseError("re-entrant", "blocks are being moved");
    if (this.#core.tryResize(slot, generation, bytes, alignment)) return true;
    if (move === undefined) return false;
    const other = this.#core.allocate(this.#arena, bytes, alignment);
    if (other === 0) return false;
    const otherGeneration = this.#core.generationOf(other);
    this.#isMoving = true;
    try {
      const keptBytes = Math.min(this.#core.requestedBytesOf(slot), bytes);
      move(this.#core.offsetOf(slot), this.#core.offsetOf(other), keptBytes);
      this.#core.exchange(slot, generation, other, otherGeneration);
    } finally {
      this.#isMoving = false;
      this.#core.free(other, otherGeneration);
    }
    return true;
  }

  /** Bytes from the start of the managed range. @throws {MisuseError} `stale-handle`, `foreign-handle`. */
  offsetOf(handle: Handle): number {
    return this.#core.offsetOf(this.#resolve(handle));
  }

  /** Bytes of the block: requested, rounded up. @throws {MisuseError} `stale-handle`, `foreign-handle`. */
  grantedBytesOf(handle: Handle): number {
    return this.#core.grantedBytesOf(this.#resolve(handle));
  }

  /** O(1). */
  get largestFreeBlockBytes(): number {
    return this.#core.arenaCounters(this.#arena).largestFreeBlockBytes;
  }

  /**
   * Moves blocks so that what is free becomes one piece, but for gaps that no block fits. The caller
   * moves the bytes; source and target never overlap.
   *
   * @param move Copies `byteLength` bytes from `sourceOffset` to `targetOffset`.
   * @returns Bytes moved.
   * @throws {MisuseError} `bad-option`; `re-entrant` — called from inside `move`.
   * @throws Whatever `move` throws; that block stays where it was.
   */
  compact(move: BlockMove): number {
    if (typeof move !== "function") throw new MisuseError("bad-option", "move is a function");
    if (this.#isMoving) throw new MisuseError("re-entrant", "blocks are being moved");
    this.#isMoving = true;
    try {
      return this.#compactOnce(move);
    } finally {
      this.#isMoving = false;
    }
  }

  stats(): BuddyStats {
    const pool = this.#core.poolCounters(0);
    const arena = this.#core.arenaCounters(this.#arena);
    const { freeBytes, largestFreeBlockBytes } = arena;
    return {
      capacityBytes: arena.capacityBytes,
      requestedBytes: pool.requestedBytes,
      requestedBytesPeak: pool.requestedBytesPeak,
      grantedBytes: pool.grantedBytes,
      claimedBytesPeak: pool.claimedBytesPeak,
      freeBytes,
      largestFreeBlockBytes,
      allocationCount: pool.allocationCount,
      freeCount: pool.freeCount,
      liveCount: pool.liveCount,
      internalFragmentation:
        pool.grantedBytes === 0 ? 0 : 1 - pool.requestedBytes / pool.grantedBytes,
      externalFragmentation: freeBytes === 0 ? 0 : 1 - largestFreeBlockBytes / freeBytes,
    };
  }

  /** The first invariant that is broken, such as `"INV-TREE-2"`, or null. */
  verify(): string | null {
    const code = this.#core.check();
    return code === 0 ? null : invariantName(code);
  }

  // --- Several threads -----------------------------------------------------------------------------

  /** Number of this thread among those that work on the allocator; 1 for who created it. */
  get lane(): number {
    return this.#core.lane;
  }

  /**
   * A token with which one other thread can work on this allocator: post it there, and there call
   * {@link BuddyAllocator.attach}. When the thread has ended, call {@link releaseLane}.
   *
   * @throws {MisuseError} `unsupported` — not created with `shared: true`.
   * @throws {TierError} `busy` — as many threads as there can be have one.
   */
  share(): BuddyToken {
    const token = requireLanes(this.#core.lanes).reserve();
    if (token === null) throw new TierError("busy", "memory", "all lanes are taken");
    return { ...token, arena: this.#arena, key: this.#key };
  }

  /**
   * The allocator that the token's maker shares, for this thread. Handles are good in every thread,
   * but a block belongs to the thread that allocated it, which alone frees and pins it, until it is
   * handed over.
   *
   * @throws {MisuseError} `bad-option` — not a token, or used before.
   */
  static async attach(token: BuddyToken): Promise<BuddyAllocator> {
    checkObject(token, "BuddyAllocator.attach", [
      "memory",
      "module",
      "base",
      "lane",
      "arena",
      "key",
    ]);
    return new BuddyAllocator(await ControlPlane.attach(token), token.arena, token.key);
  }

  /**
   * Gives a block away: until another thread has {@link adopt}ed it, it is nobody's.
   *
   * @throws {MisuseError} `stale-handle`, `foreign-handle`, `pinned`, `not-owner`.
   */
  handOver(handle: Handle): void {
    requireLanes(this.#core.lanes).handOver(slotOf(handle), this.#generationOf(handle));
  }

  /**
   * Makes a block that was handed over one of this thread.
   *
   * @throws {MisuseError} `stale-handle`, `foreign-handle`; `not-owner` — it was not handed over, or
   *   somebody else was quicker.
   */
  adopt(handle: Handle): void {
    requireLanes(this.#core.lanes).adopt(slotOf(handle), this.#generationOf(handle));
  }

  /**
   * Takes back what a thread had that has ended, however it ended: its blocks are freed, and a change
   * that it was in the middle of is undone or done.
   *
   * @param lane Of its token.
   * @returns false when another thread is changing the allocator at this moment: try again.
   * @throws {PoisonedError} It left damage that cannot be repaired.
   * @throws {MisuseError} `bad-option` — no such lane.
   */
  releaseLane(lane: number): boolean {
    return requireLanes(this.#core.lanes).release(checkBytes(lane, "lane", LANE_COUNT_MAX));
  }

  /** How often threads have met at the allocator's lock. O(1). */
  lockStats(): LockCounters {
    return requireLanes(this.#core.lanes).lockCounters;
  }

  /**
   * Rebuilds the books after a `PoisonedError`. Every block is where it was; the call that was
   * interrupted has happened or has not. A block that it allocated and nobody got a handle of stays.
   *
   * @throws {PoisonedError} The table of handles itself is damaged.
   * @remarks Cost: as {@link verify}, and the whole metadata is written anew.
   */
  recover(): void {
    this.#core.recover();
  }

  #compactOnce(move: BlockMove): number {
    this.#core.beginCompaction(this.#arena);
    let passBytes = 0;
    for (let next = this.#core.nextMove(); next !== null; next = this.#core.nextMove()) {
      try {
        move(next.sourceOffset, next.targetOffset, next.byteLength);
      } catch (error) {
        this.#core.vetoMove();
        throw error;
      }
      if (this.#core.commitMove()) passBytes += next.byteLength;
    }
    return passBytes;
  }

  #resolve(handle: Handle): number {
    const slot = slotOf(handle);
    this.#core.resolve(slot, this.#generationOf(handle));
    return slot;
  }

  #generationOf(handle: Handle): number {
    return Math.floor(handle / SLOT_COUNT) ^ this.#key;
  }
}

/** @throws {MisuseError} `foreign-handle` — not a number that a handle can be. */
function slotOf(handle: Handle): number {
  if (!Number.isSafeInteger(handle) || handle < 1) {
    throw new MisuseError("foreign-handle", "not a handle");
  }
  // The low bits also of a double: a remainder would be a call.
  return handle & SLOT_MASK;
}
