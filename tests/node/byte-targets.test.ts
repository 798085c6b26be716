// A byte budget over all copies of a kind: never more bytes than it says, never more error than shared equally, and
// the largest error of the kind still holds for each tensor.
import { describe, expect, it } from "vitest";
import { unitCodec } from "../../src/codec/unit-codec.js";
import { byteTargets } from "../../src/codecs.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier, seededRandom } from "../../src/testing/index.js";
import { openMemory, withSeed } from "../support/oracle.js";

const COLUMNS = 64;
const EPSILON = 0.5;
const LIMIT = { metric: "relative", epsilon: EPSILON } as const;

/** Tensors of other sizes, magnitudes and shapes: loud and quiet ones, smooth and spiky ones. */
function tensorsLike(count: number, seed: number): Float32Array[] {
  const random = seededRandom(seed);
  const uniform = () => random.uint32() / 2 ** 32;
  return Array.from({ length: count }, (_each, index) => {
    const scale = 2 ** ((index % 7) - 3);
    const isSpiky = index % 3 === 0;
    const length = COLUMNS * (64 + (random.uint32() % 600));
    return Float32Array.from({ length }, () => {
      const normal = uniform() + uniform() + uniform() - 1.5;
      return scale * (isSpiky && uniform() < 0.01 ? 20 * normal : normal);
    });
  });
}

const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer);

function squaredError(values: Float32Array, original: Float32Array): number {
  return original.reduce((sum, value, index) => sum + (value - (values[index] as number)) ** 2, 0);
}

function allocate(memory: TensorMemory, id: string, values: Float32Array): void {
  const shape = [values.length / COLUMNS, COLUMNS];
  using pin = memory.allocate({ kind: "ACTIVATIONS", id, shape, dtype: "f32" }).pin();
  pin.bytes.set(bytesOf(values));
}

async function read(memory: TensorMemory, id: string): Promise<Float32Array> {
  using lease = await memory.acquire<"f32">(id, { access: "read" });
  return (lease?.view ?? new Float32Array()).slice();
}

/** Every tensor as exact as an equal share per byte of the original allows. */
async function equalShare(tensors: readonly Float32Array[], target: number): Promise<number> {
  const coder = await unitCodec({ createMemory: createUnsharedMemory }).load();
  const part = { dtype: "f32", columns: COLUMNS, mayFactor: true } as const;
  const stepBytes = coder.partBytes("f32", COLUMNS);
  const rawBytes = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  let squares = 0;
  for (const values of tensors) {
    const bytes = bytesOf(values);
    const share = (target * bytes.byteLength) / rawBytes;
    let best = Number.POSITIVE_INFINITY;
    for (let epsilon = EPSILON; epsilon > 1e-4; epsilon *= 0.9) {
      let storedBytes = 0;
      const back = new Uint8Array(bytes.byteLength);
      for (let at = 0; at < bytes.byteLength; at += stepBytes) {
        const piece = bytes.subarray(at, at + stepBytes);
        const unit = coder.encode({ ...part, bytes: piece, limit: { ...LIMIT, epsilon } });
        coder.decode(unit.bytes, "f32", back.subarray(at));
        storedBytes += unit.bytes.byteLength;
      }
      if (storedBytes > share) continue;
      best = Math.min(best, squaredError(new Float32Array(back.buffer), values));
    }
    squares += best;
  }
  return squares;
}

describe("a byte target", () => {
  it.each([0.12, 0.2, 0.35])(
    "of %s of the bytes is kept, with less error than equal shares",
    async (share) => {
      await withSeed(`byte target ${share}`, async (seed) => {
        const tensors = tensorsLike(24, seed);
        const rawBytes = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
        const target = Math.floor(share * rawBytes);
        const tier = memoryTier();
        const memory = await openMemory({
          budgets: { ram: "64MiB" },
          codecs: { kinds: { ACTIVATIONS: LIMIT }, targets: byteTargets({ ACTIVATIONS: target }) },
          seams: { tier },
        });
        tensors.forEach((values, index) => {
          allocate(memory, `${index}`, values);
        });
        for (const [index] of tensors.entries()) {
          expect(await memory.swapOut(`${index}`), `${index}`).toBe("stored");
        }
        const storedBytes = memory.stats().codecs.reduce((sum, each) => sum + each.storedBytes, 0);
        expect(storedBytes).toBeLessThanOrEqual(target);
        // What is there is used.
        expect(storedBytes).toBeGreaterThan(0.85 * target);
        let squares = 0;
        for (const [index, values] of tensors.entries()) {
          const error = squaredError(await read(memory, `${index}`), values);
          expect(
            Math.sqrt(error / squaredError(new Float32Array(values.length), values)),
          ).toBeLessThanOrEqual(EPSILON);
          squares += error;
        }
        // A quarter of it: shares that count all tensors alike come to more.
        expect(squares).toBeLessThanOrEqual((await equalShare(tensors, target)) / 4);
      });
    },
  );

  it("that cannot be kept leaves tensors where they are", async () => {
    const tensors = tensorsLike(6, 2);
    const target = 20_000;
    const memory = await openMemory({
      budgets: { ram: "64MiB" },
      codecs: { kinds: { ACTIVATIONS: LIMIT }, targets: byteTargets({ ACTIVATIONS: target }) },
      seams: { tier: memoryTier() },
    });
    const outcomes: string[] = [];
    for (const [index, values] of tensors.entries()) {
      allocate(memory, `${index}`, values);
      outcomes.push(await memory.swapOut(`${index}`));
    }
    expect(outcomes).toContain("no-space");
    expect(memory.stats().tier.storedBytes).toBeLessThan(target + 6 * 512);
    for (const [index, outcome] of outcomes.entries()) {
      expect(memory.tensor(`${index}`)?.isResident).toBe(outcome === "no-space");
    }
    // What is freed is there for others.
    const stored = outcomes.indexOf("stored");
    if (stored >= 0) memory.free(`${stored}`);
  });

  it("fits what the tier has room for, and writes exactly where there is plenty", async () => {
    const tensors = tensorsLike(8, 3);
    const targets = byteTargets({ ACTIVATIONS: "fit" });
    const codecs = { kinds: { ACTIVATIONS: LIMIT }, targets };
    for (const [capacityBytes, isExact] of [
      [2 ** 26, true],
      [160_000, false],
    ] as const) {
      const tier = memoryTier({ capacityBytes });
      const memory = await openMemory({ budgets: { ram: "64MiB" }, codecs, seams: { tier } });
      tensors.forEach((values, index) => {
        allocate(memory, `${index}`, values);
      });
      for (const [index] of tensors.entries()) {
        expect(await memory.swapOut(`${index}`), `${index}`).toBe("stored");
      }
      for (const [index, values] of tensors.entries()) {
        const error = squaredError(await read(memory, `${index}`), values);
        expect(error === 0, `${index}`).toBe(isExact);
      }
    }
  });

  it("leaves exact tensors, and other kinds, alone", async () => {
    const targets = byteTargets({ ACTIVATIONS: 1000 });
    const codecs = { default: "lossless", kinds: { ACTIVATIONS: LIMIT }, targets } as const;
    const memory = await openMemory({
      budgets: { ram: "64MiB" },
      codecs,
      seams: { tier: memoryTier() },
    });
    const values = tensorsLike(1, 4)[0] as Float32Array;
    const shape = [values.length / COLUMNS, COLUMNS];
    for (const [id, kind, more] of [
      ["exact", "ACTIVATIONS", { budget: "exact" }],
      ["other", "PARAMETERS", {}],
    ] as const) {
      {
        using pin = memory.allocate({ kind, id, shape, dtype: "f32", ...more }).pin();
        pin.bytes.set(bytesOf(values));
      }
      expect(await memory.swapOut(id)).toBe("stored");
      expect(squaredError(await read(memory, id), values)).toBe(0);
    }
  });

  it.each([
    ["no kind", {}, "bad-option"],
    ["an unknown kind", { NOISE: 5 }, "bad-kind"],
    ["no size", { KV_CACHE: "some" }, "bad-size"],
  ])("is refused with %s", (_name, targets, code) => {
    let found = "";
    try {
      byteTargets(targets as never);
    } catch (error) {
      found = (error as { code: string }).code;
    }
    expect(found).toBe(code);
  });

  it("is what byteTargets makes", async () => {
    const codecs = { targets: { KV_CACHE: 5 } } as never;
    await expect(openMemory({ codecs })).rejects.toMatchObject({ code: "bad-option" });
  });
});
