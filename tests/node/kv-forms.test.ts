// The forms of KV pages: their suite, their bytes, their lengths, and what they refuse.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import { MisuseError } from "../../src/errors.js";
import { exactForm } from "../../src/kv/forms/exact.js";
import { openPageForms, type PageForms } from "../../src/kv/forms/page-forms.js";
import { codedLayout } from "../../src/kv/layouts.js";
import type { KvLayerShape, PageForm } from "../../src/kv/page-form.js";
import { seededRandom } from "../../src/random.js";
import { type PageFormFixture, pageFormConformance } from "../../src/testing/index.js";
import { crc32, fixture, KERNEL_BUILDS, type KernelBuild } from "../support/kernels.js";

const LLAMA: KvLayerShape = { heads: 8, headDim: 128, dtype: "f16" };
const PAGE_TOKENS = 64;

function open(build: KernelBuild = "kernels", workspaceBytes = 2 ** 20): Promise<PageForms> {
  const wasm = readFileSync(new URL(`../../build/${build}.wasm`, import.meta.url));
  return openPageForms({ createMemory: createUnsharedMemory, wasm, workspaceBytes });
}

function normal(count: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  return Float32Array.from({ length: count }, () => {
    let sum = -6;
    for (let draw = 0; draw < 12; draw++) sum += random.uint32() / 2 ** 32;
    return sum;
  });
}

const bytesOf = (values: Float32Array) =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Rows near a space of `rank` dimensions, the same for every seed. */
function flatRows(tokens: number, headDim: number, rank: number, seed: number): Float32Array {
  const directions = normal(rank * headDim, 1);
  const weights = normal(tokens * rank, seed);
  const noise = normal(tokens * headDim, seed + 1);
  return noise.map((value, index) => {
    const token = Math.floor(index / headDim);
    let sum = 0.01 * value;
    for (let k = 0; k < rank; k++) {
      const direction = directions[k * headDim + (index % headDim)] as number;
      sum += (weights[token * rank + k] as number) * direction;
    }
    return sum;
  });
}

async function lowRankFixture(forms: PageForms): Promise<PageFormFixture> {
  const layer = { heads: 2, headDim: 32, dtype: "f32", areKeysBeforeRope: true } as const;
  const rows = bytesOf(normal(2 * 128 * 32, 9));
  const keys = await forms.fitBasis(layer, rows, 128, { rank: 32, bits: 8 });
  const form = forms.lowRank({ keys });
  const layers = [layer, { ...layer, dtype: "f16" }, { ...layer, dtype: "bf16" }] as const;
  return { form, layers, errorMax: { keys: 0.02, values: 0.11 } };
}

const LAYERS: readonly KvLayerShape[] = [
  { heads: 1, headDim: 64, dtype: "f32" },
  { heads: 1, headDim: 64, dtype: "bf16" },
  { heads: 3, headDim: 16, dtype: "f16" },
  { heads: 2, headDim: 80, dtype: "f32" },
  { heads: 1, headDim: 96, dtype: "bf16" },
  { heads: 1, headDim: 256, dtype: "f16" },
];

describe.each(KERNEL_BUILDS)("%s", (build) => {
  const suite = (name: string, make: () => Promise<PageFormFixture>) => {
    describe(name, () => {
      for (const { name: requirement, run } of pageFormConformance(make)) it(requirement, run);
    });
  };
  suite("exact", async () => ({
    form: exactForm,
    layers: [...LAYERS, { heads: 1, headDim: 7, dtype: "f16" }],
    errorMax: { keys: 0, values: 0 },
  }));
  for (const [name, keys, values] of [
    ["a8", 0.01, 0.01],
    ["a4", 0.09, 0.15],
    ["a3", 0.18, 0.27],
    ["a2", 0.36, 0.48],
  ] as const) {
    suite(name, async () => {
      const forms = await open(build);
      return { form: forms[name], layers: LAYERS, errorMax: { keys, values } };
    });
  }
  suite("low rank", async () => lowRankFixture(await open(build)));

  it("a4 has the golden bytes of its kernels, one after the other", async () => {
    const { a4 } = await open(build);
    const layer = { heads: 1, headDim: 128, dtype: "f32" } as const;
    const rows = bytesOf(fixture());
    const section = new Uint8Array(a4.sectionBytes(layer, PAGE_TOKENS));
    a4.encode(layer, PAGE_TOKENS, rows, rows, section);
    const part = (offset: number, byteLength: number) =>
      crc32(section.subarray(offset, offset + byteLength));
    const found = [part(64, 4096), part(4160, 512), part(4672, 4096), part(8768, 128)];
    expect(found).toEqual(["795cad7a", "01ff56eb", "554f8f68", "3f6d241d"]);
    expect(section.subarray(0, 64)).toEqual(new Uint8Array(64));
    expect(section.byteLength).toBe(8896);
  });
});

describe("lengths", () => {
  it("of a page of eight heads of 128 come near the recipes' bytes", async () => {
    const forms = await open();
    const perToken = (form: PageForm) => form.sectionBytes(LLAMA, PAGE_TOKENS) / PAGE_TOKENS;
    // Codes and ranges, and one line of 64 bytes for all heads. Recipes: 2128, 1104, 848, 656.
    expect(perToken(exactForm)).toBe(4096);
    expect(perToken(forms.a8)).toBe(2176 + 1);
    expect(perToken(forms.a4)).toBe(1104 + 1);
    expect(perToken(forms.a3)).toBe(848 + 1);
    expect(perToken(forms.a2)).toBe(656 + 1);
  });

  it("that the kernels cannot take are refused", async () => {
    const { a4 } = await open();
    for (const [shape, pageTokens] of [
      [{ headDim: 24 }, 64],
      [{ headDim: 8 }, 64],
      [{}, 24],
      [{}, 8],
    ] as const) {
      const sectionBytes = () => a4.sectionBytes({ ...LLAMA, ...shape }, pageTokens);
      expect(sectionBytes).toThrow(expect.objectContaining({ code: "bad-shape" }));
    }
  });

  it("that do not fit the workspace are refused, up to the last that fits", async () => {
    const { a8 } = await open("kernels", 2 ** 18);
    let heads = 1;
    for (; ; heads++) {
      const layer = { ...LLAMA, heads };
      let section: Uint8Array;
      try {
        section = new Uint8Array(a8.sectionBytes(layer, PAGE_TOKENS));
      } catch (error) {
        expect(error).toBeInstanceOf(MisuseError);
        break;
      }
      const rows = new Uint8Array(heads * PAGE_TOKENS * 256);
      a8.encode(layer, PAGE_TOKENS, rows, rows, section);
      a8.decode(layer, PAGE_TOKENS, section, rows, rows);
    }
    expect(heads).toBeGreaterThan(4);
    expect(heads).toBeLessThan(16);
  });
});

describe("builds with and without SIMD", () => {
  it("write the same sections", async () => {
    const [fast, plain] = [await open("kernels"), await open("kernels.scalar")];
    for (const layer of LAYERS.map((layer) => ({ ...layer, dtype: "f32" as const }))) {
      const count = layer.heads * PAGE_TOKENS * layer.headDim;
      const [keys, values] = [bytesOf(normal(count, 5)), bytesOf(normal(count, 6))];
      for (const name of ["a8", "a4", "a3", "a2"] as const) {
        const sections = [fast[name], plain[name]].map((form) => {
          const section = new Uint8Array(form.sectionBytes(layer, PAGE_TOKENS));
          form.encode(layer, PAGE_TOKENS, keys, values, section);
          return crc32(section);
        });
        expect(sections[0]).toBe(sections[1]);
      }
    }
  });

  it("find the same basis", async () => {
    const layer = { heads: 1, headDim: 64, dtype: "f32" } as const;
    const rows = bytesOf(normal(128 * 64, 3));
    const keys = await Promise.all(
      KERNEL_BUILDS.map(async (build) => {
        const forms = await open(build);
        return (await forms.fitBasis(layer, rows, 128, { bitsPerValue: 3 })).key;
      }),
    );
    expect(keys[0]).toBe(keys[1]);
  });
});

describe("values near infinity", () => {
  it("are refused before a rounding could reach it", async () => {
    const { a2 } = await open();
    const layer = { heads: 1, headDim: 16, dtype: "f16" } as const;
    const section = new Uint8Array(a2.sectionBytes(layer, 16));
    const fine = new Uint16Array(256).fill(0x67ff); // just below 2048
    const huge = new Uint16Array(256).fill(0x6800); // 2048
    a2.encode(layer, 16, new Uint8Array(fine.buffer), new Uint8Array(fine.buffer), section);
    const encode = () =>
      a2.encode(layer, 16, new Uint8Array(fine.buffer), new Uint8Array(huge.buffer), section);
    expect(encode).toThrow(expect.objectContaining({ code: "unsupported" }));
  });
});

describe("low rank", () => {
  const layer = { heads: 2, headDim: 64, dtype: "f32", areKeysBeforeRope: true } as const;
  const rows = (tokens: number, seed: number) => {
    const head = flatRows(tokens, 64, 24, seed);
    const all = new Float32Array(head.length * 2);
    all.set(head);
    all.set(head.toReversed(), head.length);
    return bytesOf(all);
  };

  it("refuses keys that are rotated already, and other heads", async () => {
    const forms = await open();
    const keys = await forms.fitBasis(layer, rows(256, 5), 256, { rank: 32, bits: 8 });
    const form = forms.lowRank({ keys });
    expect(form.sectionBytes(layer, PAGE_TOKENS)).toBeGreaterThan(0);
    for (const rotated of [{ ...layer, areKeysBeforeRope: false }, { ...LLAMA }]) {
      expect(() => form.sectionBytes(rotated, PAGE_TOKENS)).toThrow(
        expect.objectContaining({ code: "bad-option" }),
      );
    }
    for (const other of [{ heads: 1 }, { headDim: 32 }]) {
      expect(() => form.sectionBytes({ ...layer, ...other }, PAGE_TOKENS)).toThrow(
        expect.objectContaining({ code: "bad-shape" }),
      );
    }
  });

  it("keeps rows of low rank in a quarter of the bytes that other rows need", async () => {
    const forms = await open();
    const keys = await forms.fitBasis(layer, rows(256, 5), 256, { rank: 32, bits: 8 });
    const form = forms.lowRank({ keys, values: 3 });
    const page = rows(PAGE_TOKENS, 77);
    const section = new Uint8Array(form.sectionBytes(layer, PAGE_TOKENS));
    form.encode(layer, PAGE_TOKENS, page, page, section);
    const back = new Uint8Array(page.byteLength);
    form.decode(layer, PAGE_TOKENS, section, back, null);
    const [a, b] = [new Float32Array(back.buffer), new Float32Array(page.slice().buffer)];
    const error = Math.hypot(...a.map((value, index) => value - (b[index] as number)));
    // Half of the 1 % noise lies outside the basis.
    expect(error / Math.hypot(...b)).toBeLessThan(0.02);
    const keysBytes =
      form.sectionBytes(layer, PAGE_TOKENS) - forms.a3.sectionBytes(layer, PAGE_TOKENS);
    const a3KeysBytes = 2 * (PAGE_TOKENS * 64 * (3 / 8) + 256);
    expect(keysBytes + a3KeysBytes).toBe(2 * (PAGE_TOKENS * 32 + 128));
  });

  it("spends bits where the energy is when told bits per value, for keys and for values", async () => {
    const forms = await open();
    const basis = await forms.fitBasis(layer, rows(256, 5), 256, { bitsPerValue: 3 });
    expect(basis.tileBits.length).toBeLessThan(4);
    expect(Math.max(...basis.tileBits)).toBe(basis.tileBits[0]);
    const spent = basis.tileBits.reduce((sum, bits) => sum + bits + 0.5, 0) / 4;
    expect(spent).toBeLessThanOrEqual(3);
    expect(spent).toBeGreaterThan(2);
    const form = forms.lowRank({ keys: basis, values: basis });
    const page = rows(PAGE_TOKENS, 78);
    const section = new Uint8Array(form.sectionBytes(layer, PAGE_TOKENS));
    form.encode(layer, PAGE_TOKENS, page, page, section);
    const [first, second] = [new Uint8Array(page.byteLength), new Uint8Array(page.byteLength)];
    form.decode(layer, PAGE_TOKENS, section, first, second);
    expect(first).toEqual(second);
  });

  it("refuses a section over another basis", async () => {
    const forms = await open();
    const one = await forms.fitBasis(layer, rows(256, 5), 256, { rank: 32, bits: 8 });
    const other = await forms.fitBasis(layer, rows(256, 6), 256, { rank: 32, bits: 8 });
    expect(one.key).not.toBe(other.key);
    const page = rows(PAGE_TOKENS, 79);
    const section = new Uint8Array(forms.lowRank({ keys: one }).sectionBytes(layer, PAGE_TOKENS));
    forms.lowRank({ keys: one }).encode(layer, PAGE_TOKENS, page, page, section);
    const target = new Uint8Array(page.byteLength);
    for (const form of [
      forms.lowRank({ keys: other }),
      forms.lowRank({ keys: one, values: other }),
    ].filter((form) => form.sectionBytes(layer, PAGE_TOKENS) === section.byteLength)) {
      const decode = () => form.decode(layer, PAGE_TOKENS, section, target, null);
      expect(decode).toThrow(expect.objectContaining({ code: "foreign-cache" }));
      expect(target.every((byte) => byte === 0)).toBe(true);
    }
    const kept = forms.basisOf({ ...one, bytes: one.bytes.slice() });
    forms.lowRank({ keys: kept }).decode(layer, PAGE_TOKENS, section, target, null);
    expect(target.some((byte) => byte !== 0)).toBe(true);
  });

  it("refuses a basis whose parts or options do not fit", async () => {
    const forms = await open();
    const keys = await forms.fitBasis(layer, rows(256, 5), 256, { rank: 32, bits: 8 });
    for (const [wrong, code] of [
      [{ bytes: keys.bytes.subarray(1) }, "bad-size"],
      [{ tileBits: [8, 9] }, "bad-shape"],
      [{ tileBits: [] }, "bad-shape"],
      [{ heads: 0 }, "bad-shape"],
    ] as const) {
      expect(() => forms.basisOf({ ...keys, ...wrong })).toThrow(expect.objectContaining({ code }));
    }
    for (const [tokens, wanted, code] of [
      [256, { rank: 24, bits: 8 }, "bad-option"],
      [256, { rank: 80, bits: 8 }, "bad-option"],
      [256, { rank: 32, bits: 9 }, "bad-option"],
      [256, { bitsPerValue: 0.5 }, "bad-option"],
      [200, { rank: 32, bits: 8 }, "bad-shape"],
    ] as const) {
      const fit = forms.fitBasis(layer, rows(tokens, 5), tokens, wanted);
      await expect(fit).rejects.toMatchObject({ code });
    }
    const short = forms.fitBasis(layer, rows(256, 5).subarray(4), 256, { rank: 32, bits: 8 });
    await expect(short).rejects.toMatchObject({ code: "bad-size" });
    const odd = rows(256, 5);
    odd.set([0, 0, 0x80, 0x7f], 400);
    const fit = forms.fitBasis(layer, odd, 256, { rank: 32, bits: 8 });
    await expect(fit).rejects.toMatchObject({ code: "bad-option" });
  });
});

describe("layouts", () => {
  const ROTATED: KvLayerShape = LLAMA;
  const BEFORE: KvLayerShape = { ...LLAMA, areKeysBeforeRope: true };

  async function names(
    name: "quant8" | "quant" | "lowrank" | "hybrid",
    pageCount: number,
    { shape = ROTATED, mass = null as ((page: number) => number) | null, options = {} } = {},
  ) {
    const forms = await open();
    const lowRankOfLayer = () => ({ ...forms.a3, name: "lowrank" }) as PageForm;
    const layout = codedLayout(name, forms, { ...options, lowRankOfLayer });
    return Array.from({ length: pageCount }, (_, pageIndex) => {
      const attentionMass = mass?.(pageIndex) ?? null;
      return layout.formOf(shape, { pageIndex, pageCount, layerIndex: 0, attentionMass }).name;
    });
  }

  it("keep the first and the last pages exact, and code those between", async () => {
    expect(await names("quant8", 1)).toEqual(["exact"]);
    expect(await names("quant8", 2)).toEqual(["exact", "exact"]);
    expect(await names("quant8", 4)).toEqual(["exact", "a8", "a8", "exact"]);
    expect(await names("quant", 4)).toEqual(["exact", "a4", "a4", "exact"]);
    const options = { sinkPages: 0, recentPages: 0 };
    expect(await names("quant", 2, { options })).toEqual(["a4", "a4"]);
    expect(await names("lowrank", 3, { shape: BEFORE })).toEqual(["exact", "lowrank", "exact"]);
  });

  it("refuse low rank over rotated keys, even for pages that would be exact", async () => {
    await expect(names("lowrank", 1)).rejects.toMatchObject({ code: "bad-option" });
  });

  it("demote the pages of hybrid by age, and spare those that are looked at", async () => {
    const options = { a8Pages: 1, a4Pages: 2 };
    const plain = ["exact", "a2", "a2", "a4", "a4", "a8", "exact"];
    expect(await names("hybrid", 7, { options })).toEqual(plain);
    const before = await names("hybrid", 7, { options, shape: BEFORE });
    expect(before).toEqual(["exact", "lowrank", "lowrank", "a4", "a4", "a8", "exact"]);
    const mass = (page: number) => (page === 1 || page === 3 || page === 5 ? 2 / 7 : 1 / 49);
    const spared = await names("hybrid", 7, { options, mass });
    expect(spared).toEqual(["exact", "a4", "a2", "a8", "a4", "a8", "exact"]);
    // Without anybody looking, a page never gets better with age.
    const order = ["exact", "a8", "a4", "a2"];
    let last = 0;
    for (let pageCount = 3; pageCount < 60; pageCount++) {
      const step = order.indexOf((await names("hybrid", pageCount))[2] as string);
      expect(step).toBeGreaterThanOrEqual(last);
      last = step;
    }
    expect(last).toBe(3);
  });

  it("keep critical layers exact, and give layers forms of their own", async () => {
    const critical = { ...ROTATED, isCritical: true };
    expect(await names("hybrid", 40, { shape: critical })).toEqual(Array(40).fill("exact"));
    const forms = await open();
    const options = { formOfLayer: (layer: number) => (layer === 1 ? forms.mixed(8, 4) : null) };
    const layout = codedLayout("quant", forms, options);
    const place = { pageIndex: 3, pageCount: 9, attentionMass: null };
    expect(layout.formOf(ROTATED, { ...place, layerIndex: 0 }).name).toBe("a4");
    const mixed = layout.formOf(ROTATED, { ...place, layerIndex: 1 });
    expect(mixed.name).toBe("k8v4");
    // Keys of 8.5 and values of 4.125 bits.
    expect(mixed.sectionBytes(LLAMA, PAGE_TOKENS)).toBe(8 * (8192 + 512 + 4096 + 128) + 64);
    expect(() => forms.mixed(5 as never, 4)).toThrow(
      expect.objectContaining({ code: "bad-option" }),
    );
  });

  it("refuse parameters out of range", async () => {
    const forms = await open();
    for (const options of [
      { sinkPages: -1 },
      { recentPages: 0.5 },
      { a8Pages: Number.NaN },
      { attentionFactor: 0.5 },
    ]) {
      expect(() => codedLayout("hybrid", forms, options)).toThrow(
        expect.objectContaining({ code: "bad-option" }),
      );
    }
    expect(() => codedLayout("lowrank", forms)).toThrow(
      expect.objectContaining({ code: "bad-option" }),
    );
    expect(codedLayout("hybrid", forms).name).toBe("hybrid(1,1,3,8,1.2)");
    expect(codedLayout("quant", forms).name).toBe("quant(1,1)");
    expect(codedLayout("quant", forms).keeps(0, 100)).toBe(true);
  });
});
