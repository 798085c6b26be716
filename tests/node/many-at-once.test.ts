// Many short records at once: they take no staging, and share the time that they take.
import { describe, expect, it } from "vitest";
import type { RecordCoder } from "../../src/cache/record-coder.js";
import { Staging } from "../../src/cache/staging.js";
import { TransferEngine } from "../../src/cache/transfer-engine.js";
import { Hasher } from "../../src/core/hash-stream.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import { CODEC_RAW, type RecordHeader } from "../../src/record/record.js";
import { manualClock, memoryTier, seededRandom } from "../../src/testing/index.js";
import type { Tier, TierReader, TierWriter } from "../../src/tier/tier.js";
import { closeMemory, openMemory, withSeed } from "../support/oracle.js";

const KIB = 1024;
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A tier whose reads take a turn of the event loop, and that counts those under way. */
function slowTier() {
  const inner = memoryTier();
  const peak = { short: 0, all: 0 };
  let short = 0;
  let all = 0;
  const openRead = async (key: string): Promise<TierReader | null> => {
    const reader = await inner.openRead(key);
    if (reader === null) return null;
    const isShort = reader.byteLength < 256 * KIB;
    short += Number(isShort);
    all += 1;
    peak.short = Math.max(peak.short, short);
    peak.all = Math.max(peak.all, all);
    const read: TierReader["read"] = async (...parameters) => {
      await turn();
      return reader.read(...parameters);
    };
    const close = async () => {
      short -= Number(isShort);
      all -= 1;
      await reader.close();
    };
    return { byteLength: reader.byteLength, read, close };
  };
  return { tier: { ...inner, openRead } as Tier, peak };
}

describe("short records", () => {
  it("are read many at once, beside long ones, and are what was written", async () => {
    await withSeed("short and long reads at once", async (seed) => {
      const { tier, peak } = slowTier();
      const memory = await openMemory({
        budgets: { ram: "64MiB" },
        codecs: { default: "raw" },
        seams: { tier },
      });
      const random = seededRandom(seed);
      const lengths = Array.from({ length: 48 }, (_, index) =>
        index % 8 === 0 ? 1024 * KIB + index : 1 + (random.uint32() % (200 * KIB)),
      );
      for (const [index, byteLength] of lengths.entries()) {
        using pin = memory.allocate({ kind: "KV_CACHE", id: `${index}`, byteLength }).pin();
        pin.bytes.fill(index + 1);
      }
      for (const index of lengths.keys()) expect(await memory.swapOut(`${index}`)).toBe("stored");
      const wrong = await Promise.all(
        lengths.map(async (byteLength, index) => {
          using lease = await memory.acquire(`${index}`, { access: "read" });
          const bytes = lease?.bytes ?? new Uint8Array();
          return Buffer.compare(bytes, Buffer.alloc(byteLength, index + 1)) !== 0;
        }),
      );
      expect(wrong).toEqual(lengths.map(() => false));
      expect(peak.short).toBe(16);
      // Long ones have a staging buffer each.
      expect(peak.all).toBeLessThanOrEqual(18);
    });
  });
});

describe("a long record", () => {
  it.each([
    { asked: "nothing", preferredWriteBytes: undefined, longest: 256 * KIB, count: 16 },
    { asked: "twice as much", preferredWriteBytes: 512 * KIB, longest: 512 * KIB, count: 9 },
  ])("is written in pieces as long as its tier asks: $asked", async (example) => {
    const { preferredWriteBytes, longest, count } = example;
    const inner = memoryTier();
    const pieces: number[] = [];
    const tier: Tier = {
      ...inner,
      capabilities: { ...inner.capabilities, preferredWriteBytes },
      begin: async (key, byteLength) => {
        const writer = await inner.begin(key, byteLength);
        if (writer === "no-space") return writer;
        const write: TierWriter["write"] = (source) => {
          pieces.push(source.byteLength);
          return writer.write(source);
        };
        return { ...writer, write };
      },
    };
    const memory = await openMemory({
      budgets: { ram: "64MiB" },
      codecs: { default: "raw" },
      seams: { tier },
    });
    memory.allocate({ kind: "KV_CACHE", id: "long", byteLength: 4096 * KIB });
    expect(await memory.swapOut("long")).toBe("stored");
    // Header and digest lie with the last bytes, unless these fill half a staging buffer.
    expect(Math.max(...pieces.slice(0, -1))).toBe(longest);
    expect(pieces.length).toBe(count);
    await closeMemory(memory);
  });
});

describe("coding among many callers", () => {
  it("is not tried for the time that the others take", async () => {
    const clock = manualClock();
    const inner = memoryTier();
    await inner.open();
    let before: Promise<unknown> = Promise.resolve();
    /** One commit after the other, a millisecond each. */
    const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
      const result = before.then(async () => {
        await turn();
        clock.advance(1);
        return work();
      });
      before = result;
      return result;
    };
    const begin: Tier["begin"] = async (...parameters) => {
      const writer = await inner.begin(...parameters);
      if (writer === "no-space") return writer;
      return { ...writer, commit: (options) => inTurn(() => writer.commit(options)) };
    };
    let trialCount = 0;
    const coder = {
      codec: { id: 1 },
      load: async () => {},
      // Takes as long as five commits, and makes nothing shorter.
      encode: async () => {
        trialCount += 1;
        clock.advance(5);
        return null;
      },
      countPlain: () => {},
    } as unknown as RecordCoder;
    const engine = new TransferEngine({
      tier: { ...inner, begin },
      coder,
      hasher: await Hasher.create(3, createUnsharedMemory),
      staging: new Staging(2, 512 * KIB),
      clock,
      namespace: { tenant: "t", fingerprint: "f" },
    });
    const header: RecordHeader = {
      ...{ tenant: "t", fingerprint: "f", id: "", kind: "KV_CACHE", dtype: "u8" },
      ...{ shape: [64 * KIB], layout: "row-major", codecId: CODEC_RAW, isDurable: false },
      ...{ isSaved: false, generation: 1, expiresMs: 0 },
      ...{ rawBytes: 64 * KIB, storedBytes: 64 * KIB },
    };
    const bytes = new Uint8Array(64 * KIB);
    const source = (offset: number, byteLength: number) =>
      bytes.subarray(offset, offset + byteLength);
    const coding = { limit: null, recoding: null } as unknown as Parameters<
      TransferEngine["write"]
    >[3];
    let next = 0;
    const caller = async () => {
      while (next < 640) {
        const id = `${next++}`;
        await engine.write({ ...header, id }, source, () => false, coding);
      }
    };
    await Promise.all(Array.from({ length: 16 }, caller));
    expect(trialCount).toBeGreaterThan(0);
    // All callers may ask before the first trial has ended.
    expect(trialCount).toBeLessThan(32);
  });
});
