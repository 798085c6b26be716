// One file operation after another fails, in every way: each call succeeds or says why, what was
// stored before is intact, and nothing is left behind.
import { describe, expect, it } from "vitest";
import { TierheapError } from "../../src/index.js";
import { type FaultPlan, faultyFileSystem, memoryFileSystem } from "../../src/testing/index.js";
import type { FileSystem } from "../../src/tier/file-system.js";
import { checkQuiet, closeMemory, openOn } from "../support/oracle.js";
import { OBJECT_FILE } from "../support/record-files.js";
import { writingBehind } from "../support/writes-behind.js";

const BYTES = 70_000;

type Wrap = (files: FileSystem) => FileSystem;

/** Saves, overwrites, swaps, frees and lists on a file system that fails as planned. */
async function runScenario(plan: FaultPlan, packedBytesMax: number, wrap: Wrap) {
  const files = memoryFileSystem();
  const faulty = faultyFileSystem(files, plan);
  const used = wrap(faulty);
  const codes: string[] = [];
  /** Value of the last acknowledged save, and all that were tried after it. */
  let possible: (number | null)[] = [null];
  const tell = async <T>(work: () => Promise<T>): Promise<T | null> => {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof TierheapError)) throw error;
      codes.push(error.code);
      return null;
    }
  };

  const memory = await tell(() => openOn(used, { packedBytesMax }));
  if (memory !== null) {
    /** @returns false when the tensor could not be brought in. */
    const fill = async (id: string, value: number): Promise<boolean> => {
      if (memory.tensor(id) === null) memory.allocate({ kind: "KV_CACHE", byteLength: BYTES, id });
      using lease = await tell(() => memory.acquire(id));
      lease?.bytes.fill(value);
      return lease !== null;
    };
    const save = async (value: number, mode: "durable" | "cache") => {
      if (!(await fill("a", value))) return;
      possible.push(value);
      if ((await tell(() => memory.save("a", { mode }))) === "stored") possible = [value];
    };
    await save(1, "durable");
    await save(2, "cache");
    // The same bytes once more, but durable: the copy that they replace was trusted.
    await tell(() => memory.save("a", { mode: "durable" }));
    await tell(() => memory.swapOut("a"));
    await tell(async () => (await memory.acquire("a", { access: "read" }))?.[Symbol.dispose]());
    await save(3, "durable");
    await fill("b", 9);
    await tell(() => memory.swapOut("b"));
    await tell(async () => (await memory.acquire("b", { access: "read" }))?.[Symbol.dispose]());
    await tell(() => memory.swapOut("b"));
    memory.free("b");
    await tell(async () => {
      for await (const { id } of memory.list()) expect(["a", "b"]).toContain(id);
    });
    await tell(() => memory.acquire("unknown"));
    await tell(() => memory.delete("unknown"));
    checkQuiet(memory);
    await closeMemory(memory);
  }
  // Nothing is open any more that was written: a second memory opens what it reads.
  const second = memory && (await tell(() => openOn(used, { packedBytesMax })));
  if (second !== null) {
    await tell(async () => (await second.acquire("a", { access: "read" }))?.[Symbol.dispose]());
    checkQuiet(second);
    await closeMemory(second);
  }

  const again = await openOn(files);
  {
    using lease = await again.acquire("a", { access: "read" });
    const value = lease?.bytes[0] ?? null;
    expect(possible, `${plan.code} at ${plan.at}: ${faulty.faultyOperation}`).toContain(value);
    expect(lease?.bytes.every((byte) => byte === value) ?? true).toBe(true);
  }
  await closeMemory(again);
  for (const path of files.files().keys()) expect(path).toMatch(OBJECT_FILE);
  return { codes, faulty };
}

/** Which operations such objects need. */
const OPERATIONS = ["close", "create", "list", "makeDirectory", "openRead", "read", "sync"];
OPERATIONS.push("syncDirectory", "tryLock", "write");

const OF_FILES = [...OPERATIONS, "remove", "rename"];
const asIs: Wrap = (files) => files;

describe.each([
  ["packed objects", 2 ** 18, OPERATIONS, asIs],
  ["objects in files of their own", 0, OF_FILES, asIs],
  ["objects in files that are written behind", 0, OF_FILES, writingBehind],
] as const)("a failing file system under %s", (_name, packedBytesMax, operations, wrap) => {
  const run = (plan: FaultPlan) => runScenario(plan, packedBytesMax, wrap);

  it("is not noticed when it does not fail", async () => {
    const { codes, faulty } = await run({ at: 0, code: "EIO" });
    expect(codes).toEqual([]);
    expect(faulty.operationCount).toBeGreaterThan(20);
  });

  const plans: Omit<FaultPlan, "at">[] = [
    ...(["EIO", "ENOSPC", "EMFILE"] as const).flatMap((code) => [
      { code, lasts: "once" as const, write: "fail" as const },
      { code, lasts: "for-ever" as const, write: "fail" as const },
    ]),
    { code: "EDQUOT", lasts: "once", write: "fail" },
    { code: "EACCES", lasts: "once", write: "fail" },
    { code: "ENOSPC", lasts: "once", write: "short-then-fail" },
    { code: "EIO", lasts: "once", write: "short-then-fail" },
    { code: "EIO", lasts: "once", write: "torn-then-stop" },
    { code: "EIO", lasts: "for-ever", write: "short" },
  ];

  it.each(plans)("$code $lasts $write", async (plan) => {
    const { operationCount } = (await run({ at: 0, code: "EIO" })).faulty;
    const hit = new Set<string>();
    for (let at = 1; at <= operationCount; at++) {
      const { codes, faulty } = await run({ ...plan, at });
      if (plan.write === "short") {
        expect(codes).toEqual([]);
        continue;
      }
      expect(faulty.faultCount, `operation ${at}`).toBeGreaterThan(0);
      hit.add(faulty.faultyOperation);
      for (const code of codes) expect(["io", "busy", "closed"]).toContain(code);
    }
    if (plan.write === "fail") {
      expect([...hit].sort()).toEqual([...operations].sort());
    }
  });
});
