// Several real threads on one shared control plane: no two own one byte, what is handed over arrives
// once, a double free is refused whoever tries it, and a thread that is killed leaves nothing behind.
import { readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, it } from "vitest";
import { ANSWERS_COUNT, ANSWERS_ZERO } from "../../src/core/shared-exports.js";
import {
  type AttachedMemory,
  attachTensorMemory,
  BuddyAllocator,
  MisuseError,
  type TensorMessage,
} from "../../src/node.js";
import { openMemory, SEED } from "../support/oracle.js";

const MIB = 2 ** 20;
const BUDDY_WORKER = new URL("../workers/buddy-worker.mjs", import.meta.url);
const MEMORY_WORKER = new URL("../workers/memory-worker.mjs", import.meta.url);

const started = new Set<Worker>();

afterEach(async () => {
  await Promise.all([...started].map((worker) => worker.terminate()));
  started.clear();
});

function start(script: URL, workerData: object): Worker {
  const worker = new Worker(script, { workerData });
  started.add(worker);
  return worker;
}

/** The next message of a worker; rejects when it fails instead. */
function messageOf<T>(worker: Worker): Promise<T> {
  return new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}

async function sharedBuddy(totalBytes: number) {
  const buddy = await BuddyAllocator.create({ totalBytes, shared: true });
  const stamps = new SharedArrayBuffer(4 * Math.ceil(totalBytes / 64));
  const inbox = new SharedArrayBuffer(16);
  return { buddy, stamps, inbox };
}

interface Counts {
  readonly operations: number;
  readonly handed: number;
  readonly adopted: number;
  readonly doubleFrees: number;
}

describe("several threads on one buddy allocator", () => {
  it.each([
    ["in slabs and runs", 16 * MIB, 100_000],
    ["in a plain arena", MIB, 20_000],
  ])("never own one byte together, %s", async (_name, totalBytes, bytesMax) => {
    const { buddy, stamps, inbox } = await sharedBuddy(totalBytes);
    const tokens = [buddy.share(), buddy.share(), buddy.share()];
    const workers = tokens.map((token, index) => {
      const seed = SEED + index;
      const data = { token, seed, operationCount: 60_000, bytesMax, stamps, inbox };
      return start(BUDDY_WORKER, { ...data, isEndless: false });
    });
    const reports = await Promise.all(
      workers.map(async (worker) => {
        // Its own start alone: one that waits for the others' would miss the report of a fast one.
        await messageOf(worker);
        return messageOf<{ counts: Counts }>(worker);
      }),
    );
    const sum = (name: keyof Counts) => reports.reduce((all, { counts }) => all + counts[name], 0);
    expect(sum("operations")).toBe(180_000);
    expect(sum("doubleFrees")).toBeGreaterThan(50);
    expect(sum("handed")).toBeGreaterThan(10);
    // The last one may still lie in the mailbox.
    expect(sum("handed") - sum("adopted")).toBeLessThan(2);
    await Promise.all(workers.map((worker) => worker.terminate()));
    for (const token of tokens) expect(buddy.releaseLane(token.lane)).toBe(true);
    expect(buddy.verify()).toBeNull();
    expect(buddy.stats().liveCount).toBe(sum("handed") - sum("adopted"));
    expect(buddy.lockStats().enteredCount).toBeGreaterThan(0);
  });

  it("survives the death of one of them at any instant: short form of scripts/worker-deaths.mjs", async () => {
    const { buddy, stamps, inbox } = await sharedBuddy(8 * MIB);
    for (let death = 0; death < 12; death++) {
      const token = buddy.share();
      const data = { token, seed: SEED + death, bytesMax: 60_000, stamps, inbox };
      const worker = start(BUDDY_WORKER, { ...data, isEndless: true });
      await messageOf(worker);
      await new Promise((resolve) => setTimeout(resolve, 3));
      await worker.terminate();
      expect(buddy.releaseLane(token.lane)).toBe(true);
      expect(buddy.verify()).toBeNull();
      // What was in the mailbox is nobody's; everything else is free again.
      expect(buddy.stats().liveCount).toBeLessThanOrEqual(death + 1);
      new Int32Array(stamps).fill(0);
      new Int32Array(inbox).fill(0);
    }
  });

  it("refuses who is not the owner, and a token that was used", async () => {
    const { buddy } = await sharedBuddy(8 * MIB);
    const token = buddy.share();
    const other = await BuddyAllocator.attach(token);
    const code = (expected: string) => expect.objectContaining({ code: expected });
    await expect(BuddyAllocator.attach(token)).rejects.toEqual(code("bad-option"));
    const handle = buddy.tryAllocate(100);
    expect(() => other.free(handle)).toThrow(code("not-owner"));
    expect(() => other.adopt(handle)).toThrow(code("not-owner"));
    buddy.handOver(handle);
    expect(() => buddy.free(handle)).toThrow(code("not-owner"));
    other.adopt(handle);
    expect(() => buddy.adopt(handle)).toThrow(code("not-owner"));
    expect(() => buddy.free(handle)).toThrow(code("not-owner"));
    other.free(handle);
    for (const each of [buddy, other]) {
      expect(() => each.free(handle)).toThrow(code("stale-handle"));
      expect(() => each.adopt(handle)).toThrow(code("stale-handle"));
    }
    expect(() => buddy.releaseLane(9)).toThrow(code("bad-option"));
    expect(() => buddy.releaseLane(buddy.lane)).toThrow(code("bad-option"));
    const unshared = await BuddyAllocator.create({ totalBytes: MIB });
    expect(() => unshared.share()).toThrow(code("unsupported"));
  });

  it("gives lanes to fourteen others at a time", async () => {
    const { buddy } = await sharedBuddy(MIB);
    const tokens = Array.from({ length: 14 }, () => buddy.share());
    expect(new Set(tokens.map(({ lane }) => lane)).size).toBe(14);
    expect(() => buddy.share()).toThrow(expect.objectContaining({ code: "busy" }));
    // A token that nobody used is given back in the same way.
    expect(buddy.releaseLane(tokens[3]?.lane as number)).toBe(true);
    expect(buddy.share().lane).toBe(tokens[3]?.lane);
  });
});

describe("workers on one tensor memory", () => {
  it("allocate, hand tensors round and back, and count in its budgets and statistics", async () => {
    const memory = await openMemory({ shared: true, budgets: { ram: "64MiB" } });
    const token = memory.share({ kind: "ACTIVATIONS" });
    const worker = start(MEMORY_WORKER, { token });
    const ended = memory.watch(worker, token);
    const given = memory.allocate({ kind: "ACTIVATIONS", shape: [4, 100], dtype: "f32" });
    {
      using pin = given.pin();
      pin.view.fill(1.5);
    }
    const reply = messageOf<TensorMessage>(worker);
    worker.postMessage(given.handOver());
    expect(given.isFreed).toBe(true);
    expect(() => given.free()).toThrow(MisuseError);
    const message = await reply;
    using back = memory.adopt<"f32">(message);
    {
      using pin = back.pin({ access: "read" });
      expect(pin.view.length).toBe(400);
      expect(pin.view.every((value) => value === 3)).toBe(true);
    }
    expect(() => memory.adopt(message)).toThrow(expect.objectContaining({ code: "not-owner" }));
    expect(memory.stats().pools.find(({ kind }) => kind === "ACTIVATIONS")?.liveCount).toBe(6);
    await worker.terminate();
    await ended;
    expect(memory.stats().pools.find(({ kind }) => kind === "ACTIVATIONS")?.liveCount).toBe(1);
    expect(memory.verify()).toMatchObject({ isSound: true, problems: [] });
  });

  it("tell what is wrong with what they are given", async () => {
    const memory = await openMemory({ shared: true, budgets: { ram: "64MiB" } });
    const worker: AttachedMemory = await attachTensorMemory(memory.share({ kind: "KV_CACHE" }));
    const tensor = worker.allocate({ byteLength: 1000 });
    const message = tensor.handOver();
    expect(() => tensor.pin()).toThrow(MisuseError);
    const code = (expected: string) => expect.objectContaining({ code: expected });
    expect(() => memory.adopt({ ...message, shape: [999] })).toThrow(code("foreign-handle"));
    expect(() => memory.adopt({ ...message, slot: 2 ** 20 })).toThrow(code("foreign-handle"));
    expect(() => memory.adopt({ ...message, slot: "1" as never })).toThrow(code("bad-option"));
    memory.adopt(message).free();
    expect(() => worker.adopt(message)).toThrow(code("stale-handle"));
    expect(worker.tryAllocate({ byteLength: 2 ** 30 })).toBeNull();
    expect(() => worker.allocate({ byteLength: 2 ** 30 })).toThrow(code("out-of-memory"));
    const named = memory.allocate({ kind: "KV_CACHE", id: "a", byteLength: 8 });
    expect(() => named.handOver()).toThrow(code("unsupported"));
    const unshared = await openMemory();
    expect(() => unshared.share({ kind: "KV_CACHE" })).toThrow(code("unsupported"));
    const alone = unshared.allocate({ kind: "KV_CACHE", byteLength: 8 });
    expect(() => alone.handOver()).toThrow(code("unsupported"));
    alone.free();
    named.free();
  });
});

it("calls that find the guard taken are told apart by what they answer", () => {
  const source = readFileSync("assembly/index.ts", "utf8");
  const bodies = source.split(/^export function /m).slice(1);
  const zero = bodies.filter((body) => /return controlRefuse\(base, abi\.STATUS_BUSY\)/.test(body));
  const names = zero.map((body) => body.slice(0, body.indexOf("(")));
  // What the short ways leave behind is in functions of their own.
  expect([...ANSWERS_ZERO].sort()).toEqual([...new Set([...names, "arenaAllocate"])].sort());
  const counts = bodies.filter((body) => /^\s+controlRefuse\(base, abi\.STATUS_BUSY\)/m.test(body));
  expect(counts.map((body) => body.slice(0, body.indexOf("(")))).toEqual([...ANSWERS_COUNT]);
});
