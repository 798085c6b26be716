// Recovery as its users see it: an allocator and a memory whose core was interrupted.
import { describe, expect, it } from "vitest";
import * as abi from "../../assembly/abi.js";
import { BuddyAllocator } from "../../src/buddy-allocator.js";
import { PoisonedError } from "../../src/errors.js";
import { openMemory } from "../support/oracle.js";

const MIB = 2 ** 20;

/** Creates memories, and finds the control plane in the last one that has any. */
function watchedMemories() {
  const created: WebAssembly.Memory[] = [];
  const createMemory = (pages: number) => {
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    created.push(memory);
    return memory;
  };
  const control = () => {
    for (const memory of created) {
      const words = new Uint32Array(memory.buffer);
      const base = words.indexOf(abi.CONTROL_MAGIC);
      if (base > 0) return words.subarray(base);
    }
    throw new Error("no control plane was created");
  };
  return { createMemory, control };
}

/** What a call leaves that is cut off after it has taken the guard and changed a few words. */
function interrupt(words: Uint32Array): void {
  words[abi.CONTROL_OFF_GUARD / 4] = 1;
  words[abi.CONTROL_OFF_SLOT_FREE_HEAD / 4] = 3;
  words[abi.CONTROL_OFF_SLOT_BOUND_COUNT / 4] = 77;
  const row = (abi.ARENAS_OFFSET + abi.ARENA_BYTES) / 4;
  const tree = (words[row + abi.ARENA_OFF_TREE / 4] as number) / 4;
  words.fill(0x55, tree, tree + 40);
}

describe("a buddy allocator whose core was interrupted", () => {
  it("refuses everything, and works again after recover()", async () => {
    const { createMemory, control } = watchedMemories();
    const buddy = await BuddyAllocator.create({ totalBytes: 8 * MIB, createMemory });
    const handles = [100, 5000, 300_000, 2 * MIB].map((bytes) => buddy.tryAllocate(bytes));
    const offsets = handles.map((handle) => buddy.offsetOf(handle));
    interrupt(control());
    expect(() => buddy.tryAllocate(64)).toThrow(PoisonedError);
    expect(() => buddy.free(handles[0] as number)).toThrow(PoisonedError);
    expect(handles.map((handle) => buddy.offsetOf(handle))).toEqual(offsets);
    buddy.recover();
    expect(buddy.verify()).toBeNull();
    expect(handles.map((handle) => buddy.offsetOf(handle))).toEqual(offsets);
    for (const handle of handles) buddy.free(handle);
    expect(buddy.stats()).toMatchObject({ liveCount: 0, requestedBytes: 0, freeBytes: 8 * MIB });
  });

  it("stays refused when two blocks overlap", async () => {
    const { createMemory, control } = watchedMemories();
    const buddy = await BuddyAllocator.create({ totalBytes: MIB, createMemory });
    const [first, second] = [buddy.tryAllocate(100), buddy.tryAllocate(100)];
    const words = control();
    const hot = (words[abi.CONTROL_OFF_HOT / 4] as number) / 4;
    const offsetAt = (handle: number) => hot + ((handle % 2 ** 21) * abi.HOT_BYTES) / 4;
    words[offsetAt(second)] = words[offsetAt(first)] as number;
    expect(() => buddy.recover()).toThrow(PoisonedError);
    expect(() => buddy.tryAllocate(64)).toThrow(PoisonedError);
  });
});

describe("a memory whose core was interrupted", () => {
  it("keeps every tensor, frees what nobody was told of, and is sound after recover()", async () => {
    const { createMemory, control } = watchedMemories();
    const memory = await openMemory({ seams: { createMemory } });
    const tensors = [3000, 70_000, 2 * MIB].map((byteLength, mark) => {
      const tensor = memory.allocate({ kind: "ACTIVATIONS", byteLength });
      using pin = tensor.pin();
      pin.bytes.fill(mark + 1);
      return tensor;
    });
    // A pin that is open meanwhile still shows its bytes.
    const open = tensors[0]?.pin({ access: "read" });
    interrupt(control());
    expect(() => memory.tryAllocate({ kind: "KV_CACHE", byteLength: 64 })).toThrow(PoisonedError);
    expect(() => tensors[1]?.free()).toThrow(PoisonedError);
    expect(open?.bytes[0]).toBe(1);
    expect(memory.recover()).toBe(0);
    open?.[Symbol.dispose]();
    expect(memory.verify()).toMatchObject({ isSound: true, problems: [] });
    for (const [mark, tensor] of tensors.entries()) {
      using pin = tensor.pin({ access: "read" });
      expect(pin.bytes.every((byte) => byte === mark + 1)).toBe(true);
    }
    for (const tensor of tensors) tensor.free();
  });

  it("counts a tensor whose block was freed before the call broke off as gone", async () => {
    const { createMemory, control } = watchedMemories();
    const memory = await openMemory({ seams: { createMemory } });
    const tensor = memory.allocate({ kind: "ACTIVATIONS", byteLength: 3000 });
    const words = control();
    const hot = (words[abi.CONTROL_OFF_HOT / 4] as number) / 4 + abi.HOT_BYTES / 4;
    // The store of its tenure was the last one that the call made.
    words[hot + abi.HOT_OFF_GENERATION / 4] = 2;
    words[hot + abi.HOT_OFF_SIZING / 4] = abi.SLOT_STATE_FREE << 8;
    interrupt(words);
    expect(memory.recover()).toBe(1);
    expect(tensor.isFreed).toBe(true);
    expect(memory.verify()).toMatchObject({ isSound: true, problems: [] });
  });
});
