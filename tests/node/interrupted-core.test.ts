// A change of the core cut off before any of its stores: recovery gives a plane whose invariants hold,
// with every block that was live before, where it was, and of the change itself all or nothing.
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import * as abi from "../../assembly/abi.js";
import type { CoreExports } from "../../src/core/wasm-modules.js";
import { seededRandom } from "../../src/random.js";
import { instrumentCore, TOUCH_ATOMIC, TOUCH_LOAD } from "../support/instrumented-core.mjs";
import { withSeed } from "../support/oracle.js";

const SLOT_CAPACITY = 160;
const ARENA_CAPACITY = 5;
const SLAB_GRANULES = abi.CLASS_SLABS_FROM * abi.SUPERBLOCK_UNITS;
const PLAIN_GRANULES = 4096;
const STEP_COUNT = 260;
/** Cuts tried of one change, spread over its stores. */
const CUTS_MAX = 24;

class Cut extends Error {}

/** Live blocks by slot and generation: where each one is, and how long. */
type Blocks = Map<string, string>;

class Plane {
  readonly memory = new WebAssembly.Memory({ initial: 4, maximum: 4 });
  readonly core: CoreExports;
  readonly #plain: CoreExports;
  readonly base: number;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #used: number;
  #storesLeft = Number.POSITIVE_INFINITY;
  storeCount = 0;

  constructor(instrumented: WebAssembly.Module, release: WebAssembly.Module) {
    const touch = (kind: number) => {
      if (kind === TOUCH_LOAD || kind === TOUCH_ATOMIC) return;
      this.storeCount += 1;
      if (this.#storesLeft-- === 0) throw new Cut();
    };
    const env = { memory: this.memory, touch };
    this.core = new WebAssembly.Instance(instrumented, { env }).exports as unknown as CoreExports;
    const plain = new WebAssembly.Instance(release, { env: { memory: this.memory } });
    this.#plain = plain.exports as unknown as CoreExports;
    this.base = this.core.controlHeapBase();
    this.#words = new Int32Array(this.memory.buffer);
    const metadataBytes = 40_000;
    this.#used = this.core.controlBytes(SLOT_CAPACITY, ARENA_CAPACITY, metadataBytes);
    this.#bytes = new Uint8Array(this.memory.buffer, this.base, this.#used);
    this.#bytes.fill(0xa5);
    expect(this.core.controlInit(this.base, this.#used, SLOT_CAPACITY, ARENA_CAPACITY)).toBe(0);
    expect(this.core.arenaOpen(this.base, 0, SLAB_GRANULES, 6)).toBe(1);
    expect(this.core.arenaOpen(this.base, 1, PLAIN_GRANULES, 6)).toBe(2);
  }

  snapshot(): Uint8Array {
    return this.#bytes.slice();
  }

  restore(snapshot: Uint8Array): void {
    this.#bytes.set(snapshot);
  }

  /** Runs `change` and cuts it off before store `index`. @returns Whether it was cut off. */
  cut(index: number, change: () => unknown): boolean {
    this.#storesLeft = index;
    try {
      change();
      return false;
    } catch (error) {
      if (error instanceof Cut) return true;
      throw error;
    } finally {
      this.#storesLeft = Number.POSITIVE_INFINITY;
    }
  }

  recover(): number {
    return this.#plain.recover(this.base);
  }

  word(offset: number): number {
    return this.#words[(this.base + offset) / 4] as number;
  }

  setWord(offset: number, value: number): void {
    this.#words[(this.base + offset) / 4] = value;
  }

  hotOffset(slot: number): number {
    return this.word(abi.CONTROL_OFF_HOT) + slot * abi.HOT_BYTES;
  }

  generationOf(slot: number): number {
    return this.word(this.hotOffset(slot) + abi.HOT_OFF_GENERATION);
  }

  blocks(): Blocks {
    const blocks: Blocks = new Map();
    const end = this.word(abi.CONTROL_OFF_SLOT_FRESH);
    for (let slot = 1; slot < end; slot++) {
      const hot = this.hotOffset(slot);
      const state = this.word(hot + abi.HOT_OFF_SIZING);
      const isPinned = ((state >>> 8) & 0xff) === abi.SLOT_STATE_PINNED;
      if (!isPinned && ((state >>> 8) & 0xff) !== abi.SLOT_STATE_LIVE) continue;
      const cold = this.word(abi.CONTROL_OFF_COLD) + slot * abi.COLD_BYTES;
      const pinCount = isPinned ? this.word(cold + abi.COLD_OFF_PINS) : 0;
      const place = [hot + abi.HOT_OFF_OFFSET, hot + abi.HOT_OFF_REQUESTED];
      const text = [...place.map((offset) => this.word(offset)), state >>> 16, pinCount].join(" ");
      blocks.set(`${slot}:${this.generationOf(slot)}`, text);
    }
    return blocks;
  }
}

let instrumented: WebAssembly.Module;
let release: WebAssembly.Module;

beforeAll(() => {
  const bytes = readFileSync("build/core.wasm");
  instrumented = instrumentCore(bytes);
  release = new WebAssembly.Module(bytes);
});

/** Names of the blocks in which the two differ. */
function differences(left: Blocks, right: Blocks): string[] {
  const names = new Set([...left.keys(), ...right.keys()]);
  return [...names].filter((name) => left.get(name) !== right.get(name));
}

function nextChange(plane: Plane, unit: () => number): () => unknown {
  const { core, base } = plane;
  const draw = unit();
  const arena = unit() < 0.6 ? 1 : unit() < 0.7 ? 2 : 3;
  const live = [...plane.blocks().keys()].map((name) => name.split(":").map(Number));
  const [slot, generation] = live[Math.floor(unit() * live.length)] ?? [0, 0];
  const growth = live.length < SLOT_CAPACITY * 0.8 ? 0.5 : 0.3;
  if (draw < growth) {
    const bytes = Math.floor(2 ** (6 + unit() * (arena === 1 ? 14 : 9)));
    return () => core.arenaAllocate(base, arena, bytes, 1);
  }
  if (draw < 0.82) return () => core.slotFree(base, slot as number, generation as number);
  if (draw < 0.86) return () => core.slotPin(base, slot as number, generation as number);
  if (draw < 0.9) return () => core.slotUnpin(base, slot as number, generation as number);
  if (draw < 0.92) {
    const needBytes = unit() < 0.5 ? 0 : Math.floor(unit() * 2 ** 21);
    const maySlide = unit() < 0.5;
    return () => core.compactBegin(base, arena, needBytes, maySlide);
  }
  if (draw < 0.93) {
    const [from, into] = unit() < 0.5 ? [2, 3] : [3, 2];
    return () => core.compactEvacuate(base, from as number, into as number);
  }
  if (draw < 0.95) return () => core.compactNext(base);
  if (draw < 0.97) return () => core.compactCommit(base);
  if (draw < 0.98) return () => core.arenaAllocateWhole(base, 3, 4096);
  const granules = 512 + Math.floor(unit() * 512);
  if (draw < 0.99) return () => core.arenaOpen(base, 1, granules, 6);
  return () => core.arenaClose(base, 3);
}

describe("a change of the core that is cut off", () => {
  it("is undone or done after recovery, whichever store it was cut off before", () =>
    withSeed("cut changes", (seed) => {
      const random = seededRandom(seed);
      const unit = () => random.uint32() / 2 ** 32;
      const plane = new Plane(instrumented, release);
      let cutCount = 0;
      for (let step = 0; step < STEP_COUNT; step++) {
        const change = nextChange(plane, unit);
        const before = plane.snapshot();
        const blocksBefore = plane.blocks();
        const planSlot = plane.word(abi.CONTROL_OFF_PLAN_SLOT);
        plane.storeCount = 0;
        change();
        const storeCount = plane.storeCount;
        const after = plane.snapshot();
        const blocksAfter = plane.blocks();
        const stride = Math.max(1, storeCount / CUTS_MAX);
        for (let at = 0; at < storeCount; at += stride) {
          plane.restore(before);
          const index = Math.floor(at);
          expect(plane.cut(index, change)).toBe(true);
          cutCount += 1;
          const broken = plane.recover();
          if (broken !== 0) throw new Error(`step ${step}, store ${index}: invariant ${broken}`);
          const blocks = plane.blocks();
          const isBefore = differences(blocksBefore, blocks).length === 0;
          const isAfter = differences(blocksAfter, blocks).length === 0;
          if (!isBefore && !isAfter) {
            const names = differences(blocksBefore, blocks);
            throw new Error(`step ${step}, store ${index}: ${names.join()} neither old nor new`);
          }
          expect(plane.word(abi.CONTROL_OFF_PLAN_SLOT)).toBe(0);
          expect(plane.word(abi.CONTROL_OFF_GUARD)).toBe(0);
        }
        plane.restore(after);
        if (planSlot !== 0 || step % 50 === 0) expect(plane.core.check(plane.base)).toBe(0);
      }
      expect(cutCount).toBeGreaterThan(1000);
    }));

  it("has moved a block into another arena or has not, wherever the commit was cut off", () => {
    const plane = new Plane(instrumented, release);
    const { core, base } = plane;
    expect(core.arenaOpen(base, 1, 512, 6)).toBe(3);
    // In both arenas some block has the place that another one has in the other.
    for (const bytes of [64, 1000, 64, 8000]) {
      core.arenaAllocate(base, 2, bytes, 1);
      core.arenaAllocate(base, 3, bytes, 1);
    }
    const counts = { old: 0, moved: 0 };
    expect(core.compactEvacuate(base, 3, 2)).toBe(4);
    for (let moves = 0; moves < 4; moves++) {
      expect(core.compactNext(base)).not.toBe(0);
      const before = plane.snapshot();
      const blocksBefore = plane.blocks();
      plane.storeCount = 0;
      expect(core.compactCommit(base)).toBe(abi.STATUS_OK);
      const after = plane.snapshot();
      const blocksAfter = plane.blocks();
      expect(differences(blocksBefore, blocksAfter).length).toBe(1);
      for (let index = 0, count = plane.storeCount; index < count; index++) {
        plane.restore(before);
        expect(plane.cut(index, () => core.compactCommit(base))).toBe(true);
        expect(plane.recover()).toBe(0);
        if (differences(blocksBefore, plane.blocks()).length === 0) counts.old += 1;
        else {
          expect(differences(blocksAfter, plane.blocks())).toEqual([]);
          counts.moved += 1;
        }
      }
      plane.restore(after);
      expect(core.check(base)).toBe(0);
    }
    expect(core.compactNext(base)).toBe(0);
    expect(core.arenaClose(base, 3)).toBe(abi.STATUS_OK);
    expect(counts.old).toBeGreaterThan(4);
    expect(counts.moved).toBeGreaterThan(40);
  });

  it("leaves a plane on which everything can be freed, and all of it comes back", () =>
    withSeed("free after cuts", (seed) => {
      const random = seededRandom(seed + 1);
      const unit = () => random.uint32() / 2 ** 32;
      const plane = new Plane(instrumented, release);
      const { core, base } = plane;
      for (let round = 0; round < 300; round++) {
        const change = nextChange(plane, unit);
        if (plane.cut(Math.floor(unit() * 40), change)) expect(plane.recover()).toBe(0);
      }
      for (const name of plane.blocks().keys()) {
        const [slot, generation] = name.split(":").map(Number) as [number, number];
        while (core.slotUnpin(base, slot, generation) === abi.STATUS_OK);
        expect(core.slotFree(base, slot, generation)).toBe(abi.STATUS_OK);
      }
      expect(core.check(base)).toBe(0);
      const whole = core.arenaAllocateWhole(base, 1, SLAB_GRANULES * 64);
      expect(whole).not.toBe(0);
    }));

  it("refuses every call until it is recovered", () => {
    const plane = new Plane(instrumented, release);
    const { core, base } = plane;
    // Any change under the guard; the first store is the guard's own.
    expect(plane.cut(3, () => core.arenaAllocate(base, 1, 100_000, 1))).toBe(true);
    expect(core.check(base)).toBe(abi.STATUS_BUSY);
    expect(core.arenaAllocate(base, 1, 100, 1)).toBe(0);
    expect(plane.word(abi.CONTROL_OFF_STATUS)).toBe(abi.STATUS_BUSY);
    expect(plane.recover()).toBe(0);
    expect(core.arenaAllocate(base, 1, 100, 1)).not.toBe(0);
  });

  it("stays refused when the slot table itself is damaged", () => {
    const plane = new Plane(instrumented, release);
    const { core, base } = plane;
    const first = core.arenaAllocate(base, 2, 100, 1);
    const second = core.arenaAllocate(base, 2, 100, 1);
    const offset = plane.word(plane.hotOffset(first) + abi.HOT_OFF_OFFSET);
    plane.setWord(plane.hotOffset(second) + abi.HOT_OFF_OFFSET, offset);
    expect(plane.recover()).toBe(abi.INV_TREE_4);
    expect(core.check(base)).toBe(abi.STATUS_BUSY);
    expect(core.slotFree(base, first, plane.generationOf(first))).toBe(abi.STATUS_BUSY);
    // What is there can still be read.
    expect(core.slotResolve(base, first, plane.generationOf(first))).toBe(abi.STATUS_OK);
  });
});
