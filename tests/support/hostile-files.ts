// Files that somebody else put into a store's directory: links, FIFOs, bombs, frames that lie.
import { execFileSync } from "node:child_process";
import { link, mkdir, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { recordKey } from "../../src/record/record.js";
import {
  bytesOfHex,
  encodeFrame,
  encodeTable,
  type Frame,
  frameBytesOf,
} from "../../src/tier/segment-format.js";
import { type PrivateBytes, privateBytes } from "../../src/util/private-bytes.js";

export interface HostileFixture {
  readonly what: string;
  /** Its name in the directory. */
  name(): Promise<string>;
  /** @param outside A file of somebody else's, which must stay as it is. */
  plant(path: string, outside: string): Promise<unknown>;
}

/** The id whose record the file pretends to hold. */
export const HOSTILE_ID = "a";

function filled(byteLength: number, value: number): PrivateBytes {
  return privateBytes(byteLength).fill(value) as PrivateBytes;
}

const names = async () => {
  const key = recordKey({ tenant: "", fingerprint: "", id: HOSTILE_ID }, true);
  return {
    "an old file": `${key}.tensor`,
    "a file": `${key}.0000000000000005.tensor`,
    "a durable file": `${key}.0000000000000005.durable.tensor`,
    "a segment": `0000000000000005.${"ab".repeat(16)}.1.segment`,
    "a temporary file": `${key}.${"ab".repeat(16)}.tmp`,
    "a quarantined file": `${key}.${"ab".repeat(16)}.damaged`,
    "a lock": "lock.5",
    "the last lock": "lock.999999999999999",
  };
};
type Kind = keyof Awaited<ReturnType<typeof names>>;
const KINDS: Kind[] = [
  ...(["an old file", "a file", "a durable file"] as const),
  ...(["a segment", "a temporary file", "a quarantined file"] as const),
  ...(["a lock", "the last lock"] as const),
];
const segment = (build: (bytes: PrivateBytes) => void, byteLength = 4096) => {
  const bytes = privateBytes(byteLength);
  build(bytes);
  return bytes;
};
const SEGMENT_ID = bytesOfHex("ab".repeat(16));
const object: Frame = {
  kind: "object",
  key: "cd".repeat(32),
  sequence: 9,
  offset: 0,
  payloadBytes: 100,
  isDurable: false,
};
const header = (frame: Partial<Frame>) =>
  segment((bytes) => {
    const whole = { ...object, ...frame, syncedOffset: 0 };
    encodeFrame(bytes.subarray(whole.offset), whole, SEGMENT_ID);
  });

const plants: readonly [string, (path: string, outside: string) => Promise<unknown>][] = [
  ["a link", (path, outside) => symlink(outside, path)],
  ["a broken link", (path) => symlink("/nowhere/at/all", path)],
  ["a link to a directory", (path, outside) => symlink(join(outside, ".."), path)],
  ["a hard link", (path, outside) => link(outside, path)],
  ["a FIFO", async (path) => execFileSync("mkfifo", [path])],
  ["a directory", (path) => mkdir(path)],
  ["nothing", (path) => writeFile(path, "")],
  ["one byte", (path) => writeFile(path, "x")],
  ["garbage", (path) => writeFile(path, filled(5000, 0xa7))],
  [
    "100 GB of nothing",
    async (path) => {
      await writeFile(path, "");
      await truncate(path, 100e9);
    },
  ],
];
const bombs: readonly [string, PrivateBytes][] = [
  ["a frame of 4 PiB", header({ payloadBytes: 2 ** 52 })],
  ["a frame past the end", header({ payloadBytes: 4096 })],
  ["a frame that is one byte too long", header({ payloadBytes: 3969 })],
  ["the last sequence there is", header({ sequence: 2 ** 53 - 1 })],
  ["a sequence behind the limit", header({ sequence: 2 ** 52 + 1 })],
  ["a table in the middle", header({ kind: "table", payloadBytes: 0 })],
  [
    "frames at every place",
    segment((bytes) => {
      for (let offset = 0; offset + 128 <= bytes.byteLength; offset += 128) {
        const frame = {
          ...object,
          payloadBytes: 0,
          offset,
          sequence: offset,
          syncedOffset: 2 ** 52,
        };
        encodeFrame(bytes.subarray(offset), frame, SEGMENT_ID);
      }
    }),
  ],
  [
    "a table of itself",
    segment((bytes) => {
      bytes.set(encodeTable([{ ...object, offset: 0, payloadBytes: 4000 }], 0, SEGMENT_ID));
    }, frameBytesOf(64) + 64),
  ],
];

export const HOSTILE_FIXTURES: readonly HostileFixture[] = [
  ...KINDS.flatMap((kind) =>
    plants.map(([what, plant]) => ({
      what: `${kind} that is ${what}`,
      name: async () => (await names())[kind],
      plant,
    })),
  ),
  ...bombs.map(([what, bytes]) => ({
    what: `a segment with ${what}`,
    name: async () => (await names())["a segment"],
    plant: (path: string) => writeFile(path, bytes),
  })),
];
