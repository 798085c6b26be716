// What the sections of the store's bench share: options, figures, timing, bytes.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Hasher } from "../../dist/src/core/hash-stream.js";
import { createUnsharedMemory } from "../../dist/src/core/linear-memory.js";
import { median } from "../support.mjs";

export const { values } = parseArgs({
  options: {
    only: { type: "string", multiple: true },
    quick: { type: "boolean" },
    rounds: { type: "string" },
    json: { type: "string" },
  },
});
export const isQuick = values.quick === true;
export const roundCount = Number(values.rounds ?? (isQuick ? 3 : 7));
export const KIB = 1024;
export const MIB = 2 ** 20;
export const CALLER_COUNT = 32;
export const SMALL_BYTES = 64 * KIB;
/** Plain files are written and read in both; the faster one counts. */
export const CHUNK_BYTES = [64 * KIB, MIB / 2];

export const root = mkdtempSync(
  join(process.env.TIERHEAP_BENCH_DIR ?? tmpdir(), "tierheap-bench-"),
);
export const hasher = await Hasher.create(CALLER_COUNT, createUnsharedMemory);
export const figures = [];
export const add = (id, value, unit, target, beside) => {
  const met = target === undefined ? undefined : value >= target;
  figures.push({
    id: `store/${id}`,
    value,
    unit,
    ...(target !== undefined && { target, met }),
    beside,
  });
};

/** The hash of the store, over all bytes at once. */
export function hash(bytes) {
  const stream = hasher.open();
  stream.update(bytes);
  return stream.end();
}

export const keyOf = (index) => index.toString(16).padStart(64, "0");

/** Processor time of this process in the last {@link timed}, in milliseconds. */
let processorMs = 0;

export const lastProcessorMs = () => processorMs;

/** Runs work for each index, so many at once. @returns Milliseconds. */
export async function timed(count, callerCount, work) {
  let next = 0;
  const caller = async () => {
    while (next < count) await work(next++);
  };
  const usage = process.cpuUsage();
  const startMs = performance.now();
  await Promise.all(Array.from({ length: callerCount }, caller));
  const wallMs = performance.now() - startMs;
  const { user, system } = process.cpuUsage(usage);
  processorMs = (user + system) / 1000;
  return wallMs;
}

/** What no codec shortens: as KV of real models, nearly. */
export function randomBytes(byteLength) {
  const bytes = new Uint8Array(byteLength);
  for (let offset = 0; offset < byteLength; offset += SMALL_BYTES) {
    crypto.getRandomValues(bytes.subarray(offset, offset + SMALL_BYTES));
  }
  return bytes;
}

/** The median of what each round says for itself: what is compared is close in time. */
export function medianRatio(slow, fast) {
  return median(slow.map((ms, round) => ms / fast[round]));
}
