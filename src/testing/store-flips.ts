// Flips bits in the files of a store, one at a time, and looks whether anything wrong comes back. The
// store's objects say what they are, as those of the crash exploration do; a record's digest finds what
// is changed in the bytes of an object, so only a whole object of another key or version is silent.
import { type Random, seededRandom } from "../random.js";
import { FsTier } from "../tier/fs.js";
import type { TierKey } from "../tier/tier.js";
import { privateBytes } from "../util/private-bytes.js";
import type { Disk } from "./crash-states.js";
import { memoryFileSystem } from "./memory-file-system.js";
import { objectOf, versionOf } from "./store-crashes.js";

export interface FlipReport {
  readonly flipCount: number;
  /** Objects that were read whole and are of another key, or older than the last acknowledged. */
  readonly silentCount: number;
  /** Objects of which the bytes were changed, and the digest of a record would say so. */
  readonly damagedCount: number;
  /** Objects that were not found. */
  readonly missingCount: number;
  readonly unharmedCount: number;
}

const KEY_COUNT = 12;
const DIRECTORY = "/store";

function keyOf(index: number): TierKey {
  return index.toString(16).padStart(2, "0").repeat(32);
}

function openTier(fileSystem: ReturnType<typeof memoryFileSystem>, seed: number): FsTier {
  const random = seededRandom(seed);
  return new FsTier({ directory: DIRECTORY, fileSystem, random, capacityBytes: 96 * 1024 });
}

/**
 * A store of packed objects and files, each key overwritten once.
 *
 * @param isClosed Otherwise its process was killed: the last segment has no table.
 */
export async function flippableStore(seed: number, isClosed: boolean): Promise<Disk> {
  const files = memoryFileSystem();
  const tier = openTier(files, seed);
  await tier.open();
  // What comes last is not looked at: in the last batch damage looks as a torn write does.
  for (const version of [1, 2, 3]) {
    for (let key = 0; key < KEY_COUNT; key++) {
      const isLong = key % 4 === 0 && version < 3;
      const bytes = objectOf(key, version, isLong ? 400 + key : 50 + key);
      if (version === 3 && key > 0) continue;
      const writer = await tier.begin(keyOf(version === 3 ? KEY_COUNT : key), bytes.byteLength);
      if (writer === "no-space") throw new RangeError("the store is full");
      await writer.write(bytes);
      await writer.commit({ durable: true });
    }
  }
  const disk = () => new Map([...files.files()].map(([path, bytes]) => [path, bytes.slice()]));
  const killed = disk();
  await tier.close();
  return isClosed ? disk() : killed;
}

async function readFlipped(disk: Disk, flippedPath: string, bit: number, counts: FlipCounts) {
  const files = memoryFileSystem();
  for (const [path, bytes] of disk) {
    const copy = bytes.slice();
    if (path === flippedPath) copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    files.plant(path, copy);
  }
  const tier = openTier(files, 1);
  await tier.open();
  for (let key = 0; key < KEY_COUNT; key++) {
    const reader = await tier.openRead(keyOf(key));
    if (reader === null) {
      counts.missing += 1;
      continue;
    }
    const bytes = privateBytes(reader.byteLength);
    await reader.read(0, bytes);
    await reader.close();
    const version = versionOf(bytes, key);
    if (version === 2) counts.unharmed += 1;
    else if (version === -1) counts.damaged += 1;
    else counts.silent += 1;
  }
  await tier.close();
}

interface FlipCounts {
  silent: number;
  damaged: number;
  missing: number;
  unharmed: number;
}

/**
 * Flips bits of a store.
 *
 * @param options.flipCount So many at random; or every bit of every file, once.
 */
export async function exploreFlips(
  disk: Disk,
  options: { readonly flipCount: number | "all"; readonly random: Random },
): Promise<FlipReport> {
  const { flipCount, random } = options;
  const counts: FlipCounts = { silent: 0, damaged: 0, missing: 0, unharmed: 0 };
  const bits = [...disk].flatMap(([path, bytes]) =>
    Array.from({ length: bytes.byteLength * 8 }, (_, bit) => ({ path, bit })),
  );
  const flips =
    flipCount === "all"
      ? bits
      : Array.from({ length: flipCount }, () => bits[random.uint32() % bits.length]);
  for (const flip of flips) {
    if (flip !== undefined) await readFlipped(disk, flip.path, flip.bit, counts);
  }
  return {
    flipCount: flips.length,
    silentCount: counts.silent,
    damagedCount: counts.damaged,
    missingCount: counts.missing,
    unharmedCount: counts.unharmed,
  };
}
