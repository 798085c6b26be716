// The next segment's file, made before it is needed: what that must not change.
import { describe, expect, it } from "vitest";
import { memoryFileSystem, seededRandom } from "../../src/testing/index.js";
import { FsTier } from "../../src/tier/fs.js";
import { frameBytesOf } from "../../src/tier/segment-format.js";
import { type PrivateBytes, privateBytes } from "../../src/util/private-bytes.js";

const CAPACITY_BYTES = 2 ** 22;
const SEGMENT_BYTES = CAPACITY_BYTES / 32;
const OBJECT_BYTES = 2000;
/** So many reach its middle. */
const HALF_COUNT = Math.ceil(SEGMENT_BYTES / 2 / frameBytesOf(OBJECT_BYTES));

const keyOf = (index: number) => index.toString(16).padStart(64, "0");
const filled = (value: number) => privateBytes(OBJECT_BYTES).fill(value & 255) as PrivateBytes;

function storeOn(refuses: () => boolean) {
  const files = memoryFileSystem();
  let creationCount = 0;
  const fileSystem = {
    ...files,
    create: async (path: string) => {
      if (path.endsWith(".segment")) creationCount += 1;
      if (path.endsWith(".segment") && refuses())
        throw Object.assign(new Error("no"), { code: "EIO" });
      return files.create(path);
    },
  };
  const open = async () => {
    const tier = new FsTier({
      ...{ directory: "/store", fileSystem, random: seededRandom(5) },
      ...{ capacityBytes: CAPACITY_BYTES, opensAhead: true },
    });
    await tier.open();
    return tier;
  };
  const segmentCount = () =>
    [...files.files().keys()].filter((path) => path.endsWith(".segment")).length;
  return { files, open, segmentCount, creationCount: () => creationCount };
}

async function put(tier: FsTier, index: number): Promise<void> {
  const writer = await tier.begin(keyOf(index), OBJECT_BYTES);
  if (writer === "no-space") throw new Error(writer);
  await writer.write(filled(index));
  expect(await writer.commit({ durable: false })).toBe("stored");
}

async function expectAll(tier: FsTier, count: number): Promise<void> {
  for (let index = 0; index < count; index++) {
    const reader = await tier.openRead(keyOf(index));
    const bytes = privateBytes(OBJECT_BYTES);
    expect(await reader?.read(0, bytes)).toBe(OBJECT_BYTES);
    expect(Buffer.compare(bytes, filled(index))).toBe(0);
    await reader?.close();
  }
}

describe("a segment's file made ahead", () => {
  it("is there when the one before is full, and gone when it was not needed", async () => {
    const { open, segmentCount, creationCount } = storeOn(() => false);
    const tier = await open();
    for (let index = 0; index < HALF_COUNT; index++) await put(tier, index);
    expect(segmentCount()).toBe(1);
    for (let index = HALF_COUNT; index < HALF_COUNT + 2; index++) await put(tier, index);
    expect(segmentCount()).toBe(2);
    const count = 2 * HALF_COUNT + 2;
    for (let index = HALF_COUNT + 2; index < count; index++) await put(tier, index);
    // The second is written to, and the third is not yet due.
    expect([segmentCount(), creationCount()]).toEqual([2, 2]);
    for (let index = count; index < count + HALF_COUNT; index++) await put(tier, index);
    expect(segmentCount()).toBe(3);
    await tier.close();
    expect(segmentCount()).toBe(2);
    const again = await open();
    await expectAll(again, count + HALF_COUNT);
    await again.close();
  });

  it("that cannot be made is made when it is needed", async () => {
    let isRefusing = false;
    const { open, segmentCount } = storeOn(() => isRefusing);
    const tier = await open();
    await put(tier, 0);
    isRefusing = true;
    for (let index = 1; index < HALF_COUNT + 2; index++) await put(tier, index);
    expect(segmentCount()).toBe(1);
    isRefusing = false;
    const count = 2 * HALF_COUNT + 2;
    for (let index = HALF_COUNT + 2; index < count; index++) await put(tier, index);
    expect(segmentCount()).toBe(2);
    await expectAll(tier, count);
    await tier.close();
  });

  it("is found empty after a crash, and removed", async () => {
    const { open, files, segmentCount } = storeOn(() => false);
    const tier = await open();
    for (let index = 0; index < HALF_COUNT + 2; index++) await put(tier, index);
    expect(segmentCount()).toBe(2);
    const left = new Map([...files.files()].map(([path, bytes]) => [path, bytes.slice()]));
    await tier.close();
    const crashed = storeOn(() => false);
    for (const [path, bytes] of left)
      if (path.endsWith(".segment")) crashed.files.plant(path, bytes as PrivateBytes);
    const again = await crashed.open();
    expect(crashed.segmentCount()).toBe(1);
    await expectAll(again, HALF_COUNT + 2);
    await again.close();
  });
});
