// KV caches in pages: rows, forks, shared prefixes, pressure, and features beside them.
import { describe, expect, it } from "vitest";
import type { KvCache } from "../../src/kv/kv-cache.js";
import type { KvCachesOptions } from "../../src/kv/kv-caches.js";
import { openKvCaches, pagedLayout } from "../../src/kv.js";
import { memoryFileSystem, seededRandom } from "../../src/testing/index.js";
import { count, expectHolds, expectUnheld, extend, open, PAGE } from "../support/kv-chats.js";
import { gathered, MIXED_LAYERS, rowsOf } from "../support/kv-model.js";
import { openMemory, openOn, withSeed } from "../support/oracle.js";

describe("a cache", () => {
  it("gives back what was appended, in steps of any length", async () => {
    const caches = open(await openMemory());
    for (const steps of [[1], [3, 1], [4], [5], [1, 1, 1, 1, 1], [17, 2, 9], [8, 8]]) {
      const cache = caches.create();
      const tokens: number[] = [];
      for (const length of steps) {
        tokens.push(...count(length, 100 * tokens.length));
        await extend(cache, tokens);
        await expectHolds(cache, tokens);
      }
      expect(cache.rowCount).toBe(tokens.length);
      expect(cache.positions).toEqual(count(tokens.length));
      expect(cache.pageCount).toBe(Math.floor(tokens.length / PAGE));
      cache.free();
    }
    expectUnheld(caches);
  });

  it("reads any range of any layer", async () => {
    const caches = open(await openMemory());
    const cache = caches.create();
    const tokens = count(11);
    await extend(cache, tokens);
    for (const [index, layer] of MIXED_LAYERS.entries()) {
      for (const part of ["keys", "values"] as const) {
        for (const [from, to] of [
          [0, 11],
          [0, 0],
          [3, 5],
          [4, 8],
          [9, 11],
          [2, 10],
        ] as const) {
          const length = layer.heads * (to - from) * layer.headDim;
          const into = layer.dtype === "f32" ? new Float32Array(length) : new Uint16Array(length);
          await cache.read(index, part, from, to, into);
          expect(into).toEqual(rowsOf(MIXED_LAYERS, tokens, from, to)[index]?.[part]);
        }
      }
    }
    cache.free();
  });

  it("gathers to a capacity and leaves what is behind the rows", async () => {
    const caches = open(await openMemory());
    using cache = caches.create();
    await extend(cache, count(6));
    const expected = rowsOf(MIXED_LAYERS, count(6), 0, 6, { capacity: 9 });
    expect(await gathered(MIXED_LAYERS, cache, 9)).toEqual(expected);
  });

  it("rolls back into the tail, to a page's end and into a page", async () => {
    const caches = open(await openMemory());
    for (const to of [10, 9, 8, 7, 4, 3, 1, 0]) {
      using cache = caches.create();
      await extend(cache, count(11));
      await cache.truncate(to);
      await expectHolds(cache, count(to));
      const other = [...count(to), ...count(9, 500)];
      await extend(cache, other);
      await expectHolds(cache, other);
    }
    expectUnheld(caches);
  });

  it("forks without a copy, and a writer gets a tail of its own", async () => {
    const memory = await openMemory();
    const caches = open(memory);
    const trunk = caches.create();
    await extend(trunk, count(9));
    const { tensors } = memory.stats();
    const forks = [trunk.fork(), trunk.fork(), trunk.fork()];
    expect(memory.stats().tensors).toEqual(tensors);
    expect(caches.stats().sharedBytes).toBeGreaterThan(0);
    for (const [index, fork] of forks.entries()) {
      await extend(fork, [...count(9), ...count(index + 1, 900 + index)]);
    }
    await expectHolds(trunk, count(9));
    for (const [index, fork] of forks.entries()) {
      await expectHolds(fork, [...count(9), ...count(index + 1, 900 + index)]);
    }
    trunk.free();
    for (const fork of forks) fork.free();
    expectUnheld(caches);
  });
});

describe("prefixes", () => {
  it("are held once, and found again while there is room", async () => {
    const memory = await openMemory();
    const caches = open(memory);
    const first = caches.create();
    await extend(first, count(14));
    const { tensors } = memory.stats();
    const second = caches.create();
    await extend(second, count(12));
    expect(memory.stats().tensors.count).toBe(tensors.count);
    expect(caches.stats()).toMatchObject({ heldCount: 3, foundCount: 3, writtenCount: 3 });
    first.free();
    second.free();
    expectUnheld(caches);
    const tokens = [...count(9), 77, 78, 79, 80];
    expect(await caches.match({ tokens })).toBe(8);
    const third = await caches.restore({ tokens });
    expect(third.tokenCount).toBe(8);
    await extend(third, tokens);
    await expectHolds(third, tokens);
    expect(caches.stats()).toMatchObject({ askedTokens: 13, foundTokens: 8, restoreCount: 1 });
    third.free();
  });

  it("are told apart by model, salt, extras, page length and shapes", async () => {
    const memory = await openMemory();
    const tokens = count(8);
    const variants: [Partial<KvCachesOptions>, { name: string; value: string; at?: number }[]][] = [
      [{}, []],
      [{ fingerprint: "other" }, []],
      [{ salt: "tenant" }, []],
      [{ pageTokens: 2 }, []],
      [{ layers: [...MIXED_LAYERS].reverse() }, []],
      [{ layout: { ...pagedLayout, name: "coding", isUniform: false } }, []],
      [{}, [{ name: "lora", value: "a" }]],
      [{}, [{ name: "lora", value: "b" }]],
      [{}, [{ name: "image", value: "a", at: 1 }]],
      [{}, [{ name: "image", value: "a", at: 2 }]],
    ];
    const kept: KvCache[] = [];
    for (const [options, extras] of variants) {
      const caches = open(memory, options);
      expect(await caches.match({ tokens, extras })).toBe(0);
      const cache = caches.create({ extras });
      await cache.append(tokens, rowsOf(caches.layers, tokens));
      expect(await caches.match({ tokens, extras: [...extras].reverse() })).toBe(8);
      kept.push(cache);
    }
    for (const cache of kept) cache.free();
  });

  it("share pages before an image, and none from it on", async () => {
    const caches = open(await openMemory());
    const tokens = count(12);
    const image = (value: string) => [{ name: "image", value, at: 6 }];
    const first = caches.create();
    await first.append(count(5), rowsOf(MIXED_LAYERS, tokens, 0, 5));
    await first.append(count(7, 5), rowsOf(MIXED_LAYERS, tokens, 5), { extras: image("cat") });
    expect(await caches.match({ tokens, extras: image("cat") })).toBe(12);
    expect(await caches.match({ tokens, extras: image("dog") })).toBe(4);
    expect(await caches.match({ tokens })).toBe(4);
    first.free();
  });

  it("never give rows of other tokens, even where names collide", () =>
    withSeed("colliding names", async (seed) => {
      const random = seededRandom(seed);
      const memory = await openMemory();
      // 256 names for all pages there are.
      const caches = open(memory, { idDigits: 2 });
      const live: { cache: KvCache; tokens: number[] }[] = [];
      for (let round = 0; round < 120; round++) {
        const tokens = Array.from(
          { length: 1 + (random.uint32() % 20) },
          () => random.uint32() % 2,
        );
        const cache = await caches.restore({ tokens });
        expect(cache.tokens).toEqual(tokens.slice(0, cache.tokenCount));
        await extend(cache, tokens);
        await expectHolds(cache, tokens);
        live.push({ cache, tokens });
        if (live.length > 5) {
          const [gone] = live.splice(random.uint32() % live.length, 1);
          await expectHolds(gone?.cache as KvCache, gone?.tokens as number[]);
          gone?.cache.free();
        }
      }
      const { conflictCount, foundCount } = caches.stats();
      expect(conflictCount).toBeGreaterThan(50);
      expect(foundCount).toBeGreaterThan(50);
      for (const { cache } of live) cache.free();
      expectUnheld(caches);
    }));
});

describe("beside plain arrays", () => {
  for (const tier of ["without a tier", "with one", "with one, and little room"] as const) {
    it(`random operations agree, ${tier}`, () =>
      withSeed(tier, async (seed) => {
        const random = seededRandom(seed);
        const below = (limit: number) => random.uint32() % limit;
        const ram = tier === "with one, and little room" ? "4MiB" : "16MiB";
        const memory = await (tier === "without a tier"
          ? openMemory({ budgets: { ram } })
          : openOn(memoryFileSystem(), { budgets: { ram } }));
        const caches = open(memory);
        // What else wants room: pages must leave and come back.
        const ballast = tier === "with one, and little room" ? 3 : 0;
        let live: { cache: KvCache; tokens: number[] }[] = [];
        for (let step = 0; step < 300; step++) {
          const pick = live[below(Math.max(1, live.length))];
          const what = below(8);
          if (pick === undefined || (what === 0 && live.length < 6)) {
            const tokens = count(below(30)).map((index) => (index < 12 ? index : below(4)));
            const cache = await caches.restore({ tokens });
            await extend(cache, tokens);
            live.push({ cache, tokens });
          } else if (what === 1) {
            pick.cache.free();
            live = live.filter((each) => each !== pick);
          } else if (what === 2) {
            pick.tokens = pick.tokens.slice(0, below(pick.tokens.length + 1));
            await pick.cache.truncate(pick.tokens.length);
          } else if (what === 3 && live.length < 6) {
            live.push({ cache: pick.cache.fork(), tokens: pick.tokens.slice() });
          } else if (what === 4) {
            await expectHolds(pick.cache, pick.tokens);
          } else if (what === 5 && tier !== "without a tier") {
            for await (const { id, isResident } of memory.list({ prefix: "tierheap/kv/" })) {
              if (isResident && below(2) === 0) await memory.swapOut(id);
            }
          } else {
            for (let more = 1 + below(7); more > 0; more--) pick.tokens.push(below(4));
            await extend(pick.cache, pick.tokens);
          }
          for (let index = 0; index < ballast && step % 10 === 0; index++) {
            await memory.reserve({ kind: "ACTIVATIONS", bytes: 2 ** 19 });
          }
        }
        expect(caches.stats().foundCount).toBeGreaterThan(20);
        for (const { cache, tokens } of live) {
          await expectHolds(cache, tokens);
          cache.free();
        }
        expectUnheld(caches);
        await caches.clear();
        expect(memory.stats().tensors.count).toBe(0);
      }));
  }
});

describe("under pressure", () => {
  it("drops pages that nobody holds, tail first, and never those that are held", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" } });
    const layers = [{ heads: 1, headDim: 4096, dtype: "f32" as const }];
    const caches = openKvCaches(memory, { fingerprint: "m", layers, pageTokens: PAGE });
    const rows = (tokens: number[]) => rowsOf(layers, tokens);
    const first = caches.create();
    await first.append(count(8), rows(count(8)));
    first.free();
    // Found again, not made.
    const held = await caches.restore({ tokens: count(8) });
    expect(held.tokenCount).toBe(8);
    const lengths: number[] = [];
    for (let chat = 0; chat < 12; chat++) {
      const tokens = count(12, 1000 * (chat + 1));
      const cache = caches.create();
      await cache.append(tokens, rows(tokens));
      cache.free();
    }
    for (let chat = 0; chat < 12; chat++) {
      lengths.push(await caches.match({ tokens: count(12, 1000 * (chat + 1)) }));
    }
    // The oldest are gone, the newest whole, and of what is left in between the beginning is left.
    expect(lengths[0]).toBe(0);
    expect(lengths.at(-1)).toBe(12);
    expect(lengths).toEqual([...lengths].sort((a, b) => a - b));
    expect(await gathered(layers, held)).toEqual(rows(count(8)));
    held.free();
  });

  it("leaves a cache as it was when there is no room", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" } });
    const layers = [{ heads: 1, headDim: 16384, dtype: "f32" as const }];
    const caches = openKvCaches(memory, { fingerprint: "m", layers, pageTokens: PAGE });
    const cache = caches.create();
    await cache.append(count(5), rowsOf(layers, count(5)));
    const before = memory.stats().tensors;
    await expect(cache.append(count(40, 5), rowsOf(layers, count(45), 5))).rejects.toMatchObject({
      code: "out-of-memory",
    });
    expect(cache.tokens).toEqual(count(5));
    expect(caches.stats()).toMatchObject({ heldCount: 1 });
    expect(memory.stats().tensors.count).toBeGreaterThanOrEqual(before.count);
    expect(await gathered(layers, cache)).toEqual(rowsOf(layers, count(5)));
    await cache.append(count(3, 5), rowsOf(layers, count(8), 5));
    expect(await gathered(layers, cache)).toEqual(rowsOf(layers, count(8)));
    cache.free();
  });
});

describe("features", () => {
  it("are computed once for a content, by whoever asks first", async () => {
    const memory = await openMemory();
    const { features } = open(memory);
    let computedCount = 0;
    const ask = (hash: string, value = 1) =>
      features.getOrCompute({
        ...{ kind: "IMAGE_FEATURES", hash, shape: [2, 3], dtype: "f32" },
        compute: async (view) => {
          await Promise.resolve();
          computedCount += 1;
          (view as Float32Array).fill(value);
        },
      });
    const leases = await Promise.all([ask("a", 1), ask("a", 2), ask("b", 3)]);
    expect(leases.map(({ view }) => view[0])).toEqual([1, 1, 3]);
    expect(computedCount).toBe(2);
    for (const lease of leases) lease[Symbol.dispose]();
    (await ask("a", 9))[Symbol.dispose]();
    expect(computedCount).toBe(2);
    // Another model's features are others.
    const other = open(memory, { fingerprint: "other" }).features;
    expect(other.idOf({ kind: "IMAGE_FEATURES", hash: "a", shape: [1], dtype: "f32" })).not.toBe(
      features.idOf({ kind: "IMAGE_FEATURES", hash: "a", shape: [1], dtype: "f32" }),
    );
    expect(features.stats()).toMatchObject({ computedCount: 2 });
  });

  it("keep nothing when computing fails", async () => {
    const memory = await openMemory();
    const { features } = open(memory);
    const request = { kind: "TEXT_EMBEDDINGS", hash: "x", shape: [4], dtype: "f32" } as const;
    const failing = features.getOrCompute({
      ...request,
      compute: () => {
        throw new RangeError("no");
      },
    });
    await expect(failing).rejects.toThrow(RangeError);
    expect(memory.stats().tensors.count).toBe(0);
    const lease = await features.getOrCompute({ ...request, compute: () => {} });
    lease[Symbol.dispose]();
    await expect(
      features.getOrCompute({ ...request, kind: "PARAMETERS" as never, compute: () => {} }),
    ).rejects.toMatchObject({ code: "bad-option" });
    await expect(
      features.getOrCompute({ ...request, hash: "", compute: () => {} }),
    ).rejects.toMatchObject({ code: "bad-option" });
  });
});
