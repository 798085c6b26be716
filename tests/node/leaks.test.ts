// Anonymous tensors that nobody can reach any more are reported and taken back; nothing else is.
import { beforeAll, describe, expect, it } from "vitest";
import type { MemoryEvent } from "../../src/memory/events.js";
import type { Pin } from "../../src/memory/pin.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { abandon, openMemory } from "../support/oracle.js";

beforeAll(() => {
  expect(globalThis.gc, "these tests need --expose-gc").toBeTypeOf("function");
});

/** Collects garbage until `isDone`, and some turns more to see that nothing else comes. */
async function collectUntil(isDone: () => boolean): Promise<void> {
  for (let turn = 0; turn < 50 && !isDone(); turn++) await collectOnce();
  for (let turn = 0; turn < 3; turn++) await collectOnce();
}

async function collectOnce(): Promise<void> {
  globalThis.gc?.();
  await new Promise((resolve) => setImmediate(resolve));
}

const leakedCount = (memory: TensorMemory) => memory.stats().leaks.leakedCount;

function drop(memory: TensorMemory, byteLength: number, tag?: string): void {
  memory.allocate({ kind: "GRADIENTS", byteLength, tag });
}

describe("a leak", () => {
  it("is reported with kind, bytes, tag and call site, and its bytes are taken back", async () => {
    const memory = await openMemory({ debug: true });
    const events = memory.events();
    drop(memory, 5000, "prefill");
    await collectUntil(() => leakedCount(memory) > 0);
    expect(memory.stats().leaks).toEqual({ leakedCount: 1, leakedBytes: 5000 });
    expect(memory.stats().tensors).toEqual({ count: 0, hotCount: 0, hotBytes: 0 });
    const heard: MemoryEvent[] = [];
    for await (const event of events) {
      heard.push(event);
      if (event.type === "leak") break;
    }
    expect(heard.at(-1)).toEqual({
      type: "leak",
      kind: "GRADIENTS",
      bytes: 5000,
      tag: "prefill",
      callSite: expect.stringMatching(/^at drop .*leaks\.test\.ts/),
    });
  });

  it("has no call site without debug mode", async () => {
    const memory = await openMemory();
    const events = memory.events();
    drop(memory, 64);
    await collectUntil(() => leakedCount(memory) > 0);
    await events.next();
    expect((await events.next()).value).toMatchObject({ type: "leak", tag: "", callSite: null });
  });

  it("with a pin that was leaked too is reported, and its block stays: a view may be in use", async () => {
    const memory = await openMemory();
    (() => {
      memory.allocate({ kind: "GRADIENTS", byteLength: 64 }).pin();
    })();
    await collectUntil(() => leakedCount(memory) > 0);
    expect(leakedCount(memory)).toBe(1);
    expect(memory.stats().pools[0]).toMatchObject({ liveCount: 1, pinnedCount: 1 });
    // The oracle would miss the pin's end.
    abandon(memory);
    await memory.close();
  });

  it.each([false, true])(
    "of a fixed shape is reported, and its block stays: a view may be in use (debug: %j)",
    async (debug) => {
      const memory = await openMemory({ debug });
      const events = memory.events();
      using pool = memory.fixedShapePool({ kind: "GRADIENTS", shape: [64], dtype: "f32" });
      const view = (() => pool.allocate().view)();
      view.fill(7);
      await collectUntil(() => leakedCount(memory) > 0);
      expect(memory.stats().leaks).toEqual({ leakedCount: 1, leakedBytes: 256 });
      expect(pool.stats().liveCount).toBe(1);
      expect(pool.allocate().view).not.toBe(view);
      expect(view.every((value) => value === 7)).toBe(true);
      for await (const event of events) {
        if (event.type !== "leak") continue;
        expect(event).toMatchObject({ kind: "GRADIENTS", bytes: 256, tag: "" });
        if (debug) expect(event.callSite).toMatch(/leaks\.test\.ts/);
        else expect(event.callSite).toBeNull();
        break;
      }
      // The oracle would miss the blocks.
      abandon(memory);
      await memory.close();
    },
  );

  it("is reported also when a refused free came first", async () => {
    const memory = await openMemory();
    (() => {
      const tensor = memory.allocate({ kind: "GRADIENTS", byteLength: 64 });
      using _pin = tensor.pin();
      expect(() => tensor.free()).toThrowError(expect.objectContaining({ code: "pinned" }));
    })();
    await collectUntil(() => leakedCount(memory) > 0);
    expect(leakedCount(memory)).toBe(1);
  });

  it.each([
    [
      "a freed tensor",
      (memory: TensorMemory) => memory.allocate({ kind: "GRADIENTS", byteLength: 64 }).free(),
    ],
    [
      "a named tensor",
      (memory: TensorMemory) => memory.allocate({ kind: "GRADIENTS", byteLength: 64, id: "a" }),
    ],
    [
      "a held tensor",
      (memory: TensorMemory) => memory.allocate({ kind: "GRADIENTS", byteLength: 64 }),
    ],
    [
      "a freed tensor of a fixed shape, and one that is held",
      (memory: TensorMemory) => {
        const pool = memory.fixedShapePool({ kind: "GRADIENTS", shape: [64], dtype: "f32" });
        pool.allocate().free();
        const tensor = pool.allocate();
        return {
          [Symbol.dispose]() {
            tensor.free();
            pool[Symbol.dispose]();
          },
        };
      },
    ],
    [
      "a tensor in a scope",
      (memory: TensorMemory) => {
        const scope = memory.scope();
        scope.allocate({ kind: "GRADIENTS", byteLength: 64 });
        return scope;
      },
    ],
  ])("is not %s", async (_name, make) => {
    const memory = await openMemory();
    const kept = make(memory) as Disposable | undefined;
    for (let turn = 0; turn < 6; turn++) await collectOnce();
    expect(leakedCount(memory)).toBe(0);
    kept?.[Symbol.dispose]();
  });

  it("is not a tensor of which only a pin is held", async () => {
    const memory = await openMemory();
    const pin: Pin = (() => memory.allocate({ kind: "GRADIENTS", byteLength: 64 }).pin())();
    pin.bytes.fill(7);
    for (let turn = 0; turn < 6; turn++) await collectOnce();
    expect(leakedCount(memory)).toBe(0);
    expect(pin.bytes.every((byte) => byte === 7)).toBe(true);
    pin[Symbol.dispose]();
    await collectUntil(() => leakedCount(memory) > 0);
    expect(leakedCount(memory)).toBe(1);
  });
});
