// Debug mode finds writes past an end and after a free, and says whose they are.
import { describe, expect, it } from "vitest";
import { GuardError } from "../../src/index.js";
import type { MemoryEvent } from "../../src/memory/events.js";
import { memoryTier } from "../../src/testing/index.js";
import { abandon, openMemory } from "../support/oracle.js";

/** The bytes of a pin and those behind it: what a faulty program can reach. */
function beyond(view: { buffer: ArrayBufferLike; byteOffset: number; byteLength: number }) {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength + 8);
}

async function nextGuard(events: AsyncIterable<MemoryEvent>): Promise<MemoryEvent | undefined> {
  for await (const event of events) if (event.type === "guard") return event;
  return undefined;
}

const page = { kind: "KV_CACHE", byteLength: 4096, tag: "kv" } as const;

describe("debug mode", () => {
  it("finds a write past the end when the tensor is freed, which it then is", async () => {
    const memory = await openMemory({ debug: true });
    const events = memory.events();
    const tensor = memory.allocate(page);
    {
      using pin = tensor.pin();
      beyond(pin.view).fill(1);
    }
    expect(memory.verify().problems).toEqual([
      expect.stringMatching(/^a tensor of KV_CACHE "kv", 4096 bytes, was written past its end/),
    ]);
    let caught: unknown;
    try {
      tensor.free();
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(GuardError);
    expect(caught).toMatchObject({
      code: "overrun",
      kind: "KV_CACHE",
      tag: "kv",
      byteLength: 4096,
      callSite: expect.stringMatching(/guards\.test\.ts/),
    });
    expect(tensor.isFreed).toBe(true);
    expect(memory.stats().guards).toMatchObject({ violationCount: 1, quarantinedCount: 1 });
    expect(await nextGuard(events)).toEqual({ type: "guard", error: caught });
    memory.trim();
  });

  it("finds a write after the free, in verify and when the block leaves quarantine", async () => {
    const memory = await openMemory({ debug: true });
    const events = memory.events();
    const tensor = memory.allocate(page);
    const pin = tensor.pin();
    const { view } = pin;
    pin[Symbol.dispose]();
    tensor.free();
    expect(view[5]).toBe(0xa5);
    view[5] = 1;
    expect(memory.verify()).toMatchObject({
      isSound: false,
      problems: [expect.stringContaining("written after it was freed")],
    });
    memory.trim();
    const heard = await nextGuard(events);
    expect(heard).toMatchObject({ type: "guard", error: { code: "write-after-free" } });
    expect(memory.verify().isSound).toBe(true);
  });

  it("keeps freed blocks from use for a while, and not for ever", async () => {
    const memory = await openMemory({ debug: true });
    const offsets = new Set<number>();
    for (let index = 0; index < 200; index++) {
      const tensor = memory.allocate(page);
      {
        using pin = tensor.pin();
        expect(offsets.has(pin.view.byteOffset)).toBe(false);
        offsets.add(pin.view.byteOffset);
      }
      tensor.free();
    }
    for (let index = 0; index < 2000; index++) memory.allocate(page).free();
    const { quarantinedCount, quarantinedBytes, violationCount } = memory.stats().guards ?? {};
    expect([quarantinedCount, quarantinedBytes, violationCount]).toEqual([256, 256 * 4096, 0]);
    const large = [];
    for (;;) {
      const tensor = memory.tryAllocate({ kind: "GRADIENTS", byteLength: 2 ** 20 });
      if (tensor === null) break;
      large.push(tensor);
    }
    expect(large.length).toBeGreaterThan(5);
    for (const tensor of large) tensor.free();
    memory.trim();
    expect(memory.stats().guards?.quarantinedCount).toBe(0);
  });

  it("guards tensors that come back from a tier, or change their shape", async () => {
    const memory = await openMemory({ debug: true, seams: { tier: memoryTier() } });
    const tensor = memory.allocate({ ...page, id: "a" });
    await memory.swapOut("a");
    (await memory.acquire("a"))?.[Symbol.dispose]();
    tensor.resize({ shape: [100] });
    tensor.resize({ shape: [100_000] });
    expect(memory.verify().isSound).toBe(true);
    const scope = memory.scope("step");
    const other = scope.allocate({ ...page, tag: "other" });
    for (const each of [tensor, other]) {
      using pin = each.pin();
      beyond(pin.view)[pin.view.byteLength] = 0;
    }
    expect(() => scope[Symbol.dispose]()).toThrowError('"other", 4096 bytes, was written past');
    expect(() => tensor.free()).toThrowError("100000 bytes, was written past");
    memory.trim();
  });

  it("finds writes past the end of tensors of fixed shapes and of plans", async () => {
    const memory = await openMemory({ debug: true });
    const events = memory.events();
    const pool = memory.fixedShapePool({ kind: "KV_CACHE", shape: [100], dtype: "u8" });
    const recorder = memory.recordPlan({ kind: "ACTIVATIONS" });
    recorder.allocate({ shape: [300], dtype: "u8" }).free();
    const plan = recorder.finish();
    plan.begin();
    const tensor = pool.allocate();
    expect(memory.verify().isSound).toBe(true);
    beyond(tensor.view)[100] = 1;
    const planned = plan.next([300], "u8");
    new Uint8Array(planned.buffer, planned.byteOffset + plan.byteLength, 1)[0] = 1;
    expect(memory.verify().problems).toEqual([
      expect.stringMatching(/^a tensor of ACTIVATIONS "step plan", \d+ bytes, was written past/),
      expect.stringMatching(/^a tensor of KV_CACHE "fixed shape", 100 bytes, was written past/),
    ]);
    expect(() => tensor.free()).toThrow(GuardError);
    expect(tensor.isFreed).toBe(true);
    expect(() => plan.end()).toThrow(GuardError);
    expect(await nextGuard(events)).toMatchObject({ error: { code: "overrun" } });
    // Both can be used again; what nobody ended is noticed when the block is given back.
    const again = pool.allocate();
    beyond(again.view)[100] = 1;
    expect(() => again.free()).toThrowError("100 bytes, was written past");
    plan.begin();
    plan.end();
    expect(memory.stats().guards?.violationCount).toBe(3);
    memory.trim();
    expect(memory.stats().guards?.violationCount).toBe(3);
    plan.begin();
    const last = plan.next([300], "u8");
    plan.end();
    new Uint8Array(last.buffer, last.byteOffset + plan.byteLength, 1)[0] = 1;
    plan[Symbol.dispose]();
    expect(memory.stats().guards?.violationCount).toBe(4);
    abandon(memory);
    await memory.close();
  });

  it("costs nothing and finds nothing where it is off", async () => {
    const memory = await openMemory();
    expect(memory.stats().guards).toBeNull();
    const tensor = memory.allocate(page);
    {
      using pin = tensor.pin();
      beyond(pin.view).fill(1);
    }
    tensor.free();
    expect(memory.stats().pools[0]?.requestedBytesPeak).toBe(4096);
    abandon(memory);
    await memory.close();
  });
});
