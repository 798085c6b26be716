// The codecs as a user meets them: units of every codec and type, the adaptive compressor, strategies, shares of
// a byte budget, streams, GGUF.
import { afterEach, describe, expect, test } from "vitest";
import {
  AdaptiveCompressor,
  allocateBytes,
  type Choice,
  compressBy,
  compressStream,
  decompressStream,
  type ErrorBudget,
  exportGguf,
  importGguf,
  type Matrix,
  parseUnit,
} from "../../src/codecs.js";
import { MisuseError } from "../../src/errors.js";
import { seededRandom } from "../../src/random.js";
import type { Dtype } from "../../src/types.js";
import { crc32, fixture } from "../support/kernels.js";

const WORKSPACE_BYTES = 2 ** 24;
const compressor = await AdaptiveCompressor.create({ workspaceBytes: WORKSPACE_BYTES });
const { engine } = compressor;

/** Nothing may stay taken in the workspace, whatever a test did: the largest tensor still fits. */
afterEach(() => {
  const side = Math.floor(engine.valuesMax / 64 / 64) * 64 - 4096;
  const bytes = new Uint8Array(side * 64 * 4).fill(1);
  const matrix: Matrix = { bytes, dtype: "f32", rows: side, columns: 64 };
  expect(engine.encode(matrix, { codec: "chan", bits: 2 }).relativeError).toBeLessThan(0.01);
});

function matrixOf(values: Float32Array, rows: number, columns: number): Matrix {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { bytes, dtype: "f32", rows, columns };
}

function valuesOf({ bytes }: Matrix): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}

/** Uniform in [-1, 1). */
function noise(count: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  return Float32Array.from({ length: count }, () => random.uint32() / 2 ** 31 - 1);
}

function errorOf(left: Float32Array, right: Float32Array): number {
  let errors = 0;
  let squares = 0;
  left.forEach((value, index) => {
    errors += (value - (right[index] as number)) ** 2;
    squares += value ** 2;
  });
  return errors === 0 ? 0 : Math.sqrt(errors / squares);
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof MisuseError) return error.code;
    throw error;
  }
  return "none";
}

const QUANTISED: Choice[] = [
  { codec: "q8" },
  { codec: "q4" },
  { codec: "q8", isExact: true },
  { codec: "q4", isExact: true },
  ...[1, 2, 3, 4, 5, 6, 7, 8].map((bits): Choice => ({ codec: "chan", bits })),
  ...[2, 3, 4].map((bits): Choice => ({ codec: "lm", bits })),
  { codec: "sparse", threshold: 0.3 },
  { codec: "sparse", threshold: 0.3, variant: "q8" },
  { codec: "lowrank", rank: 40 },
  { codec: "lowrank", rank: 40, variant: "q8" },
  { codec: "pca", bitsPerValue: 4 },
];

describe("units", () => {
  test.each(QUANTISED)("$codec $bits $variant: the header's error is the error", (choice) => {
    for (const rows of [64, 72, 200]) {
      const values = noise(rows * 128, rows);
      const unit = engine.encode(matrixOf(values, rows, 128), choice);
      const decoded = engine.decode(unit.bytes);
      const error = errorOf(values, valuesOf(decoded));
      expect(error).toBeCloseTo(unit.relativeError, 6);
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThan(1);
      const parsed = parseUnit(unit.bytes, Number.MAX_SAFE_INTEGER);
      if (parsed.verdict !== "valid") throw new Error(parsed.reason);
      expect(parsed.header.relativeError).toBe(Math.fround(unit.relativeError));
      expect(parsed.header.maxError).toBe(Math.fround(unit.maxError));
      expect(parsed.sections.totalBytes).toBe(unit.bytes.byteLength);
    }
  });

  test.each(QUANTISED)("$codec $bits $variant: magnitudes from 1e-36 to 1e36", (choice) => {
    if (choice.isExact === true || choice.codec === "sparse") return;
    const plain = engine.encode(matrixOf(noise(8192, 5), 64, 128), choice);
    for (const factor of [1e-36, 1e-20, 1e-7, 1e7, 1e20, 1e36]) {
      const values = noise(8192, 5).map((value) => value * factor);
      const unit = engine.encode(matrixOf(values, 64, 128), choice);
      expect(unit.relativeError / plain.relativeError, `${factor}`).toBeCloseTo(1, 1);
      expect(errorOf(values, valuesOf(engine.decode(unit.bytes)))).toBeCloseTo(
        unit.relativeError,
        5,
      );
    }
  });

  test.each<Dtype>(["f16", "bf16"])("%s: decoded to its own type, error included", (dtype) => {
    const choice: Choice = { codec: "half", variant: dtype === "f16" ? "f16" : "bf16" };
    const exact = engine.encode(matrixOf(noise(8192, 6), 64, 128), choice);
    const parsed = parseUnit(exact.bytes, 1e9);
    if (parsed.verdict !== "valid") throw new Error(parsed.reason);
    const bytes = exact.bytes.slice(parsed.sections.codes, parsed.sections.codes + 16384);
    const matrix: Matrix = { bytes, dtype, rows: 64, columns: 128 };
    for (const each of QUANTISED) {
      const unit = engine.encode(matrix, each);
      const decoded = engine.decode(unit.bytes);
      expect(decoded.dtype).toBe(dtype);
      expect(decoded.bytes.byteLength).toBe(16384);
      // Coding what was decoded in full precision changes nothing more.
      const again = engine.encode({ ...decoded }, { codec: "plane" });
      expect(engine.decode(again.bytes).bytes).toEqual(decoded.bytes);
      expect(unit.relativeError).toBeLessThan(1);
    }
  });

  test("plane, raw and const give back every byte of every type", () => {
    const random = seededRandom(9);
    const sizes: [Dtype, number][] = [
      ["f32", 4],
      ["f16", 2],
      ["bf16", 2],
      ["f64", 8],
      ["i8", 1],
      ["u8", 1],
      ["i16", 2],
      ["i32", 4],
      ["u64", 8],
      ["bool", 1],
    ];
    for (const [dtype, elementBytes] of sizes) {
      for (const rows of [1, 3, 1000]) {
        const byteLength = rows * 37 * elementBytes;
        const bytes = Uint8Array.from({ length: byteLength }, () => random.uint32() & 0x5f);
        const matrix: Matrix = { bytes, dtype, rows, columns: 37 };
        for (const codec of ["plane", "raw"] as const) {
          const unit = engine.encode(matrix, { codec });
          expect(engine.decode(unit.bytes).bytes).toEqual(bytes);
          expect(unit.relativeError).toBe(0);
        }
        const constant = bytes.map((_, index) => index % elementBytes);
        const unit = engine.encode({ ...matrix, bytes: constant }, { codec: "const" });
        expect(unit.bytes.byteLength).toBeLessThanOrEqual(128);
        expect(engine.decode(unit.bytes).bytes).toEqual(constant);
      }
    }
  });

  test("plane of several chunks", () => {
    const values = noise(200_000, 4);
    const matrix = matrixOf(values, 2000, 100);
    const unit = engine.encode(matrix, { codec: "plane" });
    expect(valuesOf(engine.decode(unit.bytes))).toEqual(values);
    expect(unit.bytes.byteLength).toBeLessThan(0.9 * values.byteLength);
  });

  test("values that are not finite: NaN for an error, and their bits in lossless codecs", () => {
    const values = noise(8192, 8);
    values.set([Number.NaN, Number.POSITIVE_INFINITY, -0, 1e-45], 100);
    const matrix = matrixOf(values, 64, 128);
    for (const choice of QUANTISED) {
      expect(engine.encode(matrix, choice).relativeError).toBeNaN();
    }
    const unit = engine.encode(matrix, { codec: "plane" });
    expect(engine.decode(unit.bytes).bytes).toEqual(matrix.bytes);
    const found = compressor.compress(matrix, { metric: "relative", epsilon: 0.5 });
    expect(["plane", "raw"]).toContain(found.codec);
    expect(compressor.decompress(found.bytes).bytes).toEqual(matrix.bytes);
  });

  test("golden units: the bytes of version 1 stay what they are", () => {
    const matrix = matrixOf(fixture(), 64, 128);
    const golden = (choice: Choice) => crc32(engine.encode(matrix, choice).bytes);
    expect({
      raw: golden({ codec: "raw" }),
      plane: golden({ codec: "plane" }),
      half: golden({ codec: "half" }),
      q8: golden({ codec: "q8" }),
      q4: golden({ codec: "q4" }),
      chan3: golden({ codec: "chan", bits: 3 }),
      chan6: golden({ codec: "chan", bits: 6 }),
      lm3: golden({ codec: "lm", bits: 3 }),
      sparse: golden({ codec: "sparse", threshold: 0.5 }),
      lowrank: golden({ codec: "lowrank", rank: 9 }),
      pca: golden({ codec: "pca", bitsPerValue: 3 }),
    }).toMatchSnapshot();
  });

  test("refuses what does not fit, before anything is written", () => {
    const matrix = matrixOf(noise(640, 1), 64, 10);
    expect(codeOf(() => engine.encode(matrix, { codec: "chan", bits: 4 }))).toBe("bad-option");
    expect(codeOf(() => engine.encode(matrix, { codec: "lm", bits: 4 }))).toBe("bad-option");
    expect(codeOf(() => engine.encode(matrix, { codec: "lowrank", rank: 4 }))).toBe("bad-option");
    expect(codeOf(() => engine.encode(matrix, { codec: "pca" }))).toBe("bad-option");
    expect(codeOf(() => engine.encode(matrix, { codec: "const" }))).toBe("bad-option");
    expect(codeOf(() => engine.encode(matrix, { codec: "narrow" }))).toBe("bad-option");
    const integers: Matrix = { ...matrix, dtype: "i32" };
    expect(codeOf(() => engine.encode(integers, { codec: "q8" }))).toBe("bad-option");
    expect(codeOf(() => engine.encode({ ...matrix, rows: 65 }, { codec: "q8" }))).toBe("bad-size");
    expect(codeOf(() => engine.encode({ ...matrix, rows: 0 }, { codec: "q8" }))).toBe("bad-shape");
    const rows = WORKSPACE_BYTES / 64;
    const large = { ...matrix, bytes: new Uint8Array(rows * 40), rows };
    expect(codeOf(() => engine.encode(large, { codec: "raw" }))).toBe("bad-size");
  });
});

describe("AdaptiveCompressor", () => {
  const kinds: Record<string, Float32Array> = {
    uniform: noise(16384, 1),
    zeros: new Float32Array(16384),
    sevens: new Float32Array(16384).fill(7),
    pruned: noise(16384, 2).map((value) => (Math.abs(value) < 0.9 ? 0 : value)),
    upcast: noise(16384, 3).map((value) => Math.round(value * 128) / 128),
    outlier: noise(16384, 4).map((value, index) => (index % 128 === 3 ? value + 50 : value)),
    tiny: noise(16384, 5).map((value) => value * 1e-30),
    ranked: noise(16384, 6).map(
      (_, index) => Math.sin(index >> 7) * Math.cos((index & 127) * 3) + 0.1 * Math.sin(index >> 8),
    ),
  };

  test.each(Object.keys(kinds))("%s: keeps every budget, and lossless is lossless", (kind) => {
    const values = kinds[kind] as Float32Array;
    const matrix = matrixOf(values, 128, 128);
    const magnitude = Math.max(...values.map(Math.abs)) || 1;
    for (const epsilon of [0, 1e-3, 0.01, 0.03, 0.1, 0.2]) {
      const relative = compressor.compress(matrix, { metric: "relative", epsilon });
      const decoded = valuesOf(compressor.decompress(relative.bytes));
      expect(errorOf(values, decoded)).toBeLessThanOrEqual(epsilon);
      if (epsilon === 0) expect(decoded).toEqual(values);
      const found = compressor.compress(matrix, { metric: "max", epsilon });
      const other = valuesOf(compressor.decompress(found.bytes));
      const largest = Math.max(...values.map((v, i) => Math.abs(v - (other[i] as number))));
      expect(largest).toBeLessThanOrEqual(epsilon * magnitude * (1 + 1e-6));
    }
  });

  test("takes the codecs that the kinds were made for", () => {
    const codecOf = (kind: string, epsilon: number) => {
      const matrix = matrixOf(kinds[kind] as Float32Array, 128, 128);
      return compressor.compress(matrix, { metric: "relative", epsilon }).codec;
    };
    expect(codecOf("zeros", 0.1)).toBe("const");
    expect(codecOf("sevens", 0)).toBe("const");
    expect(codecOf("pruned", 0.01)).toBe("sparse");
    expect(codecOf("outlier", 0.001)).toBe("chan");
    expect(codecOf("ranked", 0.05)).toBe("lowrank");
    expect(codecOf("uniform", 0.1)).toMatch(/chan|lm/);
  });

  test("keys after rotary embedding never become low-rank", () => {
    const matrix = matrixOf(kinds["ranked"] as Float32Array, 128, 128);
    const budget: ErrorBudget = { metric: "relative", epsilon: 0.05 };
    expect(compressor.compress(matrix, budget, { rotary: "after" }).codec).not.toBe("lowrank");
    const svd = { name: "svd" } as const;
    expect(codeOf(() => compressBy(compressor, matrix, svd, true))).toBe("bad-option");
    expect(compressBy(compressor, matrix, svd).codec).toBe("lowrank");
  });

  test("attention: judged on queries that it never saw", () => {
    const keys = noise(32768, 11).map((value) => 3 * value);
    const values = noise(32768, 12);
    const queries = noise(48 * 128, 13).map((value) => 3 * value);
    const attention = {
      role: "keys",
      queries: queries.slice(0, 24 * 128),
      partner: values,
    } as const;
    const attend = (query: Float32Array, k: Float32Array) => {
      const weights = Array.from({ length: 256 }, (_, row) => {
        let sum = 0;
        for (let c = 0; c < 128; c++) sum += (query[c] as number) * (k[row * 128 + c] as number);
        return Math.exp(sum / Math.sqrt(128));
      });
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      return Float32Array.from({ length: 128 }, (_, c) =>
        weights.reduce((sum, w, row) => sum + (w / total) * (values[row * 128 + c] as number), 0),
      );
    };
    for (const epsilon of [0.003, 0.03, 0.2]) {
      const found = compressor.compress(
        matrixOf(keys, 256, 128),
        { metric: "attention", epsilon },
        { rotary: "after", attention },
      );
      const decoded = valuesOf(compressor.decompress(found.bytes));
      const exact = new Float32Array(24 * 128);
      const coded = new Float32Array(24 * 128);
      for (let each = 0; each < 24; each++) {
        const query = queries.subarray((24 + each) * 128, (25 + each) * 128);
        exact.set(attend(query, keys), each * 128);
        coded.set(attend(query, decoded), each * 128);
      }
      expect(errorOf(exact, coded)).toBeLessThanOrEqual(epsilon);
    }
  });

  test("allow and minBandwidth leave codecs out", () => {
    const matrix = matrixOf(kinds["uniform"] as Float32Array, 128, 128);
    const budget = { metric: "relative", epsilon: 0.2 } as const;
    expect(compressor.compress(matrix, { ...budget, allow: ["q8"] }).codec).toBe("q8");
    expect(compressor.compress(matrix, { ...budget, allow: [] }).codec).toBe("plane");
    const fast = compressor.compress(matrix, { ...budget, minBandwidth: 3e9 });
    expect(["chan", "q4", "q8"]).toContain(fast.codec);
  });

  test("refuses a budget that is none", () => {
    const matrix = matrixOf(kinds["uniform"] as Float32Array, 128, 128);
    const refuse = (budget: ErrorBudget) => codeOf(() => compressor.compress(matrix, budget));
    expect(refuse({ metric: "relative", epsilon: -1 })).toBe("bad-option");
    expect(refuse({ metric: "relative", epsilon: Number.NaN })).toBe("bad-option");
    expect(refuse({ metric: "mean" as "max", epsilon: 0.1 })).toBe("bad-option");
    expect(refuse({ metric: "attention", epsilon: 0.1 })).toBe("bad-option");
  });
});

describe("strategies", () => {
  test("do what their name says", () => {
    const values = noise(8192, 21);
    const matrix = matrixOf(values, 64, 128);
    expect(compressBy(compressor, matrix, { name: "quantization" }).codec).toBe("q8");
    expect(compressBy(compressor, matrix, { name: "quantization", bits: 4 }).codec).toBe("q4");
    const sparse = compressBy(compressor, matrix, { name: "sparse", sparsity: 0.7 });
    const kept = valuesOf(engine.decode(sparse.bytes)).filter((value) => value !== 0).length;
    expect(kept / 8192).toBeCloseTo(0.3, 2);
    const half = compressBy(compressor, matrix, { name: "svd", rankRatio: 1 });
    expect(half.relativeError).toBeLessThan(1e-3);
    const budget: ErrorBudget = { metric: "relative", epsilon: 0.01 };
    const auto = compressBy(compressor, matrix, { name: "auto", budget });
    expect(auto.relativeError).toBeLessThanOrEqual(0.01);
    const bad = { name: "sparse", sparsity: 2 } as const;
    expect(codeOf(() => compressBy(compressor, matrix, bad))).toBe("bad-option");
  });
});

describe("allocateBytes", () => {
  test("is as good as every combination, on the convex hulls", () => {
    const offers = [
      [1, 0.5],
      [2, 0.2],
      [4, 0.05],
      [8, 0],
    ].map(([bytes = 0, error = 0]) => ({ bytes, error }));
    const bidders = [1, 4, 0.1].map((weight) => ({ weight, offers }));
    for (let bytesMax = 3; bytesMax <= 24; bytesMax++) {
      const found = allocateBytes(bidders, bytesMax);
      if (found === null) throw new Error("the smallest fit");
      expect(found.bytes).toBeLessThanOrEqual(bytesMax);
      let best = Number.POSITIVE_INFINITY;
      for (const a of offers) {
        for (const b of offers) {
          for (const c of offers) {
            if (a.bytes + b.bytes + c.bytes > found.bytes) continue;
            best = Math.min(best, a.error ** 2 + 4 * b.error ** 2 + 0.1 * c.error ** 2);
          }
        }
      }
      expect(found.squaredError).toBeLessThanOrEqual(best * 1.6 + 1e-12);
    }
    expect(allocateBytes(bidders, 2)).toBeNull();
    expect(codeOf(() => allocateBytes([{ weight: 1, offers: [] }], 5))).toBe("bad-option");
  });
});

describe("streams", () => {
  test("a tensor larger than the workspace, part by part", async () => {
    const small = await AdaptiveCompressor.create({ workspaceBytes: 2 ** 22 });
    const rows = 2000;
    const values = noise(rows * 128, 31);
    const matrix = matrixOf(values, rows, 128);
    const budget: ErrorBudget = { metric: "relative", epsilon: 0.01 };
    expect(codeOf(() => small.compress(matrix, budget))).toBe("bad-size");
    const units = [...compressStream(small, matrix, budget)].map(({ bytes }) => bytes);
    expect(units.length).toBeGreaterThan(1);
    const all = new Uint8Array(units.reduce((sum, unit) => sum + unit.byteLength, 0));
    let offset = 0;
    for (const unit of units) {
      all.set(unit, offset);
      offset += unit.byteLength;
    }
    const parts = [...decompressStream(small, all)];
    expect(parts.reduce((sum, part) => sum + part.rows, 0)).toBe(rows);
    const decoded = Float32Array.from(parts.flatMap((part) => [...valuesOf(part)]));
    expect(errorOf(values, decoded)).toBeLessThanOrEqual(0.01);
  });
});

describe("GGUF", () => {
  test.each([
    ["q8", "q8_0", 34],
    ["q4", "q4_0", 18],
  ] as const)("%s blocks go out and come back", (codec, type, blockBytes) => {
    const values = Float32Array.from({ length: 4096 }, (_, index) => 0.1 + 2 * Math.cos(index));
    const unit = engine.encode(matrixOf(values, 2, 2048), { codec, isExact: true });
    const blocks = exportGguf(unit.bytes);
    expect(blocks.byteLength).toBe(128 * blockBytes);
    const back = importGguf(type, blocks, 2, 2048);
    const decoded = valuesOf(engine.decode(back));
    expect(decoded).toEqual(valuesOf(engine.decode(unit.bytes)));
    const error = errorOf(values, decoded) * Math.sqrt(values.reduce((s, v) => s + v * v, 0));
    expect((error / 4096) * 1e3).toBeCloseTo(
      codec === "q8" ? 0.0744 : 1.121,
      codec === "q8" ? 4 : 3,
    );
    expect(codeOf(() => importGguf(type, blocks, 3, 2048))).toBe("bad-size");
    expect(codeOf(() => importGguf(type, blocks, 2, 2047))).toBe("bad-shape");
  });

  test("refuses units that GGUF has no blocks for", () => {
    const values = noise(4096, 41);
    const lm = engine.encode(matrixOf(values, 32, 128), { codec: "lm", bits: 4 });
    expect(codeOf(() => exportGguf(lm.bytes))).toBe("bad-option");
    expect(codeOf(() => exportGguf(new Uint8Array(10)))).toBe("bad-option");
    const tiny = values.map((value) => value * 1e-20);
    const scaled = engine.encode(matrixOf(tiny, 32, 128), { codec: "q8" });
    expect(codeOf(() => exportGguf(scaled.bytes))).toBe("bad-option");
  });
});
