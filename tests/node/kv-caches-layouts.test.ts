// KV caches in layouts that drop or recode what is old.
import { describe, expect, it } from "vitest";
import { exactForm } from "../../src/kv/forms/exact.js";
import type { KvLayout, PageForm } from "../../src/kv.js";
import { openKvCaches, windowLayout } from "../../src/kv.js";
import { count, expectUnheld, extend, open, PAGE } from "../support/kv-chats.js";
import { gathered, MIXED_LAYERS, type ModelRows, rowsOf } from "../support/kv-model.js";
import { openMemory } from "../support/oracle.js";

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
