// Faults that a review found in what is saved, swapped out and listed.
import { describe, expect, it } from "vitest";
import { memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import type { FileSystem } from "../../src/tier/file-system.js";
import { allocateFilled, collect, expectFilled } from "../support/filled.js";
import { abandon, closeMemory, openMemory, openOn } from "../support/oracle.js";
import { gatedTier } from "../support/tiers.js";

const MIB = 2 ** 20;

/** A disk whose lock goes with its process: a memory may be abandoned without being closed. */
function disk() {
  const files = memoryFileSystem();
  const fileSystem: FileSystem = {
    ...files,
    tryLock: async () => ({ release: async () => {} }),
  };
  return { fileSystem, files: () => files.files() };
}

/** Opens a memory that will end without being closed, as a killed process does. */
async function openKilled(...options: Parameters<typeof openOn>) {
  const memory = await openOn(...options);
  abandon(memory);
  return memory;
}

/** Overwrites a tensor, so that no copy of it is valid any more. */
async function refill(memory: Awaited<ReturnType<typeof openOn>>, id: string, seed: number) {
  using lease = await memory.acquire(id);
  lease?.bytes.forEach((_byte, index, bytes) => {
    bytes[index] = (index * 7 + seed) & 0xff;
  });
}

describe("a saved record", () => {
  it("survives a new tensor of its id that is demoted and freed", async () => {
    const memory = await openOn(disk().fileSystem);
    allocateFilled(memory, "a", 1000, 1);
    await memory.save("a");
    memory.free("a");
    for (const isDemoted of [false, true]) {
      allocateFilled(memory, "a", 2000, 9);
      if (isDemoted) await memory.swapOut("a");
      memory.free("a");
      await expectFilled(memory, "a", 1000, 1);
      memory.free("a");
    }
  });

  it("is what the next process finds, whatever was demoted after it", async () => {
    const { fileSystem } = disk();
    const first = await openKilled(fileSystem);
    allocateFilled(first, "a", 1000, 1);
    await first.save("a");
    await refill(first, "a", 2);
    await first.swapOut("a");
    await expectFilled(first, "a", 1000, 2);
    const second = await openOn(fileSystem);
    await expectFilled(second, "a", 1000, 1);
    await refill(second, "a", 3);
    await second.swapOut("a");
    await expectFilled(second, "a", 1000, 3);
    await second.save("a");
    await closeMemory(second);
    const third = await openOn(fileSystem);
    await expectFilled(third, "a", 1000, 3);
  });

  it("is told from a swapped-out copy by list", async () => {
    const { fileSystem } = disk();
    const first = await openKilled(fileSystem);
    for (const id of ["saved", "swapped"]) allocateFilled(first, id, 1000, 1);
    await first.save("saved");
    await first.swapOut("swapped");
    const second = await openOn(fileSystem);
    for (const memory of [first, second]) {
      const listed = await collect(memory.list());
      expect(new Map(listed.map(({ id, isSaved }) => [id, isSaved]))).toEqual(
        new Map([
          ["saved", true],
          ["swapped", false],
        ]),
      );
    }
  });

  // listTensors looks at the copy in use, which is the swapped-out one here.
  it("is listed as saved also while its tensor is modified and swapped out", async () => {
    const memory = await openOn(disk().fileSystem);
    allocateFilled(memory, "a", 1000, 1);
    await memory.save("a");
    await refill(memory, "a", 2);
    expect(await collect(memory.list())).toMatchObject([{ id: "a", isSaved: true }]);
    await memory.swapOut("a");
    expect(await collect(memory.list())).toMatchObject([{ id: "a", isSaved: true }]);
  });

  const listFirstOf = async (order: "saved first" | "swapped first") => {
    const { fileSystem } = disk();
    const first = await openKilled(fileSystem);
    allocateFilled(first, "a", 1000, 1);
    await first.save("a");
    first.free("a");
    allocateFilled(first, "a", 2000, 2);
    await first.swapOut("a");
    const list: FileSystem["list"] = async (path) => {
      const files = await fileSystem.list(path);
      return order === "saved first" ? files : [...files].reverse();
    };
    const second = await openOn({ ...fileSystem, list });
    expect(await collect(second.list())).toMatchObject([
      { id: "a", isSaved: true, byteLength: 1000 },
    ]);
  };

  it("is what list shows of two copies", () => listFirstOf("saved first"));

  // listTensors gives whichever copy the tier names first; acquire would give the saved one.
  it("is what list shows of two copies in any order", () => listFirstOf("swapped first"));

  it("goes with its swapped-out copy when it is deleted", async () => {
    const { fileSystem, files } = disk();
    const memory = await openOn(fileSystem);
    allocateFilled(memory, "a", 1000, 1);
    await memory.save("a");
    await refill(memory, "a", 2);
    await memory.swapOut("a");
    expect(memory.stats().tier.objectCount).toBe(2);
    expect(await memory.delete("a")).toBe(true);
    expect(memory.stats().tier.objectCount).toBe(0);
    expect(await memory.acquire("a")).toBeNull();
    expect(await memory.delete("a")).toBe(false);
    await closeMemory(memory);
    expect(files().size).toBe(0);
  });
});

describe("what killed processes had swapped out", () => {
  const options = { budgets: { ram: "8MiB" }, capacityBytes: 24 * MIB };

  it("gives way to the next process", async () => {
    const { fileSystem } = disk();
    for (let run = 0; run < 4; run++) {
      const memory = await openKilled(fileSystem, options);
      for (let index = 0; index < 20; index++) {
        await memory.reserve({ kind: "KV_CACHE", bytes: MIB });
        allocateFilled(memory, `${run}/${index}`, MIB, run + index);
      }
      for (let index = 0; index < 20; index++) {
        await expectFilled(memory, `${run}/${index}`, MIB, run + index);
      }
    }
  });

  it("is found while nobody needs its room; what was saved never gives way", async () => {
    const { fileSystem } = disk();
    const first = await openKilled(fileSystem, options);
    for (let index = 0; index < 8; index++) {
      allocateFilled(first, `a/${index}`, MIB, index);
      if (index === 0) await first.save("a/0");
      await first.swapOut(`a/${index}`);
    }
    const second = await openOn(fileSystem, options);
    for (let index = 0; index < 4; index++) await expectFilled(second, `a/${index}`, MIB, index);
    for (let index = 0; index < 18; index++) {
      await second.reserve({ kind: "KV_CACHE", bytes: MIB });
      allocateFilled(second, `b/${index}`, MIB, index);
    }
    for (let index = 0; index < 18; index++) await expectFilled(second, `b/${index}`, MIB, index);
    for (let index = 0; index < 4; index++) await expectFilled(second, `a/${index}`, MIB, index);
    for (let index = 4; index < 8; index++) expect(await second.acquire(`a/${index}`)).toBeNull();
  });
});

describe("free", () => {
  it("during or after a save that finds no room leaves nothing stale", async () => {
    for (const isDuring of [true, false]) {
      const tier = memoryTier({ capacityBytes: 1.5 * MIB });
      const memory = await openMemory({ seams: { tier } });
      allocateFilled(memory, "a", MIB, 1);
      await memory.swapOut("a");
      await refill(memory, "a", 2);
      const saved = memory.save("a");
      if (isDuring) memory.free("a");
      const outcome = await saved;
      if (!isDuring) memory.free("a");
      // The swapped-out copy may have made room for the saved record.
      if (isDuring && outcome === "stored") await expectFilled(memory, "a", MIB, 2);
      else expect(await memory.acquire("a")).toBeNull();
      await memory.delete("a");
      expect(memory.stats().tier.objectCount).toBe(0);
    }
  });

  it.each(["swapOut", "save"] as const)(
    "after a durable %s that failed once published",
    async (call) => {
      const { fileSystem, files } = disk();
      let failureCount = 0;
      const syncDirectory = async (path: string) => {
        if (failureCount++ === 0) throw Object.assign(new Error("EIO"), { code: "EIO" });
        await fileSystem.syncDirectory(path);
      };
      const memory = await openOn({ ...fileSystem, syncDirectory }, { ssd: { mode: "durable" } });
      allocateFilled(memory, "a", 1000, 1);
      await expect(memory[call]("a")).rejects.toMatchObject({ code: "io" });
      expect(failureCount).toBe(1);
      if (call === "save") {
        // Whoever wants it gone deletes it.
        expect(await memory.delete("a")).toBe(true);
      } else {
        memory.free("a");
      }
      expect(await memory.acquire("a")).toBeNull();
      await closeMemory(memory);
      expect(files().size).toBe(0);
    },
  );

  it("and delete during a save leave nothing behind", async () => {
    const { fileSystem, files } = disk();
    for (const mode of ["cache", "durable"] as const) {
      const memory = await openOn(fileSystem);
      allocateFilled(memory, "a", 2 * MIB, 1);
      const saved = memory.save("a", { mode });
      expect(await memory.delete("a")).toBe(true);
      expect(await saved).toBe("stored");
      await expect(memory.save("a")).rejects.toMatchObject({ code: "unknown-id" });
      expect(await memory.acquire("a")).toBeNull();
      expect(await collect(memory.list())).toEqual([]);
      expect(files().size).toBe(0);
      await closeMemory(memory);
    }
  });
});

describe("a save that waited for a tensor which was freed", () => {
  // promote hands the new tensor of that id to it, whatever transfer that has under way: two at once.
  it("waits also for the transfer of the new one", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    allocateFilled(memory, "a", 1000, 1);
    await memory.swapOut("a");
    gate.close("read");
    const saved = memory.save("a");
    await gate.waiting;
    memory.free("a");
    // Its copy is still being verified when the save goes on.
    allocateFilled(memory, "a", 4 * MIB, 2);
    const moved = memory.swapOut("a");
    gate.open();
    const outcomes = await Promise.allSettled([saved, moved]);
    await expectFilled(memory, "a", 4 * MIB, 2);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled"]);
  });
});

describe("list", () => {
  it.each(["acquire", "prefetch", "save"] as const)(
    "gives every id once while its results are taken by %s",
    async (call) => {
      const { fileSystem } = disk();
      const first = await openKilled(fileSystem);
      const ids = Array.from({ length: 8 }, (_, index) => `c/${index}`);
      for (const [index, id] of ids.entries()) {
        allocateFilled(first, id, 100, index);
        if (index % 2 === 0) await first.save(id);
        else await first.swapOut(id);
      }
      const second = await openOn(fileSystem);
      allocateFilled(second, "c/new", 100, 1);
      const seen: string[] = [];
      for await (const { id } of second.list({ prefix: "c/" })) {
        seen.push(id);
        if (seen.length === 2) await second.prefetch(ids);
        if (call === "acquire")
          await expectFilled(second, id, 100, id === "c/new" ? 1 : Number(id.at(-1)));
        if (call === "save") await second.save(id);
      }
      expect(seen.sort()).toEqual([...ids, "c/new"]);
    },
  );
});
