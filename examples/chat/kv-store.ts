/**
 * Where a chat's KV lives between its turns: in tierheap, or for the proof in plain arrays. Both
 * give the runtime the same views; neither knows what is said.
 *
 * A turn reads the KV of all turns before it and leaves KV of another length behind, with another
 * stride, so each turn's tensors are new ones, written once. Their ids carry the turn: whoever
 * finds them knows exactly which tokens they hold.
 */
import { CorruptionError, type Pin, type TensorMemory } from "tierheap";
import type { KvShape, KvViews } from "./runtime.js";

/** Which KV: that of the first `tokens` tokens of a chat, as left by its `turn`. */
export interface KvState {
  readonly chat: number;
  /** Turns taken; 0 before the first. */
  readonly turn: number;
  /** Tokens in the cache; 0 before the first turn. */
  readonly tokens: number;
}

/** KV that stays where it is until it is released. */
export interface HeldKv {
  /** Each [1, kvHeads, tokens, headDim]. */
  readonly views: KvViews;
  release(): void;
}

/** The KV of a turn that is being taken. */
export interface GrowingKv {
  /** Takes over the runtime's output for `tokens` tokens and shows it again as the next past. */
  update(present: KvViews, tokens: number): KvViews;
  release(): void;
}

export interface KvStore {
  /** The KV of a state, or null when it is gone: the caller then computes it again. */
  hold(state: KvState): Promise<HeldKv | null>;
  /** Drops the KV of a state. It must not be held. */
  drop(state: KvState): Promise<void>;
  /** Makes room for the KV that a turn will leave. */
  grow(state: KvState): Promise<GrowingKv>;
}

/** Elements of one KV tensor. */
export function elementCount(kv: KvShape, tokens: number): number {
  return kv.kvHeads * tokens * kv.headDim;
}

/** Bytes of all KV tensors of one chat. */
export function kvBytes(kv: KvShape, tokens: number): number {
  return 2 * kv.layers * elementCount(kv, tokens) * (kv.dtype === "f32" ? 4 : 2);
}

/** A restore of a whole chat: nothing of it was resident. */
export interface Restore {
  readonly state: KvState;
  readonly durationMs: number;
  /** As the heap had foretold it; null before it knew how fast its tiers are. */
  readonly expectedMs: number | null;
}

/** KV in tierheap: resident while it is used, wherever there is room for it otherwise. */
export class HeapKvStore implements KvStore {
  readonly restores: Restore[] = [];
  /** Chats whose KV was on disk, in whole or in part, when they were visited. */
  swappedInCount = 0;
  /** How long each visit waited for KV that had been prefetched. */
  readonly prefetchedWaitsMs: number[] = [];
  /** Chats whose KV was gone or damaged. */
  lostCount = 0;
  readonly #memory: TensorMemory;
  readonly #kv: KvShape;
  readonly #answerTokens: number;
  readonly #now: () => number;
  readonly #prefetched = new Set<string>();

  constructor(memory: TensorMemory, kv: KvShape, answerTokens: number, now: () => number) {
    this.#memory = memory;
    this.#answerTokens = answerTokens;
    this.#kv = kv;
    this.#now = now;
  }

  /** What the ids of a state's tensors begin with: the id of its cache. */
  idOf({ chat, turn }: KvState): string {
    return `${prefixOf(chat)}turn-${turn}`;
  }

  /** The ids of a chain, head first: what a runtime needs first. */
  idsOf(state: KvState): string[] {
    const ids: string[] = [];
    for (let layer = 0; layer < this.#kv.layers; layer++) {
      for (const part of ["key", "value"]) ids.push(`${this.idOf(state)}/${layer}.${part}`);
    }
    return ids;
  }

  /**
   * Tells the heap that the tensors of a state were used together. The example's answers have a fixed
   * length, so that is known before they are made.
   */
  touch(state: KvState): void {
    const { turn } = state;
    const outputTokens = this.#answerTokens;
    this.#memory.touchChain(this.idsOf(state), { stopReason: "end", outputTokens, turn });
  }

  /**
   * Starts to bring in the KV of a chat that is next in line, while another one is answered.
   *
   * @returns When it is there, or could not be brought in.
   */
  async prefetch(state: KvState): Promise<void> {
    const ids = this.idsOf(state);
    if (state.turn === 0 || this.#residentCount(ids) === ids.length) return;
    this.#prefetched.add(keyOf(state));
    await this.#memory.prefetch(ids, { stream: prefixOf(state.chat) });
  }

  #residentCount(ids: readonly string[]): number {
    return ids.filter((id) => this.#memory.tensor(id)?.isResident === true).length;
  }

  /** What bringing these back would take, one after the other. */
  async #expectedMs(ids: readonly string[]): Promise<number | null> {
    let sumMs = 0;
    for (const id of ids) {
      const restoreMs = (await this.#memory.estimateRestore(id))?.restoreMs ?? null;
      if (restoreMs === null) return null;
      sumMs += restoreMs;
    }
    return sumMs;
  }

  async hold(state: KvState): Promise<HeldKv | null> {
    const ids = this.idsOf(state);
    const residentCount = this.#residentCount(ids);
    const wasPrefetched = this.#prefetched.delete(keyOf(state));
    const isWhole = residentCount === 0 && !wasPrefetched;
    const expectedMs = isWhole ? await this.#expectedMs(ids) : null;
    const startMs = this.#now();
    let leases: Pin[] | null = null;
    try {
      // The runtime only reads; so the copies on disk stay valid.
      const stream = prefixOf(state.chat);
      leases = await this.#memory.acquireChain(ids, { access: "read", stream });
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
    }
    if (leases === null) {
      this.lostCount += 1;
      return null;
    }
    const held = leases;
    const durationMs = this.#now() - startMs;
    if (wasPrefetched || residentCount < ids.length) this.swappedInCount += 1;
    if (wasPrefetched) this.prefetchedWaitsMs.push(durationMs);
    else if (isWhole) this.restores.push({ state, durationMs, expectedMs });
    return {
      views: held.map((lease) => lease.view as Float32Array | Uint16Array),
      release: () => {
        for (const lease of held) lease[Symbol.dispose]();
      },
    };
  }

  async drop(state: KvState): Promise<void> {
    await Promise.all(this.idsOf(state).map((id) => this.#memory.delete(id)));
  }

  async grow(state: KvState): Promise<GrowingKv> {
    const { kvHeads, headDim, dtype } = this.#kv;
    const ids = this.idsOf(state);
    const bytes = elementCount(this.#kv, state.tokens) * (dtype === "f32" ? 4 : 2);
    await this.#memory.reserve({ kind: "KV_CACHE", bytes, count: ids.length });
    const shape = [1, kvHeads, state.tokens, headDim];
    // What is gone can be computed again: a full disk costs time, not the run.
    const tensors = ids.map((id) =>
      this.#memory.allocate({ kind: "KV_CACHE", id, shape, dtype, disposable: true }),
    );
    // Not before all have a place: what is pinned cannot be moved together.
    const pins = tensors.map((tensor) => tensor.pin({ access: "write" }));
    this.touch(state);
    return {
      update: (present, tokens) =>
        pins.map((pin, index) => {
          const past = pin.view.subarray(0, elementCount(this.#kv, tokens));
          past.set(present[index] as typeof past);
          return past;
        }),
      release: () => {
        for (const pin of pins) pin[Symbol.dispose]();
      },
    };
  }
}

/** Ids of everything that belongs to one chat begin with this. */
export function prefixOf(chat: number): string {
  return `chat/${String(chat).padStart(2, "0")}/`;
}

/** KV in plain arrays without any limit: the reference that tierheap is compared with. */
export class PlainKvStore implements KvStore {
  readonly #kept = new Map<string, KvViews>();

  async hold(state: KvState): Promise<HeldKv | null> {
    const views = this.#kept.get(keyOf(state));
    return views === undefined ? null : { views, release: () => {} };
  }

  async drop(state: KvState): Promise<void> {
    this.#kept.delete(keyOf(state));
  }

  async grow(state: KvState): Promise<GrowingKv> {
    return {
      update: (present) => {
        this.#kept.set(keyOf(state), present);
        return present;
      },
      release: () => {},
    };
  }
}

function keyOf({ chat, turn }: KvState): string {
  return `${chat}/${turn}`;
}
