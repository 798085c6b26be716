// What a memory should hold, and one caller that does random things to it and compares. Several
// callers may share one memory, each with ids of its own.
import { TierheapError } from "../../src/index.js";
import type { Pin } from "../../src/memory/pin.js";
import type { Random } from "../../src/random.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import type { TensorKind } from "../../src/types.js";

const KINDS: readonly TensorKind[] = ["KV_CACHE", "ACTIVATIONS", "TEXT_EMBEDDINGS"];

/** Refusals that pressure, a full tier or another caller's pins may cause. */
const EXPECTED_CODES = new Set(["out-of-memory", "busy"]);

interface Expected {
  byteLength: number;
  /** Value of every byte. */
  value: number;
  /** Values that the record which outlives the tensor may have: demotions renew it. Empty: none. */
  saved: Set<number>;
}

export type Operation = keyof typeof OPERATIONS;

/** One caller and its view of what it owns. */
export class Caller {
  readonly tensors = new Map<string, Expected>();
  readonly held: { readonly pin: Pin; readonly id: string }[] = [];
  readonly counts = new Map<string, number>();
  readonly refusals = new Map<string, number>();
  readonly memory: TensorMemory;
  readonly random: Random;
  readonly #prefix: string;
  #nextId = 0;

  constructor(memory: TensorMemory, random: Random, prefix: string) {
    this.memory = memory;
    this.random = random;
    this.#prefix = prefix;
  }

  below(limit: number): number {
    return this.random.uint32() % limit;
  }

  /** Some tensor of this caller, or null. */
  pick(): [string, Expected] | null {
    const ids = [...this.tensors.keys()];
    const id = ids[this.below(Math.max(1, ids.length))];
    return id === undefined ? null : [id, this.tensors.get(id) as Expected];
  }

  isHeld(id: string): boolean {
    return this.held.some((at) => at.id === id);
  }

  newId(): string {
    return `${this.#prefix}/${this.#nextId++}`;
  }

  check(pin: Pin, expected: Expected, id: string): void {
    const { bytes } = pin;
    if (bytes.byteLength !== expected.byteLength) throw new Error(`${id} has another length`);
    const same = Buffer.alloc(expected.byteLength, expected.value);
    if (same.compare(bytes) !== 0) throw new Error(`${id} has other bytes than were written`);
  }

  async step(operation: Operation): Promise<void> {
    this.counts.set(operation, (this.counts.get(operation) ?? 0) + 1);
    try {
      await OPERATIONS[operation](this);
    } catch (error) {
      if (!(error instanceof TierheapError) || !EXPECTED_CODES.has(error.code)) throw error;
      this.refusals.set(error.code, (this.refusals.get(error.code) ?? 0) + 1);
    }
  }
}

const OPERATIONS = {
  allocate: async (caller: Caller) => {
    if (caller.tensors.size >= 60) return;
    const id = caller.newId();
    const kind = KINDS[caller.below(KINDS.length)] as TensorKind;
    const byteLength = 1 + caller.below(caller.below(20) === 0 ? 1_200_000 : 60_000);
    const value = caller.below(256);
    if (caller.below(2) === 0) await caller.memory.reserve({ kind, bytes: byteLength });
    const tensor = caller.memory.allocate({ kind, byteLength, id });
    caller.tensors.set(id, { byteLength, value, saved: new Set() });
    using pin = tensor.pin();
    pin.bytes.fill(value);
  },
  free: async (caller: Caller) => {
    const [id, expected] = caller.pick() ?? [];
    if (id === undefined || expected === undefined || caller.isHeld(id)) return;
    const { saved } = expected;
    caller.memory.free(id);
    caller.tensors.delete(id);
    try {
      // A saved record stays: it is found again, and then deleted for good.
      using lease = await caller.memory.acquire(id, { access: "read" });
      const value = lease?.bytes[0] ?? -1;
      if (lease === null ? saved.size > 0 : !saved.has(value)) {
        throw new Error(`${id} is ${value} after it was freed`);
      }
      if (lease !== null) caller.check(lease, { ...expected, value }, id);
    } finally {
      await caller.memory.delete(id);
    }
  },
  write: async (caller: Caller) => {
    const [id, expected] = caller.pick() ?? [];
    if (id === undefined || expected === undefined) return;
    using lease = await caller.memory.acquire(id);
    if (lease === null) throw new Error(`${id} is gone`);
    caller.check(lease, expected, id);
    expected.value = caller.below(256);
    if (expected.saved.size > 0) expected.saved.add(expected.value);
    lease.bytes.fill(expected.value);
  },
  read: async (caller: Caller) => {
    const [id, expected] = caller.pick() ?? [];
    if (id === undefined || expected === undefined) return;
    using lease =
      caller.memory.tryAcquire(id, { access: "read" }) ??
      (await caller.memory.acquire(id, { access: "read" }));
    if (lease === null) throw new Error(`${id} is gone`);
    caller.check(lease, expected, id);
  },
  hold: async (caller: Caller) => {
    const [id, expected] = caller.pick() ?? [];
    if (id === undefined || expected === undefined || caller.held.length >= 3) return;
    const pin = await caller.memory.acquire(id, { access: "read" });
    if (pin === null) throw new Error(`${id} is gone`);
    caller.held.push({ pin, id });
  },
  letGo: async (caller: Caller) => {
    const held = caller.held.shift();
    if (held === undefined) return;
    using pin = held.pin;
    caller.check(pin, caller.tensors.get(held.id) as Expected, held.id);
  },
  swapOut: async (caller: Caller) => {
    const [id, expected] = caller.pick() ?? [];
    if (id === undefined || expected === undefined || caller.isHeld(id)) return;
    await caller.memory.swapOut(id);
  },
  save: async (caller: Caller) => {
    const [id, expected] = caller.pick() ?? [];
    if (id === undefined || expected === undefined) return;
    const canBeDurable = caller.memory.stats().tier.name !== "memory";
    const mode = canBeDurable && caller.below(4) === 0 ? "durable" : "cache";
    if ((await caller.memory.save(id, { mode })) === "stored")
      expected.saved = new Set([expected.value]);
  },
  compact: async (caller: Caller) => {
    caller.memory.compact(
      caller.below(2) === 0 ? {} : { bytesMovedMax: 1 + caller.below(100_000) },
    );
  },
  trim: async (caller: Caller) => {
    caller.memory.trim();
  },
};
