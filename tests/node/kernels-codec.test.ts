// The codec kernels against golden bytes, in the SIMD and in the scalar build, and against independent
// arithmetic in double precision.
import { describe, expect, test } from "vitest";
import type { CodecWorkspace } from "../../src/core/codec-workspace.js";
import { crc32, fixture, KERNEL_BUILDS, workspaceOf } from "../support/kernels.js";

const VALUES = 8192;
const ROW_BYTES = 512;

function relativeError(original: Float32Array, decoded: Float32Array): number {
  let errors = 0;
  let squares = 0;
  original.forEach((value, index) => {
    errors += (value - (decoded[index] as number)) ** 2;
    squares += value ** 2;
  });
  return Math.sqrt(errors / squares);
}

describe.each(KERNEL_BUILDS)("%s", (build) => {
  async function begin() {
    const workspace = await workspaceOf(build);
    const { kernels } = workspace;
    const source = workspace.take(VALUES * 4);
    workspace.f32(source, VALUES).set(fixture());
    const codes = workspace.take(VALUES * 2);
    const scales = workspace.take(16384);
    const decoded = workspace.take(VALUES * 4);
    const scratch = workspace.take(65536);
    const crc = (address: number, byteLength: number) =>
      crc32(workspace.bytes(address, byteLength));
    const error = () => relativeError(fixture(), workspace.f32(decoded, VALUES));
    return { workspace, kernels, source, codes, scales, decoded, scratch, crc, error };
  }

  test("the fixture is the one that the golden bytes are of", async () => {
    const { source, crc } = await begin();
    expect(crc(source, VALUES * 4)).toBe("2b6f76f8");
  });

  test("q8 and q4: golden codes, scales and values", async () => {
    const { kernels, source, codes, scales, decoded, crc, error } = await begin();
    expect(kernels.q8Encode(source, codes, scales, 256)).toBe(1);
    kernels.q8Decode(codes, scales, decoded, 256);
    const q8 = [crc(codes, VALUES), crc(scales, 512), crc(decoded, VALUES * 4)];
    expect(q8).toEqual(["b1db6b39", "778617e9", "42205f4b"]);
    expect(error()).toBeCloseTo(1.178e-2, 5);
    expect(kernels.q4Encode(source, codes, scales, 256)).toBe(1);
    kernels.q4Decode(codes, scales, decoded, 256);
    const q4 = [crc(codes, VALUES / 2), crc(scales, 512), crc(decoded, VALUES * 4)];
    expect(q4).toEqual(["b5aa8949", "a2c7ff0b", "a590c199"]);
    expect(error()).toBeCloseTo(0.1869, 4);
    kernels.q8EncodeExact(source, codes, scales, 256);
    expect(crc(codes, VALUES)).toBe("36b0ceaf");
    kernels.q4EncodeExact(source, codes, scales, 256);
    expect(crc(codes, VALUES / 2)).toBe("65ae6e42");
  });

  test("q8 over four far streams gives the bytes of one stream", async () => {
    const { workspace, kernels } = await begin();
    const blocks = 8192 + 3;
    const source = workspace.take(blocks * 128);
    const cells = workspace.f32(source, blocks * 32);
    for (let index = 0; index < cells.length; index++) cells[index] = Math.sin(index) * (index % 7);
    const codes = workspace.take(blocks * 64);
    const scales = workspace.take(blocks * 4);
    kernels.q8Encode(source, codes, scales, blocks);
    const half = blocks >> 1;
    kernels.q8Encode(source, codes + blocks * 32, scales + blocks * 2, half);
    kernels.q8Encode(
      source + half * 128,
      codes + (blocks + half) * 32,
      scales + (blocks + half) * 2,
      blocks - half,
    );
    expect(workspace.bytes(codes, blocks * 32)).toEqual(
      workspace.bytes(codes + blocks * 32, blocks * 32),
    );
    expect(workspace.bytes(scales, blocks * 2)).toEqual(
      workspace.bytes(scales + blocks * 2, blocks * 2),
    );
    const whole = workspace.take(blocks * 128);
    const parts = workspace.take(blocks * 128);
    kernels.q8Decode(codes, scales, whole, blocks);
    kernels.q8Decode(codes, scales, parts, half);
    kernels.q8Decode(codes + half * 32, scales + half * 2, parts + half * 128, blocks - half);
    expect(crc32(workspace.bytes(whole, blocks * 128))).toBe(
      crc32(workspace.bytes(parts, blocks * 128)),
    );
  });

  test("q8 and q4 say that a value is not finite", async () => {
    const { workspace, kernels, source, codes, scales } = await begin();
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      workspace.f32(source, VALUES).set([value], 77);
      const encoders = [kernels.q8Encode, kernels.q4Encode, kernels.q8EncodeExact];
      for (const encode of [...encoders, kernels.q4EncodeExact]) {
        expect(encode(source, codes, scales, 256)).toBe(0);
      }
    }
  });

  test("blocks of zeros, of one value, of the least and the largest scales", async () => {
    const { workspace, kernels, source, codes, scales, decoded } = await begin();
    const cells = workspace.f32(source, 32);
    for (const value of [0, -0, 1, -1, 1e-7, 6e-8 * 127, 1e-30, 65504 * 100]) {
      cells.fill(value);
      kernels.q8Encode(source, codes, scales, 1);
      kernels.q8Decode(codes, scales, decoded, 1);
      // Below half of the least scale, every code is 0.
      const isLost = Math.abs(value) / 127 < 2 ** -25;
      const scale = isLost ? Math.abs(value) : Math.max(Math.abs(value) / 127, 2 ** -24);
      for (const each of workspace.f32(decoded, 32)) {
        expect(Math.abs(each - value)).toBeLessThanOrEqual(scale);
      }
    }
  });

  test.each([
    [8, "ce4926c1", "6e03656e", "b71b8c81", 1.451e-3],
    [4, "795cad7a", "01ff56eb", "11e2c0f3", 2.454e-2],
    [2, "d571bd76", "5ee3a8a3", "5fd54dfe", 0.1226],
  ])("chan of %i bits: golden codes, ranges and values", async (bits, ...golden) => {
    const { kernels, source, codes, scales, decoded, scratch, crc, error } = await begin();
    kernels.chanEncode(source, ROW_BYTES, 64, 128, bits, codes, scales, scratch);
    kernels.chanDecode(codes, scales, 64, 128, bits, decoded, ROW_BYTES, scratch);
    expect(crc(codes, (VALUES * bits) / 8)).toBe(golden[0]);
    expect(crc(scales, 512)).toBe(golden[1]);
    expect(crc(decoded, VALUES * 4)).toBe(golden[2]);
    expect(error() / golden[3]).toBeCloseTo(1, 2);
  });

  test("chan of 1 to 8 bits halves the error with each bit", async () => {
    const { kernels, source, codes, scales, decoded, scratch, error } = await begin();
    let before = 1;
    for (let bits = 1; bits <= 8; bits++) {
      kernels.chanEncode(source, ROW_BYTES, 64, 128, bits, codes, scales, scratch);
      kernels.chanDecode(codes, scales, 64, 128, bits, decoded, ROW_BYTES, scratch);
      expect(error(), `${bits} bits`).toBeLessThan(before * 0.52);
      before = error();
    }
  });

  test("lm: golden codes and gains", async () => {
    const { workspace, kernels, codes, scales, decoded, scratch, crc, error } = await begin();
    const rotated = workspace.take(VALUES * 4);
    const encode = (bits: number) => {
      workspace.f32(rotated, VALUES).set(fixture());
      kernels.lmEncode(rotated, 64, 128, bits, codes, scales, scratch);
      kernels.lmDecode(codes, scales, 64, 128, bits, decoded, 1, scratch);
    };
    encode(4);
    expect([crc(codes, 4096), crc(scales, 128)]).toEqual(["554f8f68", "3f6d241d"]);
    expect(crc(rotated, VALUES * 4)).toBe("92c13e33");
    expect(error()).toBeCloseTo(0.0884, 4);
    encode(2);
    expect([crc(codes, 2048), crc(scales, 128)]).toEqual(["a35e5c76", "1b03204d"]);
    expect(error()).toBeCloseTo(0.3585, 4);
    encode(3);
    const units = Array.from({ length: 64 }, (_, unit) => workspace.bytes(codes + unit * 48, 48));
    expect(crc32(units.flatMap((unit) => [...unit.subarray(0, 32)]))).toBe("f8b309b3");
    expect(crc32(units.flatMap((unit) => [...unit.subarray(32)]))).toBe("ecd67866");
    expect(crc(scales, 128)).toBe("78471739");
    expect(error()).toBeCloseTo(0.1637, 4);
  });

  test("lm of the first unit vector: every code 11, gain 0x2e01", async () => {
    const { workspace, kernels, codes, scales, decoded, scratch } = await begin();
    workspace.f32(decoded, 128).fill(0)[0] = 1;
    kernels.lmEncode(decoded, 1, 128, 4, codes, scales, scratch);
    expect([...workspace.bytes(codes, 64)]).toEqual(new Array(64).fill(0xbb));
    expect(workspace.u16(scales, 1)[0]).toBe(0x2e01);
  });

  test("f16 and bf16: golden bytes and corners", async () => {
    const { workspace, kernels, source, codes, crc } = await begin();
    kernels.f16Encode(source, codes, VALUES);
    expect(crc(codes, VALUES * 2)).toBe("00b67d9c");
    kernels.bf16Encode(source, codes, VALUES);
    expect(crc(codes, VALUES * 2)).toBe("4498d23f");
    const corners: [number, number][] = [
      [65519, 0x7bff],
      [65520, 0x7c00],
      [2 ** -25, 0],
      [3 * 2 ** -26, 1],
      [1 + 2 ** -11, 0x3c00],
      [1 + 3 * 2 ** -11, 0x3c02],
      [Number.NEGATIVE_INFINITY, 0xfc00],
      [Number.NaN, 0x7e00],
      [-0, 0x8000],
    ];
    workspace.f32(source, corners.length).set(corners.map(([value]) => value));
    kernels.f16Encode(source, codes, corners.length);
    expect([...workspace.u16(codes, corners.length)]).toEqual(corners.map(([, half]) => half));
  });

  test("every f16 and bf16 comes back from f32", async () => {
    const { workspace, kernels } = await begin();
    const halves = workspace.take(131072);
    const wide = workspace.take(262144);
    const back = workspace.take(131072);
    for (let half = 0; half < 65536; half++) workspace.u16(halves, 65536)[half] = half;
    kernels.f16Decode(halves, wide, 65536);
    kernels.f16Encode(wide, back, 65536);
    const values = workspace.f32(wide, 65536);
    workspace.u16(back, 65536).forEach((half, index) => {
      const mantissa = index & 0x3ff;
      const exponent = (index >> 10) & 31;
      const sign = index & 0x8000 ? -1 : 1;
      if (exponent === 31) {
        if (mantissa > 0) expect(Number.isNaN(values[index])).toBe(true);
        else expect(values[index]).toBe(sign * Number.POSITIVE_INFINITY);
      } else {
        const magnitude =
          exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25);
        if (values[index] !== sign * magnitude) throw new Error(`f16 ${index}: ${values[index]}`);
        if (half !== index) throw new Error(`f16 ${index} comes back as ${half}`);
      }
    });
    kernels.bf16Decode(halves, wide, 65536);
    kernels.bf16Encode(wide, back, 65536);
    workspace.u16(back, 65536).forEach((half, index) => {
      const isNan = (index & 0x7f80) === 0x7f80 && (index & 0x7f) !== 0;
      const expected = isNan ? index | 0x40 : index;
      if (half !== expected) throw new Error(`bf16 ${index} comes back as ${half}`);
    });
  });

  test("planes: golden bytes, and back", async () => {
    const { workspace, kernels, source, codes, decoded, scratch, crc } = await begin();
    kernels.planeSplit4(source, VALUES, 0, scratch, VALUES);
    const planes = [0, 1, 2, 3].map((plane) => crc(scratch + plane * VALUES, VALUES));
    expect(planes).toEqual(["ca42a5c0", "4beac82f", "148e39b8", "a3d0fe31"]);
    kernels.planeJoin4(scratch, VALUES, VALUES, 0, decoded);
    expect(crc(decoded, VALUES * 4)).toBe("2b6f76f8");
    kernels.bf16Encode(source, codes, VALUES);
    kernels.planeSplit2(codes, VALUES, 1, scratch, scratch + VALUES);
    expect([crc(scratch, VALUES), crc(scratch + VALUES, VALUES)]).toEqual(["f53f8d66", "8350394b"]);
    kernels.planeJoin2(scratch, scratch + VALUES, VALUES, 1, decoded);
    expect(workspace.bytes(decoded, VALUES * 2)).toEqual(workspace.bytes(codes, VALUES * 2));
  });

  test("Huffman: every length of input comes back, in no more bits than promised", async () => {
    const { workspace, kernels, codes, decoded, scratch } = await begin();
    const shapes: ((index: number) => number)[] = [
      (index) => (Math.imul(index, 0x9e3779b1) >>> 24) & 3,
      (index) => Math.clz32(Math.imul(index + 1, 0x9e3779b1)),
      (index) => Math.imul(index, 0x85ebca77) >>> 24,
      (index) => (index % 1000 === 0 ? index % 251 : 7),
    ];
    const lengths = workspace.take(256);
    const back = workspace.take(8192);
    for (const shape of shapes) {
      for (const count of [2, 3, 4, 5, 17, 1000, 8192]) {
        const source = workspace.bytes(codes, count);
        for (let index = 0; index < count; index++) source[index] = shape(index);
        kernels.huffmanCount(codes, count, scratch);
        const bits = kernels.huffmanLengths(scratch, lengths);
        if (bits === 0) {
          expect(new Set(source).size).toBe(1);
          continue;
        }
        const total = kernels.huffmanEncode(codes, count, lengths, decoded, lengths + 128, scratch);
        expect(total).toBeLessThanOrEqual(Math.ceil(bits / 8) + 4);
        const limit = decoded + total + 8;
        const args = [decoded, limit, lengths, lengths + 128, back, count, scratch] as const;
        expect(kernels.huffmanDecode(...args)).toBe(1);
        expect(workspace.bytes(back, count)).toEqual(source);
      }
    }
  });

  test("Huffman refuses lengths with a hole, and streams that end elsewhere", async () => {
    const { workspace, kernels, codes, decoded, scratch } = await begin();
    const lengths = workspace.take(256);
    const source = workspace.bytes(codes, 1000);
    for (let index = 0; index < 1000; index++) source[index] = Math.clz32(index * 77 + 1);
    kernels.huffmanCount(codes, 1000, scratch);
    kernels.huffmanLengths(scratch, lengths);
    const total = kernels.huffmanEncode(codes, 1000, lengths, decoded, lengths + 128, scratch);
    const back = workspace.take(1024);
    const decode = () => {
      const limit = decoded + total + 8;
      return kernels.huffmanDecode(decoded, limit, lengths, lengths + 128, back, 1000, scratch);
    };
    expect(decode()).toBe(1);
    const sizes = workspace.u32(lengths + 128, 4);
    sizes[0] = (sizes[0] as number) + 1;
    sizes[3] = (sizes[3] as number) - 1;
    expect(decode()).toBe(0);
    sizes[0] = (sizes[0] as number) - 1;
    sizes[3] = (sizes[3] as number) + 1;
    const table = workspace.bytes(lengths, 128);
    const used = table.findIndex((pair) => pair !== 0);
    table[used] = 0;
    expect(decode()).toBe(0);
  });

  test("eigenvectors of a Gram matrix satisfy their equation and are orthonormal", async () => {
    const { workspace, kernels, source } = await begin();
    const n = 128;
    const gram = workspace.take(n * n * 4);
    const { matrixMultiply } = kernels;
    matrixMultiply(source, 4, ROW_BYTES, source, ROW_BYTES, gram, n * 4, n, n, 64, 1);
    kernels.matrixMirror(gram, n);
    const wide = workspace.take(n * n * 8);
    const vectors = workspace.take(n * n * 8);
    const values = workspace.take(n * 8);
    const scratch = workspace.take(n * 24);
    const matrix = workspace.f64(wide, n * n);
    matrix.set(workspace.f32(gram, n * n));
    const original = matrix.slice();
    kernels.eigenSymmetric(wide, n, values, vectors, n, scratch);
    const eigenvalues = workspace.f64(values, n);
    const rows = workspace.f64(vectors, n * n);
    for (let row = 0; row < n; row += 9) {
      const vector = rows.subarray(row * n, (row + 1) * n);
      for (let index = 0; index < n; index++) {
        let product = 0;
        for (let k = 0; k < n; k++) product += (original[index * n + k] ?? 0) * (vector[k] ?? 0);
        const expected = (eigenvalues[row] ?? 0) * (vector[index] ?? 0);
        expect(Math.abs(product - expected)).toBeLessThan(1e-9 * (eigenvalues[0] ?? 0));
      }
      for (let other = 0; other <= row; other++) {
        let dot = 0;
        for (let k = 0; k < n; k++) dot += (rows[other * n + k] ?? 0) * (vector[k] ?? 0);
        expect(Math.abs(dot - (other === row ? 1 : 0))).toBeLessThan(1e-10);
      }
    }
    expect(crc32(workspace.bytes(vectors, n * n * 8))).toBe("be8d66cc");
  });

  test("attention on compressed pages is attention on what they decode to", async () => {
    const { workspace, kernels, source, codes, scales, decoded, scratch } = await begin();
    const query = workspace.take(512);
    const cells = workspace.f32(query, 128);
    for (let index = 0; index < 128; index++) cells[index] = Math.sin(index * 1.7) * 2;
    const scores = workspace.take(256);
    const dots = () =>
      Array.from({ length: 64 }, (_, token) => {
        const row = workspace.f32(decoded + token * ROW_BYTES, 128);
        return row.reduce((sum, value, index) => sum + value * (cells[index] as number), 0);
      });
    const compare = (tolerance: number) => {
      const expected = dots();
      const largest = Math.max(...expected.map(Math.abs));
      workspace.f32(scores, 64).forEach((score, token) => {
        expect(Math.abs(score - (expected[token] as number))).toBeLessThan(tolerance * largest);
      });
    };
    workspace.f32(decoded, VALUES).set(workspace.f32(source, VALUES));
    kernels.attendScoresF32(source, 64, 128, query, scores);
    compare(1e-6);
    kernels.q8Encode(source, codes, scales, 256);
    kernels.q8Decode(codes, scales, decoded, 256);
    kernels.attendScoresQ8(codes, scales, 64, 128, query, scores, scratch);
    compare(5e-4);
    for (const bits of [8, 4, 2]) {
      kernels.chanEncode(source, ROW_BYTES, 64, 128, bits, codes, scales, scratch);
      kernels.chanDecode(codes, scales, 64, 128, bits, decoded, ROW_BYTES, scratch);
      kernels.attendScoresChan(codes, scales, 1, 64, 128, bits, query, scores, scratch);
      compare(5e-4);
    }
    expect(crc32(workspace.bytes(scores, 256))).toBe("1c2a8502");
  });

  test("far pages score as each page by itself, and odd tokens as whole fours", async () => {
    const { workspace, kernels, source, codes, scales, scratch } = await begin();
    // Pages of 16 tokens and 32 channels: enough for far streams, with some left over, and few.
    const query = source + 4000;
    for (let page = 0; page < 70; page++) {
      const from = source + (page % 15) * 2048 + 128;
      const ranges = scales + page * 128;
      kernels.chanEncode(from, 128, 16, 32, 4, codes + page * 256, ranges, scratch);
    }
    const together = workspace.take(8192);
    const apart = workspace.take(8192);
    for (const pages of [70, 64, 7]) {
      kernels.attendScoresChan(codes, scales, pages, 16, 32, 4, query, together, scratch);
      for (let page = 0; page < pages; page++) {
        const at = codes + page * 256;
        const ranges = scales + page * 128;
        kernels.attendScoresChan(at, ranges, 1, 16, 32, 4, query, apart + page * 64, scratch);
      }
      const byteLength = pages * 64;
      expect(workspace.bytes(together, byteLength)).toEqual(workspace.bytes(apart, byteLength));
    }
    kernels.attendScoresF32(source, 16, 32, query, together);
    for (let token = 0; token < 16; token++) {
      kernels.attendScoresF32(source + token * 128, 1, 32, query, apart + token * 4);
    }
    expect(workspace.bytes(together, 64)).toEqual(workspace.bytes(apart, 64));
  });

  test("weighted sums of compressed values are sums of what they decode to", async () => {
    const { workspace, kernels, source, codes, scales, decoded, scratch } = await begin();
    const weights = workspace.take(256);
    const cells = workspace.f32(weights, 64);
    for (let token = 0; token < 64; token++) cells[token] = Math.exp(-token / 9) / 9;
    const sum = workspace.take(ROW_BYTES);
    const compare = (tolerance: number) => {
      const expected = new Float64Array(128);
      workspace.f32(decoded, VALUES).forEach((value, index) => {
        expected[index % 128] =
          (expected[index % 128] ?? 0) + value * (cells[index >> 7] as number);
      });
      const largest = Math.max(...expected.map(Math.abs));
      workspace.f32(sum, 128).forEach((value, channel) => {
        expect(Math.abs(value - (expected[channel] as number))).toBeLessThan(tolerance * largest);
      });
    };
    workspace.f32(decoded, VALUES).set(workspace.f32(source, VALUES));
    workspace.f32(sum, 128).fill(0);
    kernels.attendSumF32(source, 64, 128, weights, sum);
    compare(1e-6);
    kernels.lmEncode(source, 64, 128, 4, codes, scales, scratch);
    kernels.lmDecode(codes, scales, 64, 128, 4, decoded, 0, scratch);
    workspace.f32(sum, 128).fill(0);
    kernels.attendSumLm4(codes, scales, 64, 128, weights, sum, scratch);
    compare(1e-2);
    expect(crc32(workspace.bytes(sum, ROW_BYTES))).toBe("b1d88eeb");
  });
});

test("the builds leave equal bytes where a value is not finite, and zeros stay zeros", async () => {
  const outputs = await Promise.all(
    KERNEL_BUILDS.map(async (build) => {
      const workspace = await workspaceOf(build);
      return halves(workspace);
    }),
  );
  expect(outputs[0]).toEqual(outputs[1]);
});

/** f16 and bf16 of values from every exponent, both signs, NaN and infinity. */
function halves(workspace: CodecWorkspace): string[] {
  const count = 65536;
  const source = workspace.take(count * 4);
  const bits = workspace.u32(source, count);
  for (let index = 0; index < count; index++)
    bits[index] = Math.imul(index, 0x10001) ^ (index << 3);
  const target = workspace.take(count * 2);
  workspace.kernels.f16Encode(source, target, count);
  const f16 = crc32(workspace.bytes(target, count * 2));
  workspace.kernels.bf16Encode(source, target, count);
  return [f16, crc32(workspace.bytes(target, count * 2))];
}
