// What is injected is what is used.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { BuddyAllocator } from "../../src/index.js";
import type {
  IdleEnd,
  LifetimeAge,
  LifetimeSample,
} from "../../src/lifetime/lifetime-predictor.js";
import { fifoPolicy } from "../../src/policy/fifo.js";
import { manualClock, memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import { allocateFilled, expectFilled } from "../support/filled.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";

const MIB = 2 ** 20;
const bytesOf = (name: string) =>
  readFileSync(new URL(`../../build/${name}.wasm`, import.meta.url));

describe("a predictor", () => {
  it("brings in what it predicts, and is told every access with its stream", async () => {
    const observed: string[] = [];
    const predictor = {
      name: "test",
      observe: (stream: string, id: string) => {
        observed.push(`${stream}:${id}`);
        return id === "a" ? ["b", "unknown"] : [];
      },
    };
    const memory = await openMemory({ seams: { tier: memoryTier(), predictor } });
    for (const id of ["a", "b"]) {
      allocateFilled(memory, id, 1000, 1);
      await memory.swapOut(id);
    }
    (await memory.acquire("a", { stream: "s" }))?.[Symbol.dispose]();
    await memory.prefetch(["b"]);
    expect(memory.tensor("b")?.isResident).toBe(true);
    expect(memory.stats().transfers.swapInCount).toBe(2);
    expect(observed).toEqual(["s:a"]);
  });

  it("that throws fails the call and leaves no pin", async () => {
    const predictor = {
      name: "broken",
      observe: () => {
        throw new RangeError("no prediction");
      },
    };
    const memory = await openMemory({ seams: { predictor } });
    allocateFilled(memory, "a", 1000, 1);
    await expect(memory.acquire("a")).rejects.toThrowError("no prediction");
    memory.free("a");
  });
});

describe("policies", () => {
  it("decide the order of leaving", async () => {
    const memory = await openMemory({
      seams: { tier: memoryTier(), evictionPolicy: fifoPolicy() },
    });
    for (let index = 0; index < 8; index++) allocateFilled(memory, `t${index}`, MIB, index);
    memory.tryAcquire("t0", { access: "read" })?.[Symbol.dispose]();
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 8 });
    expect(memory.tensor("t0")?.isResident).toBe(false);
    expect(memory.stats().policy).toBe("fifo");
  });
});

describe("clock, lifetimes and sink", () => {
  it("see what happens, by the injected time", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const seen: [string, number][] = [];
    const lifetimePredictor = {
      name: "test",
      expectedMs: () => Number.POSITIVE_INFINITY,
      isOver: () => false,
      observe: (sample: LifetimeSample, age: LifetimeAge, end: IdleEnd) => {
        seen.push([`${end} ${sample.site} ${sample.bytes}`, age.ageMs]);
      },
      endCensus: () => {},
    };
    const statsSink = {
      count: (name: string, amount: number) => seen.push([name, amount]),
      time: (name: string, durationMs: number) => seen.push([name, durationMs]),
    };
    const seams = { clock, lifetimePredictor, statsSink, tier: memoryTier() };
    const memory = await openMemory({ seams });
    memory.allocate({ kind: "KV_CACHE", byteLength: 64, id: "a", tag: "prefill" });
    await memory.swapOut("a");
    (await memory.acquire("a", { access: "read" }))?.[Symbol.dispose]();
    await memory.swapOut("a");
    clock.advance(250);
    memory.free("a");
    expect(seen).toEqual([
      ["pressure", 1],
      ["swap.store", 0],
      ["swap.out", 1],
      ["swap.load", 0],
      ["swap.in", 1],
      ["used prefill 64", 0],
      ["cache.wait", 0],
      ["swap.clean-eviction", 1],
      ["freed prefill 64", 250],
    ]);
  });

  it("keep generations growing when the wall clock goes back", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const files = memoryFileSystem();
    for (let round = 0; round < 4; round++) {
      clock.setWallMs(10_000_000 - round * 3_000_000);
      const memory = await openOn(files, { seams: { clock } });
      if (round > 0) await expectFilled(memory, "a", 100, round - 1);
      if (memory.tensor("a") !== null) memory.free("a");
      allocateFilled(memory, "a", 100, round);
      await memory.save("a");
      await expectFilled(memory, "a", 100, round);
      await closeMemory(memory);
    }
  });
});

describe("modules", () => {
  it("may come as bytes or compiled", async () => {
    const core = await WebAssembly.compile(bytesOf("core"));
    const memory = await openMemory({
      wasm: { core, kernels: bytesOf("kernels") },
      seams: { tier: memoryTier() },
    });
    allocateFilled(memory, "a", 1000, 1);
    await memory.swapOut("a");
    await expectFilled(memory, "a", 1000, 1);
    const buddy = await BuddyAllocator.create({ totalBytes: 4096, wasm: bytesOf("core") });
    expect(buddy.verify()).toBeNull();
  });

  it.each([
    ["no module", Uint8Array.of(0, 1, 2)],
    ["nothing", new Uint8Array(0)],
    ["the other module", bytesOf("kernels")],
    ["for shared memory", bytesOf("core.shared")],
  ])("are refused when they are %s", async (_name, core) => {
    await expect(openMemory({ wasm: { core } })).rejects.toMatchObject({ code: "bad-option" });
  });
});

describe("transfers", () => {
  it("wait for a staging buffer when there are more of them than buffers", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const ids = Array.from({ length: 20 }, (_, index) => `t${index}`);
    ids.forEach((id, index) => {
      allocateFilled(memory, id, 200_000, index);
    });
    const { staging } = memory.stats().budget.byCategory;
    expect(await Promise.all(ids.map((id) => memory.swapOut(id)))).toEqual(ids.map(() => "stored"));
    await Promise.all(ids.map((id, index) => expectFilled(memory, id, 200_000, index)));
    expect(memory.stats().budget.byCategory.staging).toBe(staging);
  });
});

describe("quarantine", () => {
  it("keeps a bounded number of damaged files", async () => {
    const files = memoryFileSystem();
    const memory = await openOn(files);
    for (let index = 0; index < 20; index++) {
      allocateFilled(memory, `t${index}`, 100, 1);
      await memory.swapOut(`t${index}`);
      for (const [path, bytes] of files.files()) if (path.endsWith(".segment")) bytes.fill(0);
      await expect(memory.acquire(`t${index}`)).rejects.toMatchObject({ code: "corruption" });
      memory.free(`t${index}`);
    }
    const names = [...files.files().keys()];
    expect(names.filter((name) => name.endsWith(".damaged"))).toHaveLength(16);
    expect(memory.stats().tier).toMatchObject({
      quarantinedCount: 20,
      objectCount: 0,
      storedBytes: 0,
    });
  });
});
