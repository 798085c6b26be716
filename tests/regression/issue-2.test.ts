// Faults found while the first part was built. Each test failed before its fix.
import { describe, expect, it, vi } from "vitest";
import { TierError } from "../../src/index.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import type { FileSystem } from "../../src/tier/file-system.js";
import type { Tier } from "../../src/tier/tier.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";
import { gatedTier } from "../support/tiers.js";

function allocateFilled(memory: TensorMemory, id: string, value: number) {
  const tensor = memory.allocate({ kind: "KV_CACHE", byteLength: 1000, id });
  using pin = tensor.pin();
  pin.bytes.fill(value);
  return tensor;
}

async function readValue(memory: TensorMemory, id: string): Promise<number | null> {
  using lease = await memory.acquire(id, { access: "read" });
  return lease?.bytes[0] ?? null;
}

describe("a commit that fails after it has published", () => {
  it("does not leave the old copy trusted", async () => {
    const inner = memoryFileSystem();
    let fails = false;
    const files: FileSystem = {
      ...inner,
      syncDirectory: async (path) => {
        if (fails) throw Object.assign(new Error("EIO"), { code: "EIO" });
        await inner.syncDirectory(path);
      },
    };
    const memory = await openOn(files);
    allocateFilled(memory, "a", 1);
    await memory.save("a");
    fails = true;
    await expect(memory.save("a", { mode: "durable" })).rejects.toMatchObject({ code: "io" });
    fails = false;
    // The tensor looked clean, was dropped, and its record was of a generation nobody expected.
    await memory.swapOut("a");
    expect(await readValue(memory, "a")).toBe(1);
  });
});

describe("a copy that could not be read back", () => {
  it("is not trusted", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    allocateFilled(memory, "a", 1);
    gate.failNext("read");
    await expect(memory.swapOut("a")).rejects.toMatchObject({ code: "io" });
    const { bytesWritten } = memory.stats().tier;
    await memory.swapOut("a");
    expect(memory.stats().tier.bytesWritten).toBeGreaterThan(bytesWritten);
    expect(await readValue(memory, "a")).toBe(1);
  });
});

describe("two stores of one tensor", () => {
  it("do not run at the same time", async () => {
    let writing = 0;
    let writingPeak = 0;
    const inner = memoryTier();
    const tier: Tier = {
      ...inner,
      // It does not keep the promise, but it is asked for it.
      capabilities: {
        isPersistent: true,
        hasDurableCommit: true,
        needsReadBack: true,
        readsInPlace: false,
      },
      begin: async (key, byteLength) => {
        writing += 1;
        writingPeak = Math.max(writingPeak, writing);
        const writer = await inner.begin(key, byteLength);
        if (writer === "no-space") return writer;
        return {
          ...writer,
          abort: async () => {
            writing -= 1;
            await writer.abort();
          },
        };
      },
    };
    const memory = await openMemory({ seams: { tier } });
    for (const id of ["a", "b"]) allocateFilled(memory, id, 1);
    const outcomes = await Promise.all([
      memory.save("a"),
      memory.save("a", { mode: "durable" }),
      memory.swapOut("a"),
      memory.save("a", { mode: "durable" }),
    ]);
    expect(outcomes).toEqual(["stored", "stored", "stored", "stored"]);
    expect(writingPeak).toBe(1);
    expect(await readValue(memory, "a")).toBe(1);
  });
});

describe("an id that is used again while its old record goes", () => {
  it("keeps its new record", async () => {
    const digest = crypto.subtle.digest.bind(crypto.subtle);
    let digestCount = 0;
    // Digests may be ready in any order: here every other one is late.
    vi.spyOn(crypto.subtle, "digest").mockImplementation(async (algorithm, input) => {
      const isLate = digestCount++ % 2 === 0;
      const bytes = await digest(algorithm, input);
      for (let turn = 0; isLate && turn < 20; turn++) await new Promise(setImmediate);
      return bytes;
    });
    const memory = await openOn(memoryFileSystem());
    for (let round = 0; round < 10; round++) {
      allocateFilled(memory, "a", round & 0xff);
      expect(await memory.swapOut("a")).toBe("stored");
      memory.free("a");
      allocateFilled(memory, "a", 0xff);
      expect(await memory.swapOut("a")).toBe("stored");
      expect(await readValue(memory, "a")).toBe(0xff);
      memory.free("a");
    }
    vi.restoreAllMocks();
  });
});

describe("a durable record", () => {
  it("is replaced by nothing less than a durable one, also by a tensor that does not know it", async () => {
    const files = memoryFileSystem();
    const memory = await openOn(files);
    allocateFilled(memory, "a", 1);
    await memory.save("a", { mode: "durable" });
    memory.free("a");
    allocateFilled(memory, "a", 2);
    const before = files.operations.length;
    await memory.save("a", { mode: "cache" });
    const kinds = files.operations.slice(before).map(({ type }) => type);
    expect(kinds).toContain("sync");
    memory.free("a");
    expect(await readValue(memory, "a")).toBe(2);
    await closeMemory(memory);
  });

  it("is not touched by pressure: what was swapped out lies beside it", async () => {
    const memory = await openOn(memoryFileSystem());
    allocateFilled(memory, "a", 1);
    await memory.save("a", { mode: "durable" });
    memory.free("a");
    allocateFilled(memory, "a", 2);
    await memory.swapOut("a");
    expect(await readValue(memory, "a")).toBe(2);
    memory.free("a");
    expect(await readValue(memory, "a")).toBe(1);
    await closeMemory(memory);
  });
});

describe("a damaged record that cannot be put aside", () => {
  it("is still told as damage", async () => {
    const inner = memoryTier();
    const first = await openMemory({ seams: { tier: inner } });
    allocateFilled(first, "a", 1);
    await first.save("a");
    const tier: Tier = {
      ...inner,
      openRead: async (key) => {
        const reader = await inner.openRead(key);
        return reader && { ...reader, read: async (_offset, target) => target.fill(0).byteLength };
      },
      quarantine: async () => {
        throw new TierError("io", "memory", "no");
      },
      close: async () => {},
    };
    const second = await openMemory({ seams: { tier } });
    await expect(second.acquire("a")).rejects.toMatchObject({ code: "corruption" });
  });
});
