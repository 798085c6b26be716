// The buddy allocator by itself: the seed documents' edge cases, handles, compaction.
import { describe, expect, it } from "vitest";
import { BuddyAllocator, type Handle, NULL_HANDLE } from "../../src/index.js";
import { countingMemory, seededRandom } from "../../src/testing/index.js";
import { withSeed } from "../support/oracle.js";

const misuse = (code: string) => expect.objectContaining({ name: "MisuseError", code });
const NOT_SIZES: unknown[] = [
  0,
  -1,
  Number.NaN,
  1.5,
  Number.POSITIVE_INFINITY,
  2 ** 53,
  "7",
  7n,
  {},
  null,
];

async function create(totalBytes = 1 << 20, granuleBytes = 64, blockCountMax?: number) {
  return BuddyAllocator.create({
    totalBytes,
    granuleBytes,
    ...(blockCountMax && { blockCountMax }),
  });
}

function allocate(buddy: BuddyAllocator, bytes: number, alignment?: number): Handle {
  const handle = buddy.tryAllocate(bytes, alignment);
  expect(handle).not.toBe(NULL_HANDLE);
  return handle;
}

describe("create", () => {
  it.each(NOT_SIZES)("refuses totalBytes %s", async (totalBytes) => {
    await expect(BuddyAllocator.create({ totalBytes: totalBytes as number })).rejects.toThrowError(
      misuse("bad-size"),
    );
  });

  it.each([0, 8, 48, 2 ** 21, "64", Number.NaN])(
    "refuses granuleBytes %s",
    async (granuleBytes) => {
      const options = { totalBytes: 1 << 20, granuleBytes: granuleBytes as number };
      await expect(BuddyAllocator.create(options)).rejects.toThrowError(misuse("bad-size"));
    },
  );

  it.each([0, -1, 1.5, 2 ** 21, Number.NaN])("refuses blockCountMax %s", async (blockCountMax) => {
    const options = { totalBytes: 1 << 20, blockCountMax };
    await expect(BuddyAllocator.create(options)).rejects.toThrowError(misuse("bad-size"));
  });

  it("refuses what is smaller than a granule and what has too many", async () => {
    await expect(create(63, 64)).rejects.toThrowError(misuse("bad-size"));
    await expect(create(2 ** 32, 16)).rejects.toThrowError(misuse("bad-size"));
    await expect(create(2 ** 32 + 1, 2 ** 20)).rejects.toThrowError(misuse("bad-size"));
  });

  it.each([64, 100, 1000, 3 * 64, 1_000_000, 2 ** 20 - 1, 2 ** 19 + 64])(
    "manages %i bytes, to the last whole granule",
    async (totalBytes) => {
      const buddy = await create(totalBytes);
      const granuleCount = Math.floor(totalBytes / 64);
      expect(buddy.stats().capacityBytes).toBe(granuleCount * 64);
      expect(buddy.stats().freeBytes).toBe(granuleCount * 64);
      const offsets = new Set<number>();
      for (let index = 0; index < granuleCount; index++) {
        offsets.add(buddy.offsetOf(allocate(buddy, 64)));
      }
      expect(offsets.size).toBe(granuleCount);
      expect(Math.max(...offsets)).toBe((granuleCount - 1) * 64);
      expect(buddy.tryAllocate(1)).toBe(NULL_HANDLE);
      expect(buddy.verify()).toBeNull();
    },
  );

  it("manages 4 GiB", async () => {
    const buddy = await create(2 ** 32, 2 ** 16);
    const handle = allocate(buddy, 2 ** 31);
    expect(buddy.grantedBytesOf(handle)).toBe(2 ** 31);
    expect(buddy.offsetOf(allocate(buddy, 2 ** 31))).toBe(2 ** 31);
    expect(buddy.stats().freeBytes).toBe(0);
  });

  it.each([1, 2])("tells when the platform refuses memory number %i", async (request) => {
    const { createMemory } = countingMemory((at) => at === request);
    await expect(
      BuddyAllocator.create({ totalBytes: 1 << 20, createMemory }),
    ).rejects.toMatchObject({
      code: "out-of-memory",
    });
  });
});

describe("tryAllocate", () => {
  it.each(NOT_SIZES)("refuses %s bytes", async (bytes) => {
    const buddy = await create();
    const before = buddy.stats();
    expect(() => buddy.tryAllocate(bytes as number)).toThrowError(misuse("bad-size"));
    expect(buddy.stats()).toEqual(before);
  });

  it("answers null to what is larger than everything", async () => {
    const buddy = await create();
    for (const bytes of [(1 << 20) + 1, 2 ** 31, 2 ** 32 - 1]) {
      expect(buddy.tryAllocate(bytes)).toBe(NULL_HANDLE);
    }
    expect(() => buddy.tryAllocate(2 ** 32)).toThrowError(misuse("bad-size"));
    expect(buddy.stats()).toMatchObject({ liveCount: 0, allocationCount: 0, freeBytes: 1 << 20 });
  });

  it.each([1, 2, 64, 128, 4096, 65536])("aligns to %i", async (alignment) => {
    const buddy = await create();
    for (const bytes of [1, 65, 4096]) {
      expect(buddy.offsetOf(allocate(buddy, bytes, alignment)) % alignment).toBe(0);
    }
    expect(buddy.verify()).toBeNull();
  });

  it.each([0, 3, -8, 131_072, Number.NaN, "8"])("refuses alignment %s", async (alignment) => {
    const buddy = await create();
    expect(() => buddy.tryAllocate(1, alignment as number)).toThrowError(misuse("bad-alignment"));
  });

  it("answers null when every slot is taken, and works again after a free", async () => {
    const buddy = await create(1 << 20, 64, 3);
    const handles = [allocate(buddy, 1), allocate(buddy, 1), allocate(buddy, 1)];
    expect(buddy.tryAllocate(1)).toBe(NULL_HANDLE);
    buddy.free(handles[1] as Handle);
    allocate(buddy, 1);
  });

  it("coalesces everything that is freed, in any order", async () => {
    await withSeed("coalescing", async (seed) => {
      const random = seededRandom(seed);
      const buddy = await create(1_000_000);
      const whole = buddy.largestFreeBlockBytes;
      const handles: Handle[] = [];
      for (let handle = buddy.tryAllocate(700); handle !== 0; handle = buddy.tryAllocate(700)) {
        handles.push(handle);
      }
      while (handles.length > 0) {
        const [handle] = handles.splice(random.uint32() % handles.length, 1);
        buddy.free(handle as Handle);
      }
      expect(buddy.largestFreeBlockBytes).toBe(whole);
      expect(buddy.stats()).toMatchObject({
        liveCount: 0,
        grantedBytes: 0,
        externalFragmentation: expect.any(Number),
      });
      expect(buddy.verify()).toBeNull();
    });
  });
});

describe("handles", () => {
  it("refuse a second free, and every other use, of what was freed", async () => {
    const buddy = await create();
    const handle = allocate(buddy, 100);
    buddy.free(handle);
    const before = buddy.stats();
    for (const use of [buddy.free, buddy.offsetOf, buddy.grantedBytesOf]) {
      expect(() => use.call(buddy, handle)).toThrowError(misuse("stale-handle"));
    }
    const next = allocate(buddy, 100);
    expect(next).not.toBe(handle);
    expect(() => buddy.free(handle)).toThrowError(misuse("stale-handle"));
    buddy.free(next);
    expect(buddy.stats()).toMatchObject({ ...before, allocationCount: 2, freeCount: 2 });
  });

  it("are never given twice", async () => {
    const buddy = await create(1 << 20, 64, 1);
    const seen = new Set<Handle>();
    for (let round = 0; round < 100_000; round++) {
      const handle = buddy.tryAllocate(1);
      seen.add(handle);
      buddy.free(handle);
    }
    expect(seen.size).toBe(100_000);
  });

  it("of another allocator are refused, though its slots have the same numbers", async () => {
    const random = seededRandom(1);
    const options = { totalBytes: 1 << 20, random };
    const [one, other] = [
      await BuddyAllocator.create(options),
      await BuddyAllocator.create(options),
    ];
    const handle = allocate(one, 100);
    const own = allocate(other, 100);
    expect(handle % 2 ** 21).toBe(own % 2 ** 21);
    expect(() => other.free(handle)).toThrowError(misuse("stale-handle"));
    other.free(own);
    one.free(handle);
  });

  it.each([0, -1, 0.5, Number.NaN, 2 ** 53, "1", null, {}, 7n])("refuse %s", async (handle) => {
    const buddy = await create();
    expect(() => buddy.free(handle as Handle)).toThrowError(misuse("foreign-handle"));
  });

  it("refuse 250,000 forged ones", async () => {
    await withSeed("forged handles", async (seed) => {
      const random = seededRandom(seed);
      const buddy = await create();
      const live = new Set(Array.from({ length: 1000 }, () => buddy.tryAllocate(1)));
      const before = buddy.stats();
      for (let round = 0; round < 250_000; round++) {
        const handle = random.uint32() * 2 ** 21 + (random.uint32() % 2048);
        if (live.has(handle)) continue;
        try {
          buddy.free(handle);
          throw new Error(`the forged handle ${handle} was freed`);
        } catch (error) {
          if ((error as { name: string }).name !== "MisuseError") throw error;
        }
      }
      expect(buddy.stats()).toEqual(before);
    });
  });
});

describe("compact", () => {
  const SMALL_BYTES = 1024;

  it("makes room for a large block where every other small one was freed", async () => {
    const buddy = await create(1000 * SMALL_BYTES);
    const handles = Array.from({ length: 1000 }, () => allocate(buddy, SMALL_BYTES));
    const bytes = new Uint8Array(1000 * SMALL_BYTES);
    handles.forEach((handle, index) =>
      bytes.fill(index & 0xff, buddy.offsetOf(handle), buddy.offsetOf(handle) + SMALL_BYTES),
    );
    handles.forEach((handle, index) => index % 2 === 0 && buddy.free(handle));
    const largeBytes = 256 * SMALL_BYTES;
    expect(buddy.tryAllocate(largeBytes)).toBe(NULL_HANDLE);
    const movedBytes = buddy.compact((source, target, length) =>
      bytes.copyWithin(target, source, source + length),
    );
    expect(movedBytes).toBeGreaterThan(0);
    expect(buddy.verify()).toBeNull();
    handles.forEach((handle, index) => {
      if (index % 2 === 0) return;
      const offset = buddy.offsetOf(handle);
      expect(
        bytes.subarray(offset, offset + SMALL_BYTES).every((byte) => byte === (index & 0xff)),
      ).toBe(true);
    });
    const large = allocate(buddy, largeBytes);
    expect(buddy.grantedBytesOf(large)).toBe(largeBytes);
  });

  it("survives a move that throws", async () => {
    const buddy = await create(100 * SMALL_BYTES);
    const handles = Array.from({ length: 64 }, () => allocate(buddy, SMALL_BYTES));
    for (let index = 0; index < 64; index += 2) buddy.free(handles[index] as Handle);
    const before = buddy.stats();
    const broken = () => {
      throw new RangeError("the copy failed");
    };
    expect(() => buddy.compact(broken)).toThrowError("the copy failed");
    expect(buddy.verify()).toBeNull();
    expect(buddy.stats()).toEqual(before);
    expect(buddy.compact(() => {})).toBeGreaterThan(0);
    expect(buddy.verify()).toBeNull();
  });

  it("refuses calls from inside a move", async () => {
    const buddy = await create(100 * SMALL_BYTES);
    const handles = Array.from({ length: 64 }, () => allocate(buddy, SMALL_BYTES));
    for (let index = 0; index < 64; index += 2) buddy.free(handles[index] as Handle);
    let calls = 0;
    buddy.compact(() => {
      calls += 1;
      expect(() => buddy.compact(() => {})).toThrowError(misuse("re-entrant"));
    });
    expect(calls).toBeGreaterThan(0);
    expect(buddy.verify()).toBeNull();
  });

  it("refuses a move that is no function", async () => {
    const buddy = await create();
    expect(() => buddy.compact(7 as unknown as () => void)).toThrowError(misuse("bad-option"));
  });
});
