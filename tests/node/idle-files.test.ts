// Files whose objects were replaced are written again, and descriptors stay open: what that must not
// change, and what it saves.
import { describe, expect, it } from "vitest";
import { type FileOperation, memoryFileSystem, runStoreWorkload } from "../../src/testing/index.js";
import { FsTier, type FsTierOptions } from "../../src/tier/fs.js";
import type { TierReader } from "../../src/tier/tier.js";
import { type PrivateBytes, privateBytes } from "../../src/util/private-bytes.js";
import { withSeed } from "../support/oracle.js";

const KEY = "ab".repeat(32);
const OTHER_KEY = "cd".repeat(32);

function filled(byteLength: number, value: number): PrivateBytes {
  return privateBytes(byteLength).fill(value) as PrivateBytes;
}

function storeOn(options: Partial<FsTierOptions> = {}) {
  const files = memoryFileSystem();
  const openings: string[] = [];
  const fileSystem = {
    ...files,
    openRead: async (path: string) => {
      openings.push(path);
      return files.openRead(path);
    },
  };
  const tier = new FsTier({ directory: "/store", fileSystem, packedBytesMax: 0, ...options });
  const put = async (key: string, bytes: PrivateBytes) => {
    const writer = await tier.begin(key, bytes.byteLength);
    if (writer === "no-space") return writer;
    await writer.write(bytes);
    const outcome = await writer.commit({ durable: false });
    await writer.abort();
    return outcome;
  };
  const get = async (key: string) => {
    const reader = await tier.openRead(key);
    if (reader === null) return null;
    const bytes = privateBytes(reader.byteLength);
    await reader.read(0, bytes);
    await reader.close();
    return bytes;
  };
  return { files, tier, put, get, openings };
}

const isRecycled = (operation: FileOperation) =>
  operation.type === "rename" &&
  operation.source.endsWith(".tensor") &&
  operation.target.endsWith(".tmp");
const creations = (operations: readonly FileOperation[]) =>
  operations.filter(({ type }) => type === "create").length;

describe("a replaced file", () => {
  it("is written again by the next object of its length", async () => {
    const { files, tier, put, get } = storeOn();
    await tier.open();
    for (let value = 1; value <= 9; value++) {
      await put(KEY, filled(1000, value));
      expect(await get(KEY)).toEqual(filled(1000, value));
    }
    expect(creations(files.operations)).toBeLessThanOrEqual(3);
    expect(files.operations.filter(isRecycled).length).toBeGreaterThanOrEqual(7);
    // Another length needs a file of its own; the object that has one keeps it.
    await put(OTHER_KEY, filled(999, 1));
    expect(await get(OTHER_KEY)).toEqual(filled(999, 1));
    expect(await get(KEY)).toEqual(filled(1000, 9));
    await tier.close();
    expect([...files.files().keys()].every((path) => path.endsWith(".tensor"))).toBe(true);
    expect(files.files().size).toBe(2);
  });

  it("is left alone while somebody reads it", async () => {
    const { tier, put, get } = storeOn();
    await tier.open();
    await put(KEY, filled(1000, 1));
    const reader = (await tier.openRead(KEY)) as TierReader;
    await put(KEY, filled(1000, 2));
    await put(OTHER_KEY, filled(1000, 3));
    const bytes = privateBytes(1000);
    expect(await reader.read(0, bytes)).toBe(1000);
    expect(bytes).toEqual(filled(1000, 1));
    await reader.close();
    expect(await get(KEY)).toEqual(filled(1000, 2));
    await tier.close();
  });

  it("counts in the capacity until it goes, and goes for who needs the room", async () => {
    const capacityBytes = 64 * 1024;
    const { files, tier, put } = storeOn({ capacityBytes });
    await tier.open();
    const onDisk = () =>
      [...files.files().values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    for (let value = 1; value <= 4; value++) await put(KEY, filled(16_000, value));
    // One object and one idle file are there; what is longer than the room beside both fits all the same.
    expect(await put(OTHER_KEY, filled(40_000, 1))).toBe("stored");
    expect(onDisk()).toBeLessThanOrEqual(capacityBytes);
    expect(tier.stats().physicalBytes).toBeLessThanOrEqual(capacityBytes);
    await tier.close();
  });

  it("comes up in the work whose power cuts are explored", async () => {
    await withSeed("recycled files", async (seed) => {
      let count = 0;
      for (let round = 0; round < 8; round++) {
        const options = { seed: seed + round, stepCount: 48, isDurable: round % 2 === 0 };
        count += (await runStoreWorkload(options)).operations.filter(isRecycled).length;
      }
      expect(count).toBeGreaterThan(4);
    });
  });
});

describe("a file that was written", () => {
  it("is read without being opened, few of them at a time", async () => {
    const { tier, put, get, openings } = storeOn();
    await tier.open();
    const keys = Array.from({ length: 80 }, (_, index) => index.toString(16).padStart(64, "0"));
    for (const [index, key] of keys.entries()) await put(key, filled(300, index));
    expect(openings).toEqual([]);
    for (const [index, key] of keys.entries()) expect(await get(key)).toEqual(filled(300, index));
    // The first of them were closed for the later ones.
    expect(openings.length).toBeGreaterThanOrEqual(16);
    await tier.close();
  });
});
