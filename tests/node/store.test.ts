// The store of the SSD tier: its bytes are pinned here, and so is what it does with room, syncs,
// damage and directories that others have written to.
import { spawnSync } from "node:child_process";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  exploreFlips,
  flippableStore,
  memoryFileSystem,
  seededRandom,
} from "../../src/testing/index.js";
import type { FileSystem } from "../../src/tier/file-system.js";
import { nodeFileSystem, writeBytesMax } from "../../src/tier/file-system-node.js";
import { FsTier, type FsTierOptions } from "../../src/tier/fs.js";
import {
  bytesOfHex,
  decodeFrame,
  decodeTable,
  encodeFrame,
  encodeTable,
  FRAME_HEADER_BYTES,
  type Frame,
  frameBytesOf,
} from "../../src/tier/segment-format.js";
import type { TierKey } from "../../src/tier/tier.js";
import { type PrivateBytes, privateBytes } from "../../src/util/private-bytes.js";
import { temporaryDirectory } from "../support/directories.js";
import { HOSTILE_FIXTURES, HOSTILE_ID, type HostileFixture } from "../support/hostile-files.js";
import { closeMemory, openMemory, withSeed } from "../support/oracle.js";
import { storedRecord } from "../support/record-files.js";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const keyOf = (index: number): TierKey => index.toString(16).padStart(2, "0").repeat(32);
const ID = bytesOfHex("000102030405060708090a0b0c0d0e0f");

function filled(byteLength: number, value: number): PrivateBytes {
  return privateBytes(byteLength).fill(value) as PrivateBytes;
}

async function put(tier: FsTier, key: number, bytes: PrivateBytes, durable = false) {
  const writer = await tier.begin(keyOf(key), bytes.byteLength);
  if (writer === "no-space") return writer;
  await writer.write(bytes);
  const outcome = await writer.commit({ durable });
  await writer.abort();
  return outcome;
}

async function get(tier: FsTier, key: number): Promise<PrivateBytes | null> {
  const reader = await tier.openRead(keyOf(key));
  if (reader === null) return null;
  const bytes = privateBytes(reader.byteLength);
  expect(await reader.read(0, bytes)).toBe(bytes.byteLength);
  await reader.close();
  return bytes;
}

async function open(options: Partial<FsTierOptions> = {}): Promise<FsTier> {
  const fileSystem = options.fileSystem ?? memoryFileSystem();
  const tier = new FsTier({ directory: "/store", random: seededRandom(7), ...options, fileSystem });
  await tier.open();
  return tier;
}

describe("a segment", () => {
  const frame: Frame = {
    kind: "object",
    key: "ab".repeat(32),
    sequence: 0x1_0000_0002,
    offset: 64,
    payloadBytes: 5,
    isDurable: true,
  };

  it("has frames of these bytes, for ever", () => {
    const bytes = privateBytes(frameBytesOf(5));
    bytes.set([1, 2, 3, 4, 5], FRAME_HEADER_BYTES);
    encodeFrame(bytes, { ...frame, syncedOffset: 64 }, ID);
    expect(hex(bytes)).toBe(GOLDEN_FRAME);
    expect(decodeFrame(bytes, 64, 64, ID)).toMatchObject({ ...frame, syncedOffset: 64 });
    expect(decodeFrame(bytes, 128, 128, ID)).toBeNull();
    expect(
      decodeFrame(
        bytes,
        64,
        64,
        ID.map((byte) => byte + 1),
      ),
    ).toBeNull();
  });

  it("has a table of these bytes, for ever", () => {
    const bytes = encodeTable([frame], 256, ID);
    expect(hex(bytes)).toBe(GOLDEN_TABLE);
    expect(decodeTable(bytes, 256, ID)).toEqual([frame]);
    for (const offset of [0, 320]) expect(decodeTable(bytes, offset, ID)).toBeNull();
    const overlapping = encodeTable([frame, { ...frame, offset: 128 }], 512, ID);
    expect(decodeTable(overlapping, 512, ID)).toBeNull();
    const behind = encodeTable([{ ...frame, offset: 256 }], 256, ID);
    expect(decodeTable(behind, 256, ID)).toBeNull();
  });

  it("gives a header with any one bit flipped, or none", () => {
    const bytes = privateBytes(frameBytesOf(5));
    encodeFrame(bytes, { ...frame, syncedOffset: 64 }, ID);
    for (let bit = 0; bit < FRAME_HEADER_BYTES * 8; bit++) {
      const flipped = bytes.slice();
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(decodeFrame(flipped, 64, 64, ID), `bit ${bit}`).toMatchObject(frame);
    }
  });

  it.each([true, false])(
    "of any other length gives what it holds or nothing, closed: %s",
    async (isClosed) => {
      const disk = await flippableStore(3, isClosed);
      const [path, bytes] = [...disk].find(([name]) => name.endsWith(".segment")) ?? [
        "",
        filled(0, 0),
      ];
      for (let length = 0; length < bytes.byteLength; length += 7) {
        const files = memoryFileSystem();
        files.plant(path, bytes.slice(0, length));
        const tier = await open({ fileSystem: files });
        for await (const key of tier.list()) {
          const reader = await tier.openRead(key);
          const object = privateBytes(reader?.byteLength ?? 0);
          await reader?.read(0, object);
          await reader?.close();
          expect(hex(bytes)).toContain(hex(object));
        }
        await tier.close();
      }
    },
  );

  it("under another's name holds nothing", async () => {
    const disk = await flippableStore(3, true);
    const segments = [...disk].filter(([name]) => name.endsWith(".segment"));
    expect(segments.length).toBeGreaterThan(1);
    const files = memoryFileSystem();
    segments.forEach(([path], index) => {
      files.plant(path, (segments[(index + 1) % segments.length]?.[1] ?? filled(0, 0)).slice());
    });
    const tier = await open({ fileSystem: files });
    expect(tier.stats().objectCount).toBe(0);
    await tier.close();
  });

  it.each([true, false])("with flipped bits gives nothing wrong, closed: %s", async (isClosed) => {
    await withSeed("flips", async (seed) => {
      const disk = await flippableStore(seed, isClosed);
      const options = { flipCount: 500, random: seededRandom(seed) };
      const report = await exploreFlips(disk, options);
      expect(report.silentCount).toBe(0);
      expect(report.damagedCount).toBeGreaterThan(50);
    });
  });

  it("of another version makes the directory incompatible, and is left alone", async () => {
    const files = memoryFileSystem();
    const path = `/store/${"0".repeat(15)}1.${"0".repeat(32)}.2.segment`;
    const left = `/store/${keyOf(1)}.${"0".repeat(32)}.tmp`;
    files.plant(path, filled(100, 1));
    files.plant(left, filled(100, 1));
    const error = await open({ fileSystem: files }).catch((reason) => reason);
    expect(error).toMatchObject({ code: "incompatible", tier: "ssd" });
    expect([...files.files().keys()].sort()).toEqual([path, left].sort());
  });
});

describe("group commit", () => {
  it("makes many objects durable with few syncs", async () => {
    const tier = await open();
    const keys = Array.from({ length: 40 }, (_, key) => key);
    const outcomes = await Promise.all(keys.map((key) => put(tier, key, filled(1000, key), true)));
    expect(outcomes).toEqual(keys.map(() => "stored"));
    expect(tier.storeStats().syncCount).toBeLessThan(5);
    for (const key of keys) expect(await get(tier, key)).toEqual(filled(1000, key));
    await tier.close();
  });

  it("fails for all who waited when the sync fails, and works again", async () => {
    const files = memoryFileSystem();
    let isFailing = true;
    const tier = await open({
      fileSystem: {
        ...files,
        create: async (path) => {
          const writer = await files.create(path);
          const sync = async () => {
            if (isFailing) throw Object.assign(new Error("EIO"), { code: "EIO" });
            await writer.sync();
          };
          return { ...writer, sync };
        },
      },
    });
    const attempts = [put(tier, 1, filled(10, 1), true), put(tier, 2, filled(10, 2), true)];
    for (const attempt of attempts) await expect(attempt).rejects.toMatchObject({ code: "io" });
    expect(await get(tier, 1)).toBeNull();
    isFailing = false;
    expect(await tier.delete(keyOf(2))).toBe(false);
    expect(await put(tier, 1, filled(10, 3), true)).toBe("stored");
    await tier.close();
    const again = await open({ fileSystem: files });
    expect(await get(again, 1)).toEqual(filled(10, 3));
    expect(await get(again, 2)).toBeNull();
    await again.close();
  });
});

it("a write to the system never begins a long stretch where one could lie", () => {
  const stretchBytes = 131_072;
  for (let offset = 0; offset < 3 * stretchBytes; offset += 64) {
    const endOffset = offset + writeBytesMax(offset);
    expect(endOffset - offset).toBeGreaterThanOrEqual(stretchBytes - 4096);
    // From the place in it where a stretch could begin, less than one is left.
    const first =
      offset % stretchBytes < 4096
        ? offset
        : (Math.floor(offset / stretchBytes) + 1) * stretchBytes;
    expect(endOffset - first).toBeLessThan(stretchBytes);
    expect(endOffset - first).toBeGreaterThan(0);
  }
});

describe("room", () => {
  it("is never exceeded, and given back by cleaning, through any churn", async () => {
    await withSeed("churn", async (seed) => {
      const random = seededRandom(seed);
      const draw = (count: number) => random.uint32() % count;
      const capacityBytes = 64 * 1024;
      const files = memoryFileSystem();
      let tier = await open({ fileSystem: files, capacityBytes });
      const model = new Map<number, PrivateBytes>();
      let refusedCount = 0;
      let cleanedBytes = 0;
      for (let step = 0; step < 4000; step++) {
        const key = draw(200);
        if (draw(500) === 0) {
          cleanedBytes += tier.storeStats().cleanedBytes;
          await tier.close();
          tier = await open({ fileSystem: files, capacityBytes, random });
        } else if (draw(4) === 0) {
          expect(await tier.delete(keyOf(key))).toBe(model.delete(key));
        } else {
          const bytes = filled(1 + draw(draw(20) === 0 ? 5000 : 120), step & 0xff);
          const outcome = await put(tier, key, bytes);
          if (outcome === "stored") model.set(key, bytes);
          else refusedCount += 1;
        }
        const { physicalBytes, objectCount } = tier.stats();
        expect(physicalBytes).toBeLessThanOrEqual(capacityBytes);
        expect(objectCount).toBe(model.size);
        const onDisk = [...files.files().values()].reduce((sum, file) => sum + file.byteLength, 0);
        expect(onDisk).toBeLessThanOrEqual(capacityBytes);
      }
      for (const [key, bytes] of model) expect(await get(tier, key)).toEqual(bytes);
      expect(cleanedBytes + tier.storeStats().cleanedBytes).toBeGreaterThan(0);
      expect(refusedCount).toBeGreaterThan(0);
      await tier.close();
    });
  });

  it("that background cleaning takes is a share of what callers write", async () => {
    const tier = await open({ capacityBytes: 2 ** 20, cleaningShare: 0.25 });
    for (let step = 0; step < 3000; step++) await put(tier, step % 20, filled(500, step & 0xff));
    const { cleanedBytes } = tier.storeStats();
    expect(cleanedBytes).toBeLessThanOrEqual(0.25 * tier.stats().bytesWritten * 1.5);
    await tier.close();
  });
});

it("a deletion hides a file whose removal is still under way", async () => {
  const files = memoryFileSystem();
  let letGo = () => {};
  const gate = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  let isGated = true;
  const remove = async (path: string) => {
    if (isGated) {
      isGated = false;
      await gate;
    }
    return files.remove(path);
  };
  const tier = await open({ fileSystem: { ...files, remove }, packedBytesMax: 0 });
  await put(tier, 1, filled(100, 1));
  const overwriting = put(tier, 1, filled(100, 2));
  while (tier.stats().commitCount < 2) await Promise.resolve();
  expect(await tier.delete(keyOf(1))).toBe(true);
  const killed = memoryFileSystem();
  for (const [path, bytes] of files.files()) killed.plant(path, bytes.slice());
  const again = await open({ fileSystem: killed });
  expect(await get(again, 1)).toBeNull();
  await again.close();
  letGo();
  await overwriting;
  await tier.close();
});

it("what is deleted while cleaning copies it stays deleted", async () => {
  const files = memoryFileSystem();
  let letGo = () => {};
  let reading = () => {};
  const gate = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const hasBegun = new Promise<void>((resolve) => {
    reading = resolve;
  });
  const tier = await open({
    fileSystem: {
      ...files,
      openRead: async (path) => {
        const reader = await files.openRead(path);
        if (reader === null) return null;
        const read: typeof reader.read = async (targets, offset) => {
          const count = await reader.read(targets, offset);
          reading();
          await gate;
          return count;
        };
        return { ...reader, read };
      },
    },
  });
  await put(tier, 1, filled(100, 1));
  await put(tier, 2, filled(100, 1));
  await put(tier, 2, filled(100, 2));
  const cleaning = tier.clean();
  await hasBegun;
  // Now the segment that is cleaned holds nothing that counts, and goes with the tombstone's reason.
  for (const key of [1, 2]) await tier.delete(keyOf(key));
  letGo();
  await cleaning;
  for (const key of [1, 2]) expect(await get(tier, key)).toBeNull();
  expect(tier.stats().objectCount).toBe(0);
  await tier.close();
  const again = await open({ fileSystem: files });
  expect(again.stats().objectCount).toBe(0);
  await again.close();
});

it.each([0, 2 ** 18])(
  "what a failed deletion left is not found again, packed up to %i",
  async (packedBytesMax) => {
    const files = memoryFileSystem();
    let isFailing = false;
    const fail = async (): Promise<never> => {
      throw Object.assign(new Error("EIO"), { code: "EIO" });
    };
    const fileSystem: FileSystem = {
      ...files,
      create: async (path) => {
        const writer = await files.create(path);
        const write: typeof writer.write = (sources, offset) =>
          isFailing ? fail() : writer.write(sources, offset);
        return { ...writer, write };
      },
      remove: (path) => (isFailing ? fail() : files.remove(path)),
    };
    const tier = await open({ fileSystem, packedBytesMax });
    await put(tier, 1, filled(100, 1));
    isFailing = true;
    await expect(tier.delete(keyOf(1))).rejects.toMatchObject({ code: "io" });
    await expect(tier.openRead(keyOf(1))).rejects.toMatchObject({ code: "io" });
    isFailing = false;
    expect(await get(tier, 1)).toBeNull();
    expect(tier.stats().objectCount).toBe(0);
    // What is stored after a failed deletion stays.
    await put(tier, 2, filled(100, 2));
    isFailing = true;
    await expect(tier.delete(keyOf(2))).rejects.toMatchObject({ code: "io" });
    isFailing = false;
    await put(tier, 2, filled(100, 3));
    expect(await get(tier, 2)).toEqual(filled(100, 3));
    await tier.close();
    const again = await open({ fileSystem: files });
    expect(await get(again, 1)).toBeNull();
    expect(await get(again, 2)).toEqual(filled(100, 3));
    await again.close();
  },
);

it("a process that writes is killed, and nothing acknowledged is lost", () => {
  const args = ["scripts/store-kill.mjs", "--cycles", "50", "--seed", "1"];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  expect(`${stdout}${stderr}`).toContain("0 lost, 0 wrong, 0 temporary files left");
  expect(status).toBe(0);
}, 240_000);

describe("a directory that others have written to", () => {
  const id = HOSTILE_ID;

  async function openPlanted({ name, plant }: HostileFixture) {
    const parent = await temporaryDirectory();
    const directory = join(parent, "store");
    const outside = join(parent, "outside");
    await mkdir(directory);
    await writeFile(outside, (await storedRecord(id)).bytes);
    await plant(join(directory, await name()), outside);
    const memory = await openMemory({ budgets: { ram: "8MiB", ssd: "64MiB" }, ssd: { directory } });
    const rssBytes = process.memoryUsage.rss();
    const outcome = await memory.acquire(id).then(
      (lease) => (lease === null ? "missing" : "found"),
      (error: { code: string }) => error.code,
    );
    // It still takes and gives what is its own, room permitting.
    memory.allocate({ kind: "KV_CACHE", byteLength: 1000, id: "own", zero: true });
    expect(["stored", "no-space"]).toContain(await memory.swapOut("own"));
    (await memory.acquire("own", { access: "read" }))?.[Symbol.dispose]();
    await closeMemory(memory);
    expect(process.memoryUsage.rss() - rssBytes).toBeLessThan(96 * 2 ** 20);
    expect((await readdir(parent)).sort()).toEqual(["outside", "store"]);
    expect(hex(await readFile(outside))).toBe(hex((await storedRecord(id)).bytes));
    await rm(parent, { recursive: true });
    return outcome;
  }

  it("counts enough fixtures", () => {
    expect(HOSTILE_FIXTURES.length).toBeGreaterThanOrEqual(60);
  });

  it.each(HOSTILE_FIXTURES)("$what", async (fixture) => {
    const outcome = await openPlanted(fixture);
    expect(["missing", "corruption"]).toContain(outcome);
  });
});

it("objects of every kind are found by another process's opening", async () => {
  const directory = await temporaryDirectory();
  const options = { directory, fileSystem: nodeFileSystem, packedBytesMax: 1000 };
  const first = await open(options);
  for (let key = 0; key < 100; key++) await put(first, key, filled(20 * key + 1, key));
  await first.close();
  await writeFile(join(directory, `${keyOf(200)}.tensor`), filled(10, 5), { mode: 0o600 });
  const second = await open(options);
  expect(second.stats().objectCount).toBe(101);
  for (let key = 0; key < 100; key++)
    expect(await get(second, key)).toEqual(filled(20 * key + 1, key));
  expect(await get(second, 200)).toEqual(filled(10, 5));
  expect(await put(second, 200, filled(20, 6))).toBe("stored");
  await second.close();
  expect(await readdir(directory)).not.toContain(`${keyOf(200)}.tensor`);
});

const GOLDEN_FRAME =
  "5452484601010000020000000100000040000000000000000500000000000000" +
  "abababababababababababababababababababababababababababababababab" +
  "000102030405060708090a0b0c0d0e0f400000000000000086f09e4700000000" +
  "00000000000000000000000000000000000000000000000000000000b03d144f" +
  "0102030405000000000000000000000000000000000000000000000000000000" +
  "0000000000000000000000000000000000000000000000000000000000000000";
const GOLDEN_TABLE =
  "5452484603000000000000000000000000010000000000004000000000000000" +
  "0000000000000000000000000000000000000000000000000000000000000000" +
  "000102030405060708090a0b0c0d0e0f00000000000000006638a1b100000000" +
  "0000000000000000000000000000000000000000000000000000000047f8eba2" +
  "abababababababababababababababababababababababababababababababab" +
  "0200000001000000400000000000000005000000000000000101000000000000" +
  "54524854000000000001000000000000000102030405060708090a0b0c0d0e0f" +
  "00000000000000000000000000000000000000000000000000000000642977b2";
