// Tensors of one MiB and more beside plain files.
import { mkdirSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { createTensorMemory } from "tierheap";
import { nodeFileSystem } from "../../dist/src/tier/file-system-node.js";
import { FsTier } from "../../dist/src/tier/fs.js";
import { printFeatures } from "../features.mjs";
import { median } from "../support.mjs";
import {
  add,
  CHUNK_BYTES,
  hasher,
  isQuick,
  keyOf,
  MIB,
  medianRatio,
  randomBytes,
  root,
  roundCount,
  timed,
} from "./common.mjs";

/** Nothing: what both sides do where the checksum is left out. */
const unhashed = { update: () => {}, end: () => {} };

async function plainWrite(path, bytes, chunkBytes, stream) {
  const handle = await open(path, "wx");
  for (let offset = 0; offset < bytes.byteLength; offset += chunkBytes) {
    const chunk = bytes.subarray(offset, offset + chunkBytes);
    stream.update(chunk);
    await handle.write(chunk, 0, chunk.byteLength, offset);
  }
  stream.end();
  await handle.close();
}

async function plainRead(path, target, chunkBytes, stream) {
  const handle = await open(path);
  for (let offset = 0; offset < target.byteLength; offset += chunkBytes) {
    const chunk = target.subarray(offset, offset + chunkBytes);
    await handle.read(chunk, 0, chunk.byteLength, offset);
    stream.update(chunk);
  }
  stream.end();
  await handle.close();
}

/** The tier as transfers use it, without their checksum: written through private memory. */
async function tierWrite(tier, key, bytes, chunks) {
  const writer = await tier.begin(key, bytes.byteLength);
  let writing;
  for (let offset = 0, turn = 0; offset < bytes.byteLength; turn++) {
    const chunk = chunks[turn % chunks.length].subarray(0, bytes.byteLength - offset);
    chunk.set(bytes.subarray(offset, offset + chunk.byteLength));
    await writing;
    writing = writer.write(chunk);
    offset += chunk.byteLength;
  }
  await writing;
  await writer.commit({ durable: false });
}

/** The same: read straight to where the bytes belong. */
async function tierRead(tier, key, target) {
  const reader = await tier.openRead(key);
  for (let offset = 0; offset < target.byteLength; offset += MIB) {
    await reader.read(offset, target.subarray(offset, offset + MIB));
  }
  await reader.close();
}

/**
 * Swap-out and acquire of whole tensors beside plain files of the same length, one at a time; in every
 * other round the other way round. Each side has memory of its own for every tensor. What the store writes
 * replaces what it wrote in the round before; plain files are new.
 */
export async function large() {
  for (const mib of isQuick ? [1, 4, 64] : [1, 4, 16, 64]) {
    const byteLength = mib * MIB;
    const count = Math.max(2, Math.min(16, 64 / mib));
    const sources = randomBytes(count * byteLength);
    const targets = new Uint8Array(count * byteLength).fill(1);
    const part = (bytes, index) => bytes.subarray(index * byteLength, (index + 1) * byteLength);
    const times = { write: [], read: [], writeBare: [], readBare: [] };
    const plainTimes = CHUNK_BYTES.map(() => ({
      write: [],
      read: [],
      writeBare: [],
      readBare: [],
    }));
    const chunks = [new Uint8Array(MIB / 4), new Uint8Array(MIB / 4)];
    const bare = join(root, `bare-${mib}`);
    const tier = new FsTier({ directory: bare, fileSystem: nodeFileSystem });
    await tier.open();
    const directory = join(root, `store-${mib}`);
    const memory = await createTensorMemory({
      budgets: { ram: 2 * (count + 2) * byteLength + 64 * MIB, ssd: "16GiB" },
      ssd: { directory },
    });
    for (let index = 0; index < count; index++) {
      const pin = memory.allocate({ kind: "KV_CACHE", byteLength, id: `t${index}` }).pin();
      pin.view.set(part(sources, index));
      pin[Symbol.dispose]();
    }
    const plainRound = async (note) => {
      for (const [choice, chunkBytes] of CHUNK_BYTES.entries()) {
        const plain = join(root, `plain-${mib}`);
        const path = (index) => join(plain, keyOf(index));
        for (const [suffix, stream] of [
          ["", () => hasher.open()],
          ["Bare", () => unhashed],
        ]) {
          mkdirSync(plain);
          const write = (index) =>
            plainWrite(path(index), part(sources, index), chunkBytes, stream());
          const read = (index) =>
            plainRead(path(index), part(targets, index), chunkBytes, stream());
          const writeMs = await timed(count, 1, write);
          note(plainTimes[choice], `write${suffix}`, writeMs);
          note(plainTimes[choice], `read${suffix}`, await timed(count, 1, read));
          rmSync(plain, { recursive: true });
        }
      }
    };
    const storeRound = async (note) => {
      const write = (index) => tierWrite(tier, keyOf(index), part(sources, index), chunks);
      const read = (index) => tierRead(tier, keyOf(index), part(targets, index));
      note(times, "writeBare", await timed(count, 1, write));
      note(times, "readBare", await timed(count, 1, read));
      // Each has been written to since: so the acquire of the round before says.
      note(times, "write", await timed(count, 1, (index) => memory.swapOut(`t${index}`)));
      const restore = async (index) => (await memory.acquire(`t${index}`))[Symbol.dispose]();
      note(times, "read", await timed(count, 1, restore));
    };
    // The first round is not counted.
    for (let round = -1; round < roundCount; round++) {
      const note = (list, name, ms) => round >= 0 && list[name].push(ms);
      const sides = round % 2 === 0 ? [plainRound, storeRound] : [storeRound, plainRound];
      for (const side of sides) await side(note);
      globalThis.gc?.();
    }
    await tier.close();
    rmSync(bare, { recursive: true });
    printFeatures(memory.stats());
    await memory.close();
    rmSync(directory, { recursive: true });
    const rate = (list) => (count * byteLength) / 1000 / median(list);
    /** The faster way of plain files. */
    const plainOf = (name) =>
      plainTimes
        .map((each) => each[name])
        .reduce((left, right) => (median(left) <= median(right) ? left : right));
    add(`large/${mib}-mib/spill`, rate(times.write), "MB/s");
    add(`large/${mib}-mib/restore`, rate(times.read), "MB/s");
    add(`large/${mib}-mib/plain-write`, rate(plainOf("write")), "MB/s");
    add(`large/${mib}-mib/plain-read`, rate(plainOf("read")), "MB/s");
    const over = (id, name, target, beside) => {
      const value = medianRatio(plainOf(name), times[name]);
      add(`large/${mib}-mib/${id}-over-plain`, value, "ratio", target, beside);
    };
    over("spill", "write", 0.8, "plain fs, same hash");
    over("restore", "read", 0.8, "plain fs, same hash");
    over("tier-write", "writeBare", 0.9, "neither hashes");
    over("tier-read", "readBare", 0.9, "neither hashes");
  }
}
