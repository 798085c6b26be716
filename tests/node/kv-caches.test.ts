// KV caches in pages beside plain arrays: rows, tokens and sharing over random operations, forks, rollback,
// pressure, restarts, and everything that must be refused.
import { describe, expect, it } from "vitest";
import { exactForm } from "../../src/kv/forms/exact.js";
import type { KvCache } from "../../src/kv/kv-cache.js";
import type { KvCaches, KvCachesOptions } from "../../src/kv/kv-caches.js";
import type { KvLayout, PageForm } from "../../src/kv.js";
import { openKvCaches, pagedLayout, windowLayout } from "../../src/kv.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryFileSystem, seededRandom } from "../../src/testing/index.js";
import { gathered, MIXED_LAYERS, type ModelRows, rowsOf } from "../support/kv-model.js";
import { closeMemory, openMemory, openOn, withSeed } from "../support/oracle.js";

const PAGE = 4;

function open(memory: TensorMemory, options: Partial<KvCachesOptions> = {}): KvCaches {
  return openKvCaches(memory, {
    ...{ fingerprint: "model", layers: MIXED_LAYERS, pageTokens: PAGE },
    ...options,
  });
}

const count = (length: number, first = 0) => Array.from({ length }, (_, index) => first + index);

/** Appends what makes the cache hold these tokens. */
async function extend(cache: KvCache, tokens: readonly number[]): Promise<void> {
  const from = cache.tokenCount;
  await cache.append(tokens.slice(from), rowsOf(MIXED_LAYERS, tokens, from));
}

async function expectHolds(cache: KvCache, tokens: readonly number[]): Promise<void> {
  expect(cache.tokens).toEqual(tokens);
  expect(await gathered(MIXED_LAYERS, cache)).toEqual(rowsOf(MIXED_LAYERS, tokens));
}

/** What is left of caches once all are freed: pages that may be dropped, nothing else. */
function expectUnheld(caches: KvCaches): void {
  expect(caches.stats()).toMatchObject({ heldCount: 0, heldBytes: 0, cacheCount: 0 });
}

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

describe("a restart", () => {
  it("finds pages by tokens, and a saved chat to the token", async () => {
    const fileSystem = memoryFileSystem();
    const before = await openOn(fileSystem);
    const writer = open(before);
    const tokens = count(15);
    const extras = [{ name: "image", value: "cat", at: 13 }];
    const cache = writer.create();
    await cache.append(count(12), rowsOf(MIXED_LAYERS, tokens, 0, 12));
    await cache.append(count(3, 12), rowsOf(MIXED_LAYERS, tokens, 12), { extras });
    expect(await writer.save(cache, "alice")).toBe("stored");
    cache.free();
    await closeMemory(before);

    const after = await openOn(fileSystem);
    const reader = open(after);
    expect(await reader.match({ tokens })).toBe(12);
    for (const [query, expected] of [
      [{ id: "alice" }, 15],
      [{ id: "alice", tokens, extras }, 15],
      [{ id: "alice", tokens: [...tokens.slice(0, 14), 99], extras }, 14],
      [{ id: "alice", tokens }, 12],
      [{ id: "alice", tokens: [...count(8), 99, ...count(6)], extras }, 8],
      [{ id: "bob", tokens }, 12],
      [{ id: "bob" }, 0],
      [{ tokens: [5, ...tokens] }, 0],
    ] as const) {
      const restored = await reader.restore(query);
      expect(restored.tokenCount, JSON.stringify(query)).toBe(expected);
      await expectHolds(restored, tokens.slice(0, expected));
      restored.free();
    }
    // Other models, and other shapes, find nothing.
    for (const options of [{ fingerprint: "other" }, { salt: "s" }, { pageTokens: 5 }]) {
      const other = await open(after, options).restore({ tokens, id: "alice", extras });
      expect(other.tokenCount).toBe(0);
      other.free();
    }
    const again = await reader.restore({ id: "alice" });
    await again.truncate(13);
    await extend(again, [...count(13), 70, 71, 72, 73]);
    expect(await reader.save(again, "alice")).toBe("stored");
    again.free();
    const replaced = await reader.restore({ id: "alice" });
    await expectHolds(replaced, [...count(13), 70, 71, 72, 73]);
    replaced.free();
    expect(await reader.deleteSaved("alice")).toBe(true);
    expect((await reader.restore({ id: "alice" })).tokenCount).toBe(0);
    reader.close();
    expect(await reader.match({ tokens }).catch((error) => error.code)).toBe("closed");
  });

  it("takes a damaged page as a miss", async () => {
    const fileSystem = memoryFileSystem();
    const before = await openOn(fileSystem, { packedBytesMax: 0 });
    const writer = open(before);
    const cache = writer.create();
    await extend(cache, count(14));
    await writer.save(cache, "a");
    cache.free();
    await closeMemory(before);
    const files = [...fileSystem.files()].map(([path, bytes]) => [path, bytes.slice()] as const);
    const found: number[] = [];
    for (const [damaged, { length }] of files) {
      const other = memoryFileSystem();
      for (const [path, bytes] of files) {
        const copy = bytes.slice();
        if (path === damaged && length > 0) copy[length - 9] = (copy[length - 9] as number) ^ 1;
        other.plant(path, copy);
      }
      const after = await openOn(other, { packedBytesMax: 0 });
      const reader = open(after);
      const restored = await reader.restore({ id: "a", tokens: count(14) });
      await expectHolds(restored, count(restored.tokenCount));
      found.push(restored.tokenCount);
      restored.free();
    }
    // Each of three pages, and the rows behind them.
    expect([...new Set(found)].sort((a, b) => a - b)).toEqual([0, 4, 8, 12]);
  });
});

describe("layouts", () => {
  it("a window keeps sinks and the last pages, and says where its rows were", async () => {
    const caches = open(await openMemory(), {
      layout: windowLayout({ sinkPages: 1, recentPages: 2 }),
    });
    const cache = caches.create();
    const tokens = count(30);
    for (let length = 1; length <= 30; length++) await extend(cache, tokens.slice(0, length));
    expect(cache.tokenCount).toBe(30);
    expect(cache.rowCount).toBe(14);
    const positions = [...count(4), ...count(10, 20)];
    expect(cache.positions).toEqual(positions);
    const all = rowsOf(MIXED_LAYERS, tokens);
    const kept = await gathered(MIXED_LAYERS, cache);
    for (const [index, { heads, headDim }] of MIXED_LAYERS.entries()) {
      const pick = (
        part: "keys" | "values",
        from: readonly number[],
        capacity: number,
        rows: typeof all,
      ) =>
        count(heads).map((head) =>
          from.map((row) => {
            const at = (head * capacity + row) * headDim;
            return (rows[index] as ModelRows)[part].slice(at, at + headDim);
          }),
        );
      for (const part of ["keys", "values"] as const) {
        expect(pick(part, count(14), 14, kept)).toEqual(pick(part, positions, 30, all));
      }
    }
    for (const gone of [5, 18, 21]) {
      await expect(cache.truncate(gone)).rejects.toMatchObject({ code: "unsupported" });
    }
    await cache.truncate(25);
    expect(cache.positions).toEqual([...count(4), ...count(5, 20)]);
    await expect(caches.save(cache, "w")).rejects.toMatchObject({ code: "unsupported" });
    cache.free();
    expectUnheld(caches);
  });

  it("writes pages anew as they age, but for critical layers and rows that a form refuses", async () => {
    // Keeps the upper byte of an f32: short, and easy to predict.
    const coarse: PageForm = {
      name: "coarse",
      isExact: false,
      sectionBytes: ({ heads, headDim }, pageTokens) =>
        64 * Math.ceil((2 * heads * headDim * pageTokens) / 64),
      encode: ({ heads, headDim }, pageTokens, keys, values, section) => {
        const length = heads * headDim * pageTokens;
        for (let index = 0; index < length; index++) {
          section[index] = keys[4 * index + 3] as number;
          section[length + index] = values[4 * index + 3] as number;
        }
      },
      decode: ({ heads, headDim }, pageTokens, section, keys, values) => {
        const length = heads * headDim * pageTokens;
        for (let index = 0; index < length; index++) {
          keys
            ?.fill(0, 4 * index, 4 * index + 3)
            .fill(section[index] as number, 4 * index + 3, 4 * index + 4);
          values
            ?.fill(0, 4 * index, 4 * index + 3)
            .fill(section[length + index] as number, 4 * index + 3, 4 * index + 4);
        }
      },
    };
    const layout: KvLayout = {
      name: "aging",
      isUniform: false,
      formOf: (_shape, { pageIndex, pageCount }) =>
        pageIndex > 0 && pageIndex < pageCount - 1 ? coarse : exactForm,
      keeps: () => true,
    };
    const layer = { heads: 2, headDim: 16, dtype: "f32" } as const;
    const layers = [layer, { ...layer, isCritical: true }];
    const memory = await openMemory();
    const caches = openKvCaches(memory, { fingerprint: "m", layers, layout, pageTokens: PAGE });
    const cache = caches.create();
    const tokens = count(18);
    await cache.append(count(6), rowsOf(layers, tokens, 0, 6));
    await cache.append(count(12, 6), rowsOf(layers, tokens, 6));
    const exact = rowsOf(layers, tokens);
    const rows = await gathered(layers, cache);
    expect(rows[1]).toEqual(exact[1]);
    for (const part of ["keys", "values"] as const) {
      const words = (view: ArrayBufferView) => new Uint32Array(view.buffer);
      const expected = words((exact[0] as (typeof exact)[0])[part]).slice();
      for (let head = 0; head < 2; head++) {
        for (let row = 4; row < 12; row++) {
          const at = (head * 18 + row) * 16;
          for (let index = at; index < at + 16; index++)
            expected[index] = (expected[index] as number) & 0xff000000;
        }
      }
      expect(words((rows[0] as (typeof rows)[0])[part])).toEqual(expected);
    }
    // A chat that begins alike finds the pages in the form that they have.
    cache.free();
    const found = await caches.restore({ tokens });
    expect(found.tokenCount).toBe(16);
    found.free();
    caches.close();
  });
});

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
