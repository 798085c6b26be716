// Aborting, closing and deleting at every point of what is under way.
import { describe, expect, it } from "vitest";
import { TierheapError } from "../../src/index.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import { checkQuiet, closeMemory, openMemory, openOn } from "../support/oracle.js";
import { OBJECT_FILE } from "../support/record-files.js";

const MIB = 2 ** 20;
const TURNS = 60;

function allocateFilled(memory: TensorMemory, id: string, byteLength: number, value: number) {
  const tensor = memory.allocate({ kind: "KV_CACHE", byteLength, id });
  using pin = tensor.pin();
  pin.bytes.fill(value);
}

async function readValue(memory: TensorMemory, id: string): Promise<number | null> {
  using lease = await memory.acquire(id, { access: "read" });
  return lease?.bytes[0] ?? null;
}

/** Lets that many microtasks run; every fifth turn also the rest of the event loop. */
async function pass(turns: number): Promise<void> {
  for (let turn = 1; turn <= turns; turn++) {
    if (turn % 5 === 0) await new Promise(setImmediate);
    else await Promise.resolve();
  }
}

/** The code of a typed error, or what the promise gave. */
async function outcomeOf(work: Promise<unknown>): Promise<unknown> {
  try {
    const value = await work;
    if (typeof value === "object" && value !== null) (value as Disposable)[Symbol.dispose]();
    return value === null ? "null" : typeof value === "object" ? "lease" : value;
  } catch (error) {
    if (error instanceof TierheapError) return error.code;
    throw error;
  }
}

describe("an abort", () => {
  it("at any point ends only the waiting of its own caller", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    allocateFilled(memory, "a", 1000, 7);
    const seen = new Set<unknown>();
    for (let turns = 0; turns < TURNS; turns++) {
      await memory.swapOut("a");
      const controller = new AbortController();
      const aborted = outcomeOf(memory.acquire("a", { access: "read", signal: controller.signal }));
      const other = outcomeOf(memory.acquire("a", { access: "read" }));
      await pass(turns);
      controller.abort();
      seen.add(await aborted);
      expect(await other).toBe("lease");
      expect(await readValue(memory, "a")).toBe(7);
      checkQuiet(memory);
    }
    expect(seen).toEqual(new Set(["aborted", "lease"]));
  });

  it("at any point of reserve leaves everything sound", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    for (let index = 0; index < 10; index++) allocateFilled(memory, `t${index}`, MIB, index);
    for (let turns = 0; turns < TURNS; turns++) {
      const controller = new AbortController();
      const request = {
        kind: "KV_CACHE" as const,
        bytes: MIB,
        count: 10,
        signal: controller.signal,
      };
      const reserved = outcomeOf(memory.reserve(request));
      await pass(turns);
      controller.abort();
      expect(["aborted", undefined]).toContain(await reserved);
      for (let index = 0; index < 10; index++)
        expect(await readValue(memory, `t${index}`)).toBe(index);
      checkQuiet(memory);
    }
  });
});

describe("closing", () => {
  it("at any point gives typed errors, and loses nothing that was acknowledged", async () => {
    for (let turns = 0; turns < TURNS; turns += 3) {
      const files = memoryFileSystem();
      const memory = await openOn(files);
      for (const id of ["a", "b", "c"]) allocateFilled(memory, id, 1000, 7);
      await memory.save("b");
      await memory.swapOut("c");
      await memory.swapOut("b");
      const saved = outcomeOf(memory.save("a"));
      const others = [
        outcomeOf(memory.acquire("b")),
        outcomeOf(memory.acquire("c")),
        outcomeOf(memory.acquire("x")),
      ];
      await pass(turns);
      await memory.close();
      const outcome = await saved;
      expect(["stored", "closed"]).toContain(outcome);
      for (const other of others) expect(["lease", "closed", "null"]).toContain(await other);
      await closeMemory(memory);
      const again = await openOn(files);
      expect(await readValue(again, "b")).toBe(7);
      if (outcome === "stored") expect(await readValue(again, "a")).toBe(7);
      await closeMemory(again);
      for (const path of files.files().keys()) expect(path).toMatch(OBJECT_FILE);
    }
  });
});

describe("deleting", () => {
  it("at any point of an adoption gives the record or nothing", async () => {
    for (let turns = 0; turns < TURNS; turns++) {
      const files = memoryFileSystem();
      const first = await openOn(files);
      allocateFilled(first, "a", 1000, 7);
      await first.save("a");
      await closeMemory(first);
      const second = await openOn(files);
      const acquired = outcomeOf(second.acquire("a"));
      await pass(turns);
      const deleted = await outcomeOf(second.delete("a"));
      expect([true, "pinned"], `turn ${turns}`).toContain(deleted);
      expect(["lease", "null"], `turn ${turns}`).toContain(await acquired);
      if (deleted === true) expect(await readValue(second, "a"), `turn ${turns}`).toBeNull();
      await closeMemory(second);
    }
  });
});
