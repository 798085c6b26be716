// Workers that code what moves between RAM and the tiers: the same bytes as without them, whatever becomes of the
// workers. They run the built package, as `tierheap/codec-worker` does.
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { beforeEach, describe, expect, it } from "vitest";
import type { PlatformWorker } from "../../src/codec/codec.js";
import { HARDWARE_PROFILES, type HardwareProfile } from "../../src/hardware/hardware-profile.js";
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { manualClock, memoryTier, seededRandom } from "../../src/testing/index.js";
import type { Tier } from "../../src/tier/tier.js";
import type { ErrorLimit } from "../../src/types.js";
import { onlyObject } from "../support/coded-tensors.js";
import { closeMemory, openMemory, withSeed } from "../support/oracle.js";

const SCRIPT = new URL("../../dist/src/codec/codec-worker-node.js", import.meta.url);
const COUNT = 64 * 12_000;

const started: Worker[] = [];

// A memory ends its workers when it is closed.
beforeEach(() => {
  started.length = 0;
});

function startReal(): Worker {
  const worker = new Worker(SCRIPT, { execArgv: [] });
  started.push(worker);
  return worker;
}

/** A worker that ends with jobs under way, each one after another number of them. */
function startMortal(): Worker {
  const worker = startReal();
  const post = worker.postMessage.bind(worker);
  // The first message is no job, and of so many jobs some are done.
  let leftCount = 4 + started.length;
  worker.postMessage = (message, transfer) => {
    post(message, transfer as never);
    leftCount -= 1;
    if (leftCount === 0) worker.terminate().catch(() => {});
  };
  return worker;
}

/** A worker that runs and never answers. */
function startSilent(): Worker {
  const worker = new Worker("require('node:worker_threads').parentPort.on('message', () => {})", {
    ...{ eval: true, execArgv: [] },
  });
  started.push(worker);
  return worker;
}

interface Asked {
  readonly workers?: number;
  readonly start?: () => PlatformWorker;
  readonly tier?: Tier;
  readonly isShared?: boolean;
  readonly limit?: ErrorLimit;
}

function open({ workers = 1, start = startReal, tier = memoryTier(), ...more }: Asked = {}) {
  const { isShared = false, limit } = more;
  const rule = limit ?? ("lossless" as const);
  return openMemory({
    budgets: { ram: "64MiB" },
    codecs: { default: "lossless", kinds: { KV_CACHE: rule }, workers },
    shared: isShared,
    seams: { tier, startCodecWorker: start },
  });
}

/** Values of 16 significant bits, roughly normal. */
function valuesLike(count: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  const words = new Uint32Array(
    Float32Array.from({ length: count }, (_each, index) => {
      const uniform = () => random.uint32() / 2 ** 32;
      return (1 + (index % 64) / 16) * (uniform() + uniform() + uniform() - 1.5);
    }).buffer,
  );
  return new Float32Array(words.map((word) => word & 0xffff0000).buffer);
}

const bytesOf = (array: Float32Array) => new Uint8Array(array.buffer, 0, array.byteLength);

function allocate(memory: TensorMemory, id: string, values: Float32Array): void {
  const shape = [values.length / 64, 64];
  using pin = memory.allocate({ kind: "KV_CACHE", id, shape, dtype: "f32" }).pin();
  pin.bytes.set(bytesOf(values));
}

async function read(memory: TensorMemory, id: string): Promise<Uint8Array> {
  using lease = await memory.acquire(id, { access: "read" });
  return (lease?.bytes ?? new Uint8Array()).slice();
}

function expectSame(left: Uint8Array, right: Uint8Array): void {
  expect(Buffer.compare(left, right)).toBe(0);
}

describe("coding workers", () => {
  it.each([
    ["lossless", undefined],
    ["inside an error budget", { metric: "relative", epsilon: 0.02 } as const],
    ["inside a largest error", { metric: "max", epsilon: 0.01 } as const],
  ])("write the same bytes as the caller's thread, %s", async (_name, limit) => {
    const values = valuesLike(COUNT, 1);
    const stored: Uint8Array[] = [];
    for (const workers of [0, 1, 3]) {
      const tier = memoryTier();
      const memory = await open({ workers, tier, ...(limit && { limit }) });
      allocate(memory, "a", values);
      await memory.swapOut("a");
      stored.push((await onlyObject(tier)).bytes);
      const { codecWorkers, codecs } = memory.stats();
      expect((codecWorkers?.jobCount ?? 0) > 10).toBe(workers > 0);
      expect(codecs[0]?.rawBytes).toBe(values.byteLength);
    }
    expect(stored[0]?.byteLength).toBeLessThan(values.byteLength * 0.6);
    for (const bytes of stored) expectSame(bytes, stored[0] as Uint8Array);
  });

  it.each([
    ["private", false],
    ["shared", true],
  ])("bring a tensor back as it was, in %s memory", async (_name, isShared) => {
    const memory = await open({ workers: 2, isShared });
    const values = valuesLike(COUNT, 2);
    allocate(memory, "a", values);
    await memory.swapOut("a");
    const before = memory.stats().codecWorkers?.jobCount ?? 0;
    expectSame(await read(memory, "a"), bytesOf(values));
    const { codecWorkers, codecs } = memory.stats();
    expect(codecWorkers?.jobCount).toBeGreaterThan(before + 5);
    expect(codecWorkers).toMatchObject({ workerCount: 2, failureCount: 0 });
    expect(codecs[0]?.encodeMs).toBeGreaterThan(0);
    expect(memory.report()).toMatch(/coding workers +2: \d+ jobs, 0 ended/);
  });

  it("code several tensors of any type and length at a time", async () => {
    const memory = await open({ workers: 1 });
    await withSeed("tensors of any type and length", async (seed) => {
      const random = seededRandom(seed);
      const originals = new Map<string, Uint8Array>();
      for (let index = 0; index < 12; index++) {
        const dtype = (["u8", "bf16", "f32", "f64", "i32", "u64"] as const)[index % 6] ?? "u8";
        const id = `${index} of ${dtype}`;
        const shape = [1 + (random.uint32() % 900), 1 + (random.uint32() % 700)];
        using pin = memory.allocate({ kind: "ACTIVATIONS", id, shape, dtype }).pin();
        pin.bytes.forEach((_byte, at, bytes) => {
          bytes[at] = random.uint32() & (at % 2 === 0 ? 0x0f : 0xff);
        });
        originals.set(id, pin.bytes.slice());
      }
      for (let round = 0; round < 2; round++) {
        await Promise.all([...originals.keys()].map((id) => memory.swapOut(id)));
        for (const [id, values] of await Promise.all(
          [...originals.keys()].map(async (id) => [id, await read(memory, id)] as const),
        )) {
          expectSame(values, originals.get(id) as Uint8Array);
        }
      }
    });
    expect(memory.stats().codecWorkers?.jobCount).toBeGreaterThan(10);
  });

  it("that end are replaced, and their jobs are done by the caller's thread", async () => {
    const memory = await open({ workers: 1, start: startMortal });
    const values = valuesLike(COUNT, 3);
    allocate(memory, "a", values);
    const failureCount = () => memory.stats().codecWorkers?.failureCount ?? 0;
    for (let round = 0; round < 100 && failureCount() < 6; round++) {
      expect(await memory.swapOut("a")).toBe("stored");
      expectSame(await read(memory, "a"), bytesOf(values));
      // Written, or the copy would be clean.
      using lease = await memory.acquire("a");
      lease?.bytes.fill(lease.bytes[0] ?? 0, 0, 1);
    }
    expect(failureCount()).toBe(6);
    expect(started.length).toBeGreaterThanOrEqual(6);
    expect(memory.stats().codecWorkers?.jobCount).toBeGreaterThan(6);
  });

  it("that never become ready are waited for once, for a quarter of a second", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const memory = await openMemory({
      budgets: { ram: "64MiB" },
      codecs: { default: "lossless", workers: 1 },
      seams: { clock, tier: memoryTier(), startCodecWorker: startSilent },
    });
    const startMs = clock.monotonicMs();
    for (const id of ["a", "b"]) {
      const values = valuesLike(COUNT, 4);
      allocate(memory, id, values);
      let outcome = "";
      const swapping = memory.swapOut(id).then((settled) => {
        outcome = settled;
      });
      for (let turn = 0; turn < 5000 && outcome === ""; turn++) {
        await new Promise<void>((resolve) => setTimeout(resolve, 1));
        // Time goes on once the worker has been started.
        if (started.length > 0 && clock.monotonicMs() - startMs < 250) clock.advance(25);
      }
      expect(outcome).toBe("stored");
      await swapping;
      expectSame(await read(memory, id), bytesOf(values));
    }
    expect(started).toHaveLength(1);
    expect(clock.monotonicMs() - startMs).toBeLessThanOrEqual(250);
    expect(memory.stats().codecWorkers).toMatchObject({ jobCount: 0, failureCount: 0 });
  });

  it("that do not answer are ended in time", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const memory = await openMemory({
      budgets: { ram: "64MiB" },
      codecs: { default: "lossless", workers: 1 },
      seams: { tier: memoryTier(), clock, startCodecWorker: startSilent },
    });
    const values = valuesLike(COUNT, 4);
    allocate(memory, "a", values);
    let isDone = false;
    const moving = memory.swapOut("a").finally(() => {
      isDone = true;
    });
    for (let turn = 0; turn < 200 && !isDone; turn++) {
      clock.advance(1000);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(await moving).toBe("stored");
    expectSame(await read(memory, "a"), bytesOf(values));
    // Not for ever.
    for (let turn = 0; turn < 100; turn++) clock.advance(1000);
    expect(started.length).toBeLessThanOrEqual(3);
    expect(memory.stats().codecWorkers).toMatchObject({ jobCount: 0 });
  });

  it.each([
    [
      "the platform allows none",
      () => {
        throw new Error("not here");
      },
    ],
    ["their script is missing", () => new Worker(new URL("file:///nowhere/at-all.mjs"))],
    ["they fail at once", () => new Worker("throw new Error('injected')", { eval: true })],
  ])("are done without where %s", async (_name, start) => {
    let startCount = 0;
    const counted = () => {
      startCount += 1;
      return start();
    };
    const memory = await open({ workers: 2, start: counted });
    const values = valuesLike(COUNT, 5);
    allocate(memory, "a", values);
    expect(await memory.swapOut("a")).toBe("stored");
    expectSame(await read(memory, "a"), bytesOf(values));
    expect(memory.stats().codecWorkers).toMatchObject({ jobCount: 0 });
    expect(memory.stats().codecWorkers?.failureCount).toBeGreaterThan(0);
    expect(startCount).toBeLessThanOrEqual(5);
  });

  it("let no damage through", async () => {
    const tier = memoryTier();
    const memory = await open({ tier });
    const values = valuesLike(COUNT, 6);
    for (const place of [256 + 64 * 1024, 400_000, 256 + 5]) {
      allocate(memory, "a", values);
      await memory.swapOut("a");
      const { key, bytes } = await onlyObject(tier);
      bytes[place] = (bytes[place] as number) ^ 0x55;
      const writer = await tier.begin(key, bytes.byteLength);
      if (writer === "no-space") throw new Error("no space");
      await writer.write(bytes as never);
      await writer.commit({ durable: false });
      await expect(memory.acquire("a")).rejects.toMatchObject({ name: "CorruptionError" });
      memory.free("a");
    }
  });

  it("end with the memory", async () => {
    const memory = await open({ workers: 2 });
    allocate(memory, "a", valuesLike(COUNT, 7));
    await memory.swapOut("a");
    expect(started).toHaveLength(2);
    const ends = started.map((worker) => once(worker, "exit"));
    await closeMemory(memory);
    await Promise.all(ends);
  });

  it("are not started before a long tensor is coded", async () => {
    const memory = await open({ workers: 1 });
    allocate(memory, "short", valuesLike(64 * 500, 8));
    await memory.swapOut("short");
    expect(memory.stats().codecs[0]?.codec).toBe("plane");
    expect(started).toHaveLength(0);
    expect(memory.stats().codecWorkers).toBeNull();
  });
});

describe("the number of workers", () => {
  const stagingOf = async (options: TensorMemoryOptions) => {
    const memory = await openMemory({ ...options, seams: { tier: memoryTier() } });
    return memory.stats().budget.byCategory.staging;
  };
  const withWorkers: HardwareProfile = {
    ...(HARDWARE_PROFILES.get("generic") as HardwareProfile),
    codecWorkerCount: 2,
  };

  it("comes from the hardware profile, unless the budget is small", async () => {
    const each = (await stagingOf({ budgets: { ram: "64MiB" }, codecs: { workers: 1 } })) as number;
    const none = (await stagingOf({ budgets: { ram: "64MiB" } })) as number;
    const two = (await stagingOf({ budgets: { ram: "64MiB" }, profile: withWorkers })) as number;
    expect(each - none).toBeGreaterThan(2 ** 20);
    expect(each - none).toBeLessThan(3 * 2 ** 20);
    expect(two - none).toBe(2 * (each - none));
    expect(await stagingOf({ budgets: { ram: "32MiB" }, profile: withWorkers })).toBe(
      await stagingOf({ budgets: { ram: "32MiB" } }),
    );
  });

  it.each([-1, 1.5, 17, Number.NaN, "2"])("is refused if it is %s", async (workers) => {
    await expect(openMemory({ codecs: { workers: workers as never } })).rejects.toMatchObject({
      code: "bad-option",
    });
  });

  it("of a profile is refused out of range", async () => {
    const profile = { ...withWorkers, codecWorkerCount: 17 };
    await expect(openMemory({ profile })).rejects.toMatchObject({ code: "bad-option" });
  });
});
