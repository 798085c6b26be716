// The stream of what happens inside.
import { describe, expect, it } from "vitest";
import type { MemoryEvent } from "../../src/memory/events.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";

const MIB = 2 ** 20;

/** Collects what happens from now on, until the memory is closed. */
function listen(memory: TensorMemory): Promise<MemoryEvent[]> {
  const events = memory.events();
  return (async () => {
    const seen: MemoryEvent[] = [];
    for await (const event of events) seen.push(event);
    return seen;
  })();
}

describe("events", () => {
  it("tell of pressure, with the remedies that were needed, and of spills", async () => {
    const codecs = { default: "raw" } as const;
    const memory = await openMemory({ codecs, seams: { tier: memoryTier() } });
    const heard = listen(memory);
    for (let index = 0; index < 8; index++) {
      memory.allocate({ kind: "KV_CACHE", byteLength: MIB, id: `t${index}` });
    }
    await memory.save("t0");
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 8 });
    await closeMemory(memory);
    const events = await heard;
    expect(events[0]).toEqual({
      type: "pressure",
      kind: "KV_CACHE",
      requestedBytes: MIB,
      remedies: ["add-arena"],
    });
    const spills = events.filter((event) => event.type === "spill");
    expect(spills[0]).toEqual({ type: "spill", id: "t0", tier: "memory", bytesWritten: 0 });
    expect(spills[1]).toEqual({ type: "spill", id: "t1", tier: "memory", bytesWritten: MIB });
  });

  it("tell of a damaged record, lost if it was the only copy", async () => {
    const files = memoryFileSystem();
    const memory = await openOn(files);
    const heard = listen(memory);
    memory.allocate({ kind: "KV_CACHE", byteLength: 100, id: "a" });
    await memory.swapOut("a");
    for (const bytes of files.files().values()) bytes[450] = (bytes[450] as number) ^ 1;
    for (let attempt = 0; attempt < 3; attempt++) {
      await expect(memory.acquire("a")).rejects.toMatchObject({ code: "corruption", tier: "ssd" });
    }
    await expect(memory.save("a")).rejects.toMatchObject({ code: "corruption" });
    memory.free("a");
    await closeMemory(memory);
    expect(await heard).toMatchObject([
      { type: "pressure" },
      { type: "spill" },
      { type: "corruption", id: "a", tier: "ssd", lost: true },
    ]);
    expect([...files.files().keys()]).toEqual([expect.stringMatching(/\.damaged$/)]);
  });

  it("tell of work in the background that failed", async () => {
    const tier = memoryTier();
    const failing = { ...tier, delete: async () => Promise.reject(new Error("no")) };
    const memory = await openMemory({ seams: { tier: failing } });
    const heard = listen(memory);
    memory.allocate({ kind: "KV_CACHE", byteLength: 100, id: "a" });
    await memory.swapOut("a");
    memory.free("a");
    await closeMemory(memory);
    expect((await heard).at(-1)).toMatchObject({
      type: "tier-error",
      tier: "memory",
      error: { message: "no" },
    });
  });

  it("end at the signal, and when the consumer stops", async () => {
    const memory = await openMemory();
    const controller = new AbortController();
    const events = memory.events({ signal: controller.signal });
    const next = events.next();
    controller.abort();
    expect(await next).toEqual({ done: true, value: undefined });
    const others = memory.events();
    memory.allocate({ kind: "KV_CACHE", byteLength: 1 });
    expect((await others.next()).value).toMatchObject({ type: "pressure" });
    await others.return();
    expect(await others.next()).toEqual({ done: true, value: undefined });
    const aborted = memory.events({ signal: AbortSignal.abort() });
    expect((await aborted.next()).done).toBe(true);
  });

  it("are bounded: the oldest go and are counted", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const events = memory.events();
    memory.allocate({ kind: "KV_CACHE", byteLength: 10, id: "a" });
    await memory.save("a");
    for (let round = 0; round < 1100; round++) {
      await memory.swapOut("a");
      (await memory.acquire("a", { access: "read" }))?.[Symbol.dispose]();
    }
    expect(memory.stats().droppedEventCount).toBe(1101 - 1024);
    expect((await events.next()).value).toMatchObject({ type: "spill" });
    await events.return();
    expect(memory.stats().droppedEventCount).toBe(1101 - 1024);
  });
});
