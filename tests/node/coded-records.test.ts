// Records whose units are coded: their bytes, damage anywhere in them, and units that come in pieces.
import { describe, expect, it } from "vitest";
import { UnitStream } from "../../src/cache/decoding.js";
import { plainCodec } from "../../src/codec/plain.js";
import { Hasher } from "../../src/core/hash-stream.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import { encodeHeader, type RecordHeader, recordKey } from "../../src/record/record.js";
import { seededRandom } from "../../src/testing/index.js";
import type { Tier } from "../../src/tier/tier.js";
import { type PrivateBytes, privateBytes, privateCopy } from "../../src/util/private-bytes.js";
import { CODED_RECORD } from "../support/coded-record.js";
import {
  allocate,
  keptTier,
  onlyObject,
  open,
  plant,
  read,
  valuesLike,
} from "../support/coded-tensors.js";
import { closeMemory, openMemory, SEED, withSeed } from "../support/oracle.js";

describe("a coded record", () => {
  async function stored() {
    const tier = keptTier();
    const memory = await open({ default: "lossless" }, tier);
    const values = valuesLike(640, 13);
    allocate(memory, "a", values);
    await memory.save("a");
    await closeMemory(memory);
    await tier.open();
    return { tier, values, ...(await onlyObject(tier)) };
  }

  async function verdictOf(tier: Tier, values: Float32Array, ram = "64MiB"): Promise<string> {
    const memory = await openMemory({ budgets: { ram }, seams: { tier } });
    try {
      const back = await read(memory, "a");
      return Buffer.compare(Buffer.from(back.buffer), Buffer.from(values.buffer)) === 0
        ? "intact"
        : "wrong";
    } catch (error) {
      return (error as { code: string }).code;
    } finally {
      await closeMemory(memory);
      await tier.open();
    }
  }

  it("has these bytes, for ever", async () => {
    const { tier, values, key, bytes } = await stored();
    const golden = Buffer.from(CODED_RECORD, "base64");
    expect(Buffer.from(bytes).toString("base64")).toBe(CODED_RECORD);
    expect(golden[12], "the codec").toBe(16);
    expect(golden.subarray(256, 264).toString("latin1")).toBe("TCB1\x01\x03\x01\x00");
    await plant(tier, key, privateCopy(golden));
    expect(await verdictOf(tier, values)).toBe("intact");
  });

  it("is left alone by a memory that is too small for codecs", async () => {
    const { tier, values } = await stored();
    expect(await verdictOf(tier, values, "8MiB")).toBe("incompatible");
    expect(await verdictOf(tier, values)).toBe("intact");
  });

  it("with a byte changed anywhere is corrupt, or of another version", async () => {
    const { tier, values, key, bytes } = await stored();
    const seen = new Set<string>();
    for (let index = 0; index < bytes.byteLength; index += index < 512 ? 7 : 61) {
      const changed = bytes.slice() as PrivateBytes;
      changed[index] = (changed[index] as number) ^ 0x10;
      await plant(tier, key, changed);
      const verdict = await verdictOf(tier, values);
      seen.add(verdict);
      expect(["corruption", "incompatible"], `byte ${index}`).toContain(verdict);
    }
    expect(seen.has("corruption")).toBe(true);
  });

  it("whose units are malformed under a digest that fits is corrupt", async () => {
    const { tier, values, key, bytes } = await stored();
    const hasher = await Hasher.create(1, createUnsharedMemory);
    const sealed = (header: RecordHeader, units: Uint8Array): PrivateBytes => {
      const head = encodeHeader({ ...header, storedBytes: units.byteLength });
      const record = privateBytes(head.byteLength + units.byteLength + 16);
      record.set(head);
      record.set(units, head.byteLength);
      const hash = hasher.open();
      hash.update(record.subarray(0, record.byteLength - 16));
      record.set(hash.end(), record.byteLength - 16);
      return record;
    };
    const name = { tenant: "", fingerprint: "", id: "a" };
    expect(key).toBe(recordKey(name, true));
    const header: RecordHeader = {
      ...{ ...name, kind: "KV_CACHE", dtype: "f32", shape: [10, 64], layout: "row-major" },
      ...{ codecId: 16, isDurable: false, isSaved: true, generation: 1, expiresMs: 0 },
      ...{ rawBytes: 2560, storedBytes: 0 },
    };
    const units = bytes.subarray(256, bytes.byteLength - 16);
    const verdicts: Record<string, string> = {};
    const random = seededRandom(SEED);
    const judge = async (
      label: string,
      changed: Uint8Array,
      changes: Partial<RecordHeader> = {},
    ) => {
      await plant(tier, key, sealed({ ...header, ...changes }, changed));
      verdicts[label] = await verdictOf(tier, values);
    };
    await judge("intact", units);
    expect(verdicts["intact"]).toBe("intact");
    await judge("two units", Uint8Array.of(...units.subarray(0, 700), ...units.subarray(0, 700)));
    await judge("cut", units.subarray(0, units.byteLength - 8));
    await judge("nothing but a head", units.subarray(0, 64));
    await judge("less than a head", units.subarray(0, 9));
    await judge(
      "noise",
      units.map(() => random.uint32()),
    );
    await judge("zeros behind it", Uint8Array.of(...units, ...new Uint8Array(64)));
    await judge("of another type", units, { dtype: "i32" });
    await judge("of a longer tensor", units, { shape: [20, 64], rawBytes: 5120 });
    await judge("of a shorter tensor", units, { shape: [9, 64], rawBytes: 2304 });
    await judge("as long as the tensor", new Uint8Array(2560));
    delete verdicts["intact"];
    expect(new Set(Object.values(verdicts)), JSON.stringify(verdicts)).toEqual(
      new Set(["corruption"]),
    );
  });
});

describe("units that come in pieces", () => {
  it("are put together, wherever they are cut", async () => {
    const coder = await plainCodec.load();
    const source = Uint8Array.from({ length: 10_000 }, (_each, index) => index * 7);
    const units: number[] = [];
    const dtype = "u8";
    for (let at = 0; at < source.byteLength; at += 1000) {
      const bytes = source.subarray(at, at + 1000);
      units.push(...coder.encode({ bytes, dtype, columns: 1, limit: null, mayFactor: true }).bytes);
    }
    const stored = Uint8Array.from(units);
    await withSeed("cuts", (seed) => {
      const random = seededRandom(seed);
      for (let round = 0; round < 200; round++) {
        const target = new Uint8Array(source.byteLength);
        const room = new Uint8Array(plainCodec.unitBytesMax);
        const stream = new UnitStream(coder, room, source.byteLength, (unit, offset) => {
          const decoded = coder.decode(unit, dtype, target.subarray(offset));
          return decoded?.byteLength ?? null;
        });
        const mostBytes = [1, 3, 9, 50, 5000][round % 5] as number;
        for (let at = 0; at < stored.length; ) {
          const count = 1 + (random.uint32() % mostBytes);
          if (stream.end() || !stream.push(stored.subarray(at, at + count))) {
            throw new Error(`at ${at}`);
          }
          at += count;
        }
        expect(stream.end()).toBe(true);
        expect(Buffer.compare(target, source)).toBe(0);
        expect(stream.push(stored.subarray(0, 1008))).toBe(false);
      }
    });
  });
});
