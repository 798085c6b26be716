// The record format: its bytes are pinned here, and no damage to them gets through.
import { execFileSync } from "node:child_process";
import { link, mkdir, readdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  decodeHeader,
  encodeHeader,
  HEADER_BYTES_MIN,
  recordKey,
} from "../../src/record/record.js";
import { seededRandom } from "../../src/testing/index.js";
import { temporaryDirectory } from "../support/directories.js";
import { closeMemory, openMemory, withSeed } from "../support/oracle.js";
import {
  CONTENT,
  changedHeader,
  HEADER,
  storedRecord,
  verdictOf,
} from "../support/record-files.js";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

describe("the header", () => {
  it("has these bytes, for ever", () => {
    const bytes = encodeHeader(HEADER);
    expect(bytes.byteLength).toBe(256);
    expect(hex(bytes.subarray(0, 160))).toBe(
      "545248310100020000010000000204010101000002000000070000000d000000" +
        "0068e5cf8b010000000002000000000000000200000000000100000000000000" +
        "0800000000000000800000000000000040000000000000000000000000000000" +
        "0000000000000000000000000000000000000000000000000000000000000000" +
        "6d656d6f64656c4031636861742f34322f302e6b657900000000000000000000",
    );
    expect(bytes.subarray(150).every((byte) => byte === 0)).toBe(true);
    expect(decodeHeader(bytes)).toEqual({ verdict: "valid", header: HEADER, headerBytes: 256 });
  });

  it("has these two fields when it expires, for ever", () => {
    const header = { ...HEADER, expiresMs: 1_800_000_000_000 };
    const bytes = encodeHeader(header);
    expect(hex(bytes.subarray(4, 8))).toBe("01000600");
    expect(hex(bytes.subarray(112, 128))).toBe("000000000000000000505c18a3010000");
    expect(decodeHeader(bytes)).toEqual({ verdict: "valid", header, headerBytes: 256 });
    const without = encodeHeader(HEADER);
    for (const place of [6, 120, 121, 122, 123, 124, 125]) without[place] = bytes[place] as number;
    expect(hex(without)).toBe(hex(bytes));
  });

  it("grows with its names, in units of 256 bytes", () => {
    for (const [length, headerBytes] of [
      [0, 256],
      [119, 256],
      [120, 512],
      [49152, 49408],
    ] as const) {
      const header = { ...HEADER, tenant: "me", fingerprint: "model@1", id: "x".repeat(length) };
      const bytes = encodeHeader(header);
      expect(bytes.byteLength).toBe(headerBytes);
      expect(decodeHeader(bytes)).toEqual({ verdict: "valid", header, headerBytes });
    }
  });

  const hostile: readonly [string, string, (view: DataView) => void][] = [
    ["no magic", "damaged", (view) => view.setUint32(0, 0)],
    ["another version", "incompatible", (view) => view.setUint16(4, 2, true)],
    ["unknown flags", "incompatible", (view) => view.setUint16(6, 8, true)],
    ["an expiry at no time", "damaged", (view) => view.setUint16(6, 6, true)],
    ["a time without an expiry", "damaged", (view) => view.setUint8(120, 1)],
    ["a time past 2^53", "damaged", (view) => view.setUint16(126, 0xffff, true)],
    ["another hash", "incompatible", (view) => view.setUint8(17, 2)],
    ["a header of 4 GiB", "damaged", (view) => view.setUint32(8, 2 ** 32 - 1, true)],
    ["a header of nothing", "damaged", (view) => view.setUint32(8, 0, true)],
    ["a header that is not a multiple", "damaged", (view) => view.setUint32(8, 255, true)],
    ["dtype 0", "damaged", (view) => view.setUint8(13, 0)],
    ["dtype 14", "damaged", (view) => view.setUint8(13, 14)],
    ["rank 0", "damaged", (view) => view.setUint8(14, 0)],
    ["rank 9", "damaged", (view) => view.setUint8(14, 9)],
    ["kind 0", "damaged", (view) => view.setUint8(15, 0)],
    ["kind 7", "damaged", (view) => view.setUint8(15, 7)],
    ["layout 3", "damaged", (view) => view.setUint8(16, 3)],
    ["a name of 4 GiB", "damaged", (view) => view.setUint32(20, 2 ** 32 - 1, true)],
    ["a name past the header", "damaged", (view) => view.setUint32(28, 121, true)],
    ["names that end early", "damaged", (view) => view.setUint32(28, 12, true)],
    ["raw bytes of 2^63", "damaged", (view) => view.setBigUint64(40, 2n ** 63n, true)],
    ["raw bytes that disagree", "damaged", (view) => view.setBigUint64(40, 131_074n, true)],
    ["a shape of zero", "damaged", (view) => view.setBigUint64(56, 0n, true)],
    ["a length of 2^53", "damaged", (view) => view.setBigUint64(56, 2n ** 53n, true)],
    ["a byte in the padding", "damaged", (view) => view.setUint8(255, 1)],
    ["a byte in the reserved words", "damaged", (view) => view.setUint8(18, 1)],
    ["a ninth dimension", "damaged", (view) => view.setUint8(120, 1)],
    ["a name that is not UTF-8", "damaged", (view) => view.setUint8(140, 0xff)],
    [
      "a shape whose product wraps to the raw bytes",
      "damaged",
      (view) => {
        [4194305n, 4194305n, 211106198978564n, 1n].forEach((length, index) =>
          view.setBigUint64(56 + index * 8, length, true),
        );
        view.setBigUint64(40, 8n, true);
      },
    ],
  ];

  it.each(hostile)("with %s is %s", (_name, verdict, change) => {
    expect(decodeHeader(changedHeader(change)).verdict).toBe(verdict);
  });

  it("is damaged when it is cut off", () => {
    const bytes = encodeHeader({ ...HEADER, id: "x".repeat(500) });
    for (let length = 0; length < bytes.byteLength; length++) {
      expect(decodeHeader(bytes.subarray(0, length)).verdict).toBe("damaged");
    }
  });

  it("is refused or decodes to what encodes to it, whatever the bytes", async () => {
    await withSeed("random headers", (seed) => {
      const random = seededRandom(seed);
      const original = encodeHeader(HEADER);
      let validCount = 0;
      for (let round = 0; round < 50_000; round++) {
        const bytes = original.slice();
        for (let change = random.uint32() % 4; change >= 0; change--) {
          bytes[random.uint32() % (round % 2 === 0 ? 160 : HEADER_BYTES_MIN)] = random.uint32();
        }
        const decoded = decodeHeader(bytes);
        if (decoded.verdict !== "valid") continue;
        validCount += 1;
        expect(hex(encodeHeader(decoded.header))).toBe(hex(bytes));
      }
      expect(validCount).toBeGreaterThan(500);
    });
  });
});

describe("the key", () => {
  it("has these digits, for ever", async () => {
    expect(recordKey(HEADER, true)).toBe(
      "31023109dbbfb13841350cf3613c33429d0df947b861b99cd5cfff04e65cb2ab",
    );
    expect(recordKey(HEADER, false)).not.toBe(recordKey(HEADER, true));
  });

  it("differs wherever the names differ", async () => {
    const parts = [
      "",
      "a",
      "b",
      "c",
      "ab",
      "bc",
      "abc",
      "\0",
      "a\0",
      "\ufeff",
      "\u00e9",
      "e\u0301",
    ];
    const keys = new Set<string>();
    for (const tenant of parts) {
      for (const fingerprint of parts) {
        for (const id of parts) keys.add(recordKey({ tenant, fingerprint, id }, true));
      }
    }
    expect(keys.size).toBe(parts.length ** 3);
  });
});

describe("a record file", () => {
  it("that was not touched is intact", async () => {
    const { path, bytes } = await storedRecord("a");
    expect(bytes.byteLength).toBe(256 + 8 + 16);
    expect(await verdictOf("a", path, bytes)).toBe("intact");
    expect(hex(bytes.subarray(256, 264))).toBe(hex(CONTENT));
  });

  it("with any bit flipped is corrupt, or of another version", async () => {
    const { path, bytes } = await storedRecord("a");
    const otherVersion = new Set([4, 5, 6, 7, 12, 17]);
    for (let bit = 0; bit < bytes.byteLength * 8; bit++) {
      const flipped = bytes.slice();
      const index = bit >> 3;
      flipped[index] = (flipped[index] as number) ^ (1 << (bit & 7));
      // The three flags that are known change whose record it is, and the digest.
      const isKnownFlag = index === 6 && (bit & 7) < 3;
      // So does the codec of coded records.
      const isKnownCodec = index === 12 && (bit & 7) === 4;
      const isOther = otherVersion.has(index) && !isKnownFlag && !isKnownCodec;
      const expected = isOther ? "incompatible" : "corruption";
      expect(await verdictOf("a", path, flipped), `bit ${bit}`).toBe(expected);
    }
  });

  it("of any other length is corrupt", async () => {
    const { path, bytes } = await storedRecord("a");
    for (let length = 0; length < bytes.byteLength; length++) {
      expect(await verdictOf("a", path, bytes.subarray(0, length)), `${length}`).toBe("corruption");
    }
    for (const extra of [1, 16, 4096]) {
      const longer = new Uint8Array(bytes.byteLength + extra);
      longer.set(bytes);
      expect(await verdictOf("a", path, longer), `+${extra}`).toBe("corruption");
    }
  });

  it("of another tensor, or zeroed, is corrupt", async () => {
    const { path, bytes } = await storedRecord("a");
    const other = await storedRecord("b");
    expect(await verdictOf("a", path, other.bytes)).toBe("corruption");
    expect(await verdictOf("a", path, new Uint8Array(bytes.byteLength))).toBe("corruption");
    expect(await verdictOf("missing", path, bytes)).toBe("missing");
  });
});

describe("something else in place of a record", () => {
  const id = "a";

  async function storeOnDisk() {
    const parent = await temporaryDirectory();
    const directory = join(parent, "store");
    const open = () => openMemory({ budgets: { ram: "8MiB", ssd: "64MiB" }, ssd: { directory } });
    const memory = await open();
    memory.allocate({ kind: "KV_CACHE", byteLength: 8, id, zero: true });
    await memory.save(id);
    await closeMemory(memory);
    // As a version before there were segments left it.
    const { path } = await storedRecord(id);
    const name = path.slice("/store/".length);
    const { bytes } = await storedRecord(id);
    for (const left of await readdir(directory)) await rm(join(directory, left));
    await writeFile(join(directory, name), bytes, { mode: 0o600 });
    return {
      parent,
      open,
      path: join(directory, name),
      outside: join(parent, "outside"),
    };
  }

  const plants: readonly [string, (path: string, outside: string) => Promise<unknown>][] = [
    ["a symbolic link", (path, outside) => symlink(outside, path)],
    ["a hard link", (path, outside) => link(outside, path)],
    ["a directory", (path) => mkdir(path)],
    ["a FIFO", async (path) => execFileSync("mkfifo", [path])],
  ];

  it.each(plants)("%s is not followed", async (_name, plant) => {
    const { open, path, outside, parent } = await storeOnDisk();
    await rename(path, outside);
    await plant(path, outside);
    const memory = await open();
    expect(await memory.acquire(id)).toBeNull();
    expect((await readdir(parent)).sort()).toEqual(["outside", "store"]);
    await closeMemory(memory);
  });

  it("files of others are left alone", async () => {
    const { open, path } = await storeOnDisk();
    const directory = join(path, "..");
    const names = ["README", "x.tensor", "0.tmp", `${"g".repeat(64)}.tensor`];
    for (const name of names) await writeFile(join(directory, name), "mine");
    await closeMemory(await open());
    expect(await readdir(directory)).toEqual(expect.arrayContaining(names));
    await rm(directory, { recursive: true });
  });

  it("temporary files of a dead writer are swept", async () => {
    const { open, path } = await storeOnDisk();
    const left = path.replace(/\.tensor$/, `.${"0".repeat(32)}.tmp`);
    await writeFile(left, "half");
    await closeMemory(await open());
    const names = await readdir(join(path, ".."));
    expect(names.filter((name) => !name.startsWith("lock."))).toHaveLength(1);
  });
});
