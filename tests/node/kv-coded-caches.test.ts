// Caches whose pages are coded: what comes back, what it takes, how pages age, and what is never found.
import { describe, expect, it } from "vitest";
import { openPageForms } from "../../src/codecs.js";
import type { KvCache } from "../../src/kv/kv-cache.js";
import type { KvLayerShape, KvLayout } from "../../src/kv.js";
import { codedLayout, openKvCaches } from "../../src/kv.js";
import { seededRandom } from "../../src/random.js";
import { memoryFileSystem } from "../../src/testing/index.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";

const PAGE = 64;
const LAYER = { heads: 2, headDim: 32, dtype: "f32" } as const;
const LAYERS: readonly KvLayerShape[] = [LAYER, { ...LAYER, isCritical: true }];
const TOKENS = Array.from({ length: 8 * PAGE + 10 }, (_, index) => (index * 7) % 251);

/** Rows that follow from place and layer, normal enough; one element may be set apart. */
function rowsOf(from: number, to: number, odd: { token: number; value: number } | null = null) {
  return LAYERS.map((layer, index) => {
    const part = (salt: number) => {
      const values = new Float32Array(layer.heads * (to - from) * layer.headDim);
      for (let head = 0; head < layer.heads; head++) {
        for (let token = from; token < to; token++) {
          const random = seededRandom(token * 64 + head * 8 + index * 4 + salt);
          for (let c = 0; c < layer.headDim; c++) {
            const at = (head * (to - from) + token - from) * layer.headDim + c;
            values[at] = (random.uint32() + random.uint32()) / 2 ** 31 - 2;
            if (odd?.token === token && c === 3) values[at] = odd.value;
          }
        }
      }
      return values;
    };
    return { keys: part(1), values: part(2) };
  });
}

/** Rows of a layer that a cache holds, head by head. */
async function read(
  cache: KvCache,
  layer: number,
  part: "keys" | "values",
  from: number,
  to: number,
) {
  const into = new Float32Array(LAYER.heads * (to - from) * LAYER.headDim);
  await cache.read(layer, part, from, to, into);
  return into;
}

function relativeError(actual: Float32Array, expected: Float32Array): number {
  const errors = Math.hypot(...actual.map((value, index) => value - (expected[index] as number)));
  return errors / Math.hypot(...expected);
}

/** Error of the keys and values of page `index` of the first layer. */
async function pageErrors(cache: KvCache, index: number): Promise<number[]> {
  const [from, to] = [index * PAGE, (index + 1) * PAGE];
  const [expected] = rowsOf(from, to);
  const { keys, values } = expected as { keys: Float32Array; values: Float32Array };
  return [
    relativeError(await read(cache, 0, "keys", from, to), keys),
    relativeError(await read(cache, 0, "values", from, to), values),
  ];
}

async function filled(layout?: KvLayout, tokens = TOKENS) {
  const memory = await openMemory();
  const caches = openKvCaches(memory, {
    ...{ fingerprint: "model", layers: LAYERS },
    ...(layout === undefined ? {} : { layout }),
  });
  const cache = caches.create();
  await cache.append(tokens, rowsOf(0, tokens.length));
  return { caches, cache };
}

describe("a cache with coded pages", () => {
  it.each([
    ["quant8", 0.01, 0.77],
    ["quant", 0.12, 0.73],
  ] as const)(
    "of layout %s is near what was appended, in fewer bytes",
    async (name, limit, share) => {
      const forms = await openPageForms();
      const plain = await filled();
      const { cache } = await filled(codedLayout(name, forms));
      // The first page, the last full one and the tail are exact.
      expect(await pageErrors(cache, 0)).toEqual([0, 0]);
      expect(await pageErrors(cache, 7)).toEqual([0, 0]);
      const [tail] = rowsOf(8 * PAGE, TOKENS.length);
      expect(await read(cache, 0, "keys", 8 * PAGE, TOKENS.length)).toEqual(tail?.keys);
      for (let page = 1; page < 7; page++) {
        for (const error of await pageErrors(cache, page)) {
          expect(error).toBeGreaterThan(0);
          expect(error).toBeLessThan(limit);
        }
        // The second layer is critical.
        const [, exact] = rowsOf(page * PAGE, (page + 1) * PAGE);
        const back = await read(cache, 1, "values", page * PAGE, (page + 1) * PAGE);
        expect(back).toEqual(exact?.values);
      }
      expect(cache.byteLength / plain.cache.byteLength).toBeLessThan(share);
      cache.free();
      plain.cache.free();
    },
  );

  it("keeps a page exact that holds what is not finite", async () => {
    const forms = await openPageForms();
    const memory = await openMemory();
    const layout = codedLayout("quant", forms);
    const caches = openKvCaches(memory, { fingerprint: "model", layers: LAYERS, layout });
    const cache = caches.create();
    const odd = { token: 2 * PAGE + 5, value: Number.NEGATIVE_INFINITY };
    await cache.append(TOKENS, rowsOf(0, TOKENS.length, odd));
    const [expected] = rowsOf(2 * PAGE, 3 * PAGE, odd);
    expect(await read(cache, 0, "keys", 2 * PAGE, 3 * PAGE)).toEqual(expected?.keys);
    expect((await pageErrors(cache, 3))[0]).toBeGreaterThan(0);
    cache.free();
  });

  it("ages: the pages of hybrid get shorter as others come, and stay near", async () => {
    const forms = await openPageForms();
    const layout = codedLayout("hybrid", forms, { a8Pages: 1, a4Pages: 2 });
    const memory = await openMemory();
    const caches = openKvCaches(memory, { fingerprint: "model", layers: LAYERS, layout });
    const cache = caches.create();
    const errors: number[] = [];
    for (let pages = 1; pages <= 8; pages++) {
      const from = (pages - 1) * PAGE;
      await cache.append(TOKENS.slice(from, from + PAGE), rowsOf(from, from + PAGE));
      if (pages > 1) errors.push((await pageErrors(cache, 1))[0] as number);
    }
    // Exact as the last page, then a8, a4 twice, a2.
    const [exact, a8, a4, again, a2] = errors as [number, number, number, number, number];
    expect(exact).toBe(0);
    expect(a8).toBeGreaterThan(0);
    expect(a4).toBeGreaterThan(4 * a8);
    expect(again).toBe(a4);
    expect(a2).toBeGreaterThan(2 * a4);
    expect(a2).toBeLessThan(0.5);
    expect(errors.at(-1)).toBe(a2);
    cache.free();
  });

  it("is saved, and restored by another process to the same bytes", async () => {
    const forms = await openPageForms();
    const layout = codedLayout("quant", forms);
    const files = memoryFileSystem();
    const options = { fingerprint: "model", layers: LAYERS, layout };
    const memory = await openOn(files);
    const caches = openKvCaches(memory, options);
    const cache = caches.create();
    await cache.append(TOKENS, rowsOf(0, TOKENS.length));
    const before = await read(cache, 0, "keys", 0, TOKENS.length);
    expect(await caches.save(cache, "chat")).toBe("stored");
    cache.free();
    await closeMemory(memory);
    const later = openKvCaches(await openOn(files), options);
    using restored = await later.restore({ id: "chat", tokens: TOKENS });
    expect(restored.tokenCount).toBe(TOKENS.length);
    expect(await read(restored, 0, "keys", 0, TOKENS.length)).toEqual(before);
  });
});

describe("low rank", () => {
  it("is refused for rotated keys before there is any row", async () => {
    const forms = await openPageForms();
    const layout = codedLayout("lowrank", forms, { lowRankOfLayer: () => null });
    const memory = await openMemory();
    const open = () => openKvCaches(memory, { fingerprint: "model", layers: [LAYER], layout });
    expect(open).toThrow(expect.objectContaining({ code: "bad-option" }));
  });

  it("finds pages over its own basis, and never those over another", async () => {
    const forms = await openPageForms();
    const layers = LAYERS.map((layer) => ({ ...layer, areKeysBeforeRope: true }));
    const memory = await openMemory();
    const openOver = async (first: number) => {
      const [rows] = rowsOf(first, first + 2 * PAGE);
      const bytes = new Uint8Array((rows as { keys: Float32Array }).keys.buffer);
      const shape = layers[0] as KvLayerShape;
      const keys = await forms.fitBasis(shape, bytes, 2 * PAGE, { rank: 16, bits: 8 });
      const form = forms.lowRank({ keys });
      const options = { lowRankOfLayer: () => form, sinkPages: 0, recentPages: 0 };
      const layout = codedLayout("lowrank", forms, options);
      return openKvCaches(memory, { fingerprint: "model", layers, layout });
    };
    const one = await openOver(0);
    const cache = one.create();
    await cache.append(TOKENS, rowsOf(0, TOKENS.length));
    expect((await pageErrors(cache, 2))[0]).toBeGreaterThan(0.1);
    cache.free();
    using again = await (await openOver(0)).restore({ tokens: TOKENS });
    expect(again.tokenCount).toBe(8 * PAGE);
    using other = await (await openOver(128)).restore({ tokens: TOKENS });
    expect(other.tokenCount).toBe(0);
  });
});
