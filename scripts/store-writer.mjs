// A process that writes into a store until it is killed, and what its parent needs to judge what it
// left. Shared by store-kill.mjs and store-power.mjs.
//
//   node scripts/store-writer.mjs DIRECTORY ACKS durable|cache SEED [no-sync]
//
// Eight writers put, overwrite and delete objects of 100 bytes to 400 KiB, packed and in files, while
// the store cleans behind them. Each change is noted in the file ACKS, which lies on another file
// system: `B key version` when it begins, `A key version` when it is acknowledged; version 0 deletes.
import { appendFileSync, closeSync, existsSync, openSync, readFileSync, writeSync } from "node:fs";
import { argv, stdout } from "node:process";
import { fileURLToPath } from "node:url";
import { seededRandom } from "tierheap/testing";
import { nodeFileSystem } from "../dist/src/tier/file-system-node.js";
import { FsTier } from "../dist/src/tier/fs.js";

export const KEY_COUNT = 48;
const WRITER_COUNT = 8;
const HEADER_BYTES = 12;

const keyOf = (index) => index.toString(16).padStart(2, "0").repeat(32);

export function openTier(directory, fileSystem = nodeFileSystem) {
  // Little room, so that segments are short and cleaning has work.
  return new FsTier({ directory, fileSystem, capacityBytes: 64 * 2 ** 20, cleaningShare: 4 });
}

/** An object that says what it is: key, version, length, and a pattern of the three. */
function objectOf(key, version, byteLength) {
  const bytes = new Uint8Array(byteLength);
  const view = new DataView(bytes.buffer);
  let word = (key * 0x9e3779b1 + version) | 0;
  for (let offset = HEADER_BYTES; offset < byteLength; offset++) {
    word = (Math.imul(word, 1664525) + 1013904223) | 0;
    bytes[offset] = word >>> 24;
  }
  view.setUint32(0, key);
  view.setUint32(4, version);
  view.setUint32(8, byteLength);
  return bytes;
}

/** @returns Per key its version, 0 for nothing, -1 for damage. */
export async function readStore(directory) {
  const tier = openTier(directory);
  await tier.open();
  const found = [];
  for (let key = 0; key < KEY_COUNT; key++) {
    const reader = await tier.openRead(keyOf(key));
    if (reader === null) {
      found.push(0);
      continue;
    }
    const bytes = new Uint8Array(reader.byteLength);
    const count = await reader.read(0, bytes);
    await reader.close();
    if (count < HEADER_BYTES) {
      found.push(-1);
      continue;
    }
    const version = new DataView(bytes.buffer).getUint32(4);
    const expected = objectOf(key, version, bytes.byteLength);
    found.push(count === bytes.byteLength && Buffer.compare(bytes, expected) === 0 ? version : -1);
  }
  await tier.close();
  return found;
}

/**
 * What may be found after the writer has ended.
 *
 * @param before Per key the version that was found before it began.
 * @returns Per key the version that was last acknowledged with all that was begun later, and all that
 *   was ever begun; and how many were acknowledged, and under way, at the end. What follows the line
 *   DOWN is not counted.
 */
export function readAcks(path, before) {
  const text = existsSync(path) ? readFileSync(path, "utf8") : "";
  const lines = text.slice(0, text.lastIndexOf("\n") + 1).split("\n");
  const down = lines.indexOf("DOWN");
  const counted = down < 0 ? lines : lines.slice(0, down);
  const keys = before.map((version) => ({ allowed: [version], begun: [version], isOpen: false }));
  let ackCount = 0;
  for (const line of counted) {
    const [type, key, version] = line.split(" ");
    const state = keys[Number(key)];
    if (type === "B") {
      state.allowed.push(Number(version));
      state.begun.push(Number(version));
      state.isOpen = true;
    } else if (type === "A") {
      state.allowed = [Number(version)];
      state.isOpen = false;
      ackCount += 1;
    }
  }
  // What was begun after the cut may be there too, if its bytes came through before it.
  for (const line of down < 0 ? [] : lines.slice(down)) {
    const [type, key, version] = line.split(" ");
    if (type !== "B") continue;
    keys[Number(key)].allowed.push(Number(version));
    keys[Number(key)].begun.push(Number(version));
  }
  return { keys, ackCount, openCount: keys.filter(({ isOpen }) => isOpen).length };
}

async function write(directory, acksPath, isDurable, seed, fileSystem) {
  const tier = openTier(directory, fileSystem);
  await tier.open();
  const acks = openSync(acksPath, "a");
  const note = (text) => writeSync(acks, `${text}\n`);
  const random = seededRandom(seed);
  const draw = (count) => random.uint32() % count;
  let version = seed;
  let isReady = false;
  const change = async (key) => {
    if (draw(12) === 0) {
      note(`B ${key} 0`);
      await tier.delete(keyOf(key));
      note(`A ${key} 0`);
      return;
    }
    version += 1;
    const own = version;
    const byteLength = HEADER_BYTES + (draw(8) === 0 ? 200_000 + draw(200_000) : draw(60_000));
    note(`B ${key} ${own}`);
    const writer = await tier.begin(keyOf(key), byteLength);
    if (writer === "no-space") throw new Error("the store is full");
    await writer.write(objectOf(key, own, byteLength));
    if ((await writer.commit({ durable: isDurable })) === "stored") note(`A ${key} ${own}`);
    if (!isReady) stdout.write("READY\n");
    isReady = true;
  };
  const loop = async (first) => {
    // Each writer has keys of its own: a tier wants the changes of one key one at a time.
    for (;;) await change(first + WRITER_COUNT * draw(KEY_COUNT / WRITER_COUNT));
  };
  await Promise.all(Array.from({ length: WRITER_COUNT }, (_, index) => loop(index)));
  closeSync(acks);
}

const withoutSync = {
  ...nodeFileSystem,
  create: async (path) => ({ ...(await nodeFileSystem.create(path)), sync: async () => {} }),
  syncDirectory: async () => {},
};

if (argv[1] === fileURLToPath(import.meta.url)) {
  const [, , directory, acksPath, mode, seed, mutant] = argv;
  const fileSystem = mutant === "no-sync" ? withoutSync : nodeFileSystem;
  try {
    await write(directory, acksPath, mode === "durable", Number(seed), fileSystem);
  } catch (error) {
    // A file system that was shut down fails every call: the parent has what it needs.
    appendFileSync(acksPath, "");
    console.error(error);
    process.exitCode = 1;
  }
}
