// What KV caches refuse, with nothing changed.
import { describe, expect, it } from "vitest";
import { windowLayout } from "../../src/kv.js";
import { memoryFileSystem } from "../../src/testing/index.js";
import { count, expectHolds, extend, open } from "../support/kv-chats.js";
import { gathered, MIXED_LAYERS, rowsOf } from "../support/kv-model.js";
import { openMemory, openOn } from "../support/oracle.js";

describe("what is refused", () => {
  it("says so with a typed error and changes nothing", async () => {
    const memory = await openMemory();
    const caches = open(memory);
    const cache = caches.create();
    await extend(cache, count(6));
    const rows = rowsOf(MIXED_LAYERS, [1]);
    const code = (work: () => unknown) =>
      Promise.resolve()
        .then(work)
        .then(
          () => null,
          (error) => error.code,
        );
    const wrong: [string, () => unknown][] = [
      ["foreign-cache", () => caches.restore({ fingerprint: "other", tokens: [1] })],
      ["foreign-cache", () => open(memory).save(cache, "a")],
      ["bad-option", () => caches.restore({ tokens: [-1] })],
      ["bad-option", () => caches.restore({ tokens: [1.5] })],
      ["bad-option", () => caches.restore({ tokens: [2 ** 32] })],
      ["bad-option", () => caches.restore({ token: [1] } as never)],
      ["bad-option", () => caches.create({ extras: [{ name: "a" }] as never })],
      ["bad-option", () => cache.append([Number.NaN], rows)],
      ["bad-option", () => cache.append([1], rows.slice(1))],
      ["bad-size", () => cache.append([1, 2], rows)],
      ["bad-option", () => cache.append([1], rows, { extras: [{ name: "a", value: "b", at: 2 }] })],
      ["bad-option", () => cache.truncate(7)],
      ["bad-option", () => cache.truncate(-1)],
      ["bad-option", () => cache.read(9, "keys", 0, 1, new Float32Array(6))],
      ["bad-option", () => cache.read(0, "keys", 0, 7, new Float32Array(42))],
      ["bad-size", () => cache.read(0, "keys", 0, 1, new Float32Array(5))],
      ["bad-option", () => cache.gather([], 6)],
      ["bad-option", () => cache.gather(rows, 1)],
      ["bad-option", () => cache.noteAttention([2])],
      ["bad-id", () => caches.save(cache, "")],
      ["bad-option", () => open(memory, { fingerprint: "" })],
      ["bad-option", () => open(memory, { pageTokens: 0 })],
      ["bad-option", () => open(memory, { layers: [] })],
      ["bad-shape", () => open(memory, { layers: [{ heads: 0, headDim: 1, dtype: "f32" }] })],
      [
        "bad-dtype",
        () => open(memory, { layers: [{ heads: 1, headDim: 1, dtype: "i8" as never }] }),
      ],
      ["bad-option", () => windowLayout({ recentPages: 0 })],
    ];
    const { heldCount } = caches.stats();
    for (const [expected, work] of wrong) {
      expect(await code(work), String(work)).toBe(expected);
    }
    await expectHolds(cache, count(6));
    expect(caches.stats().heldCount).toBe(heldCount);
    cache.free();
    expect(await code(() => cache.append([1], rows))).toBe("freed");
    expect(await code(() => cache.free())).toBe("freed");
  });

  it("is a second operation while one is under way", async () => {
    const caches = open(await openMemory());
    const cache = caches.create();
    await extend(cache, count(6));
    const running = extend(cache, count(13));
    expect(cache.isRunning).toBe(true);
    for (const work of [
      () => cache.truncate(0),
      () => extend(cache, count(14)),
      () => gathered(MIXED_LAYERS, cache),
    ]) {
      await expect(work()).rejects.toMatchObject({ code: "re-entrant" });
    }
    expect(() => cache.free()).toThrow(expect.objectContaining({ code: "re-entrant" }));
    expect(() => cache.fork()).toThrow(expect.objectContaining({ code: "re-entrant" }));
    expect(() => caches.close()).toThrow(expect.objectContaining({ code: "re-entrant" }));
    await running;
    await expectHolds(cache, count(13));
    cache.free();
  });

  it("is a page or tail that somebody else wrote, freed or pinned", async () => {
    const memory = await openOn(memoryFileSystem());
    const caches = open(memory);
    const cache = caches.create();
    await extend(cache, count(6));
    const ids: string[] = [];
    for await (const { id } of memory.list({ prefix: "tierheap/kv/" })) ids.push(id);
    expect(ids).toHaveLength(2);
    for (const id of ids) {
      const lease = await memory.acquire(id, { access: "read" });
      await expect(memory.swapOut(id)).rejects.toMatchObject({ code: "pinned" });
      expect(() => memory.free(id)).toThrow(expect.objectContaining({ code: "pinned" }));
      lease?.[Symbol.dispose]();
      await expectHolds(cache, count(6));
    }
    for (const id of ids) {
      const fork = cache.fork();
      const lease = await memory.acquire(id);
      await expect(gathered(MIXED_LAYERS, fork)).rejects.toMatchObject({ code: "overwritten" });
      lease?.[Symbol.dispose]();
      await expect(gathered(MIXED_LAYERS, fork)).rejects.toMatchObject({ code: "overwritten" });
      fork.free();
    }
    cache.free();
  });
});
