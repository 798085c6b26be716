// What the page of the OPFS tier says to its worker: how reads share messages, and that nothing is written
// behind a part that failed. The worker itself is tested in browsers.
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../src/testing/index.js";
import { MessageBuffers } from "../../src/tier/message-buffers.js";
import type { PartsRead, ReadPart } from "../../src/tier/opfs-messages.js";
import { OpfsReads } from "../../src/tier/opfs-reads.js";
import { WritesBehind, writeInParts } from "../../src/tier/opfs-writes.js";
import {
  type PrivateBytes,
  privateBytes,
  privateCopy,
  privatePart,
} from "../../src/util/private-bytes.js";
import { withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;

function noise(byteLength: number, seed: number): PrivateBytes {
  const bytes = privateBytes(byteLength);
  const random = seededRandom(seed);
  for (let index = 0; index < byteLength; index += 64) bytes[index] = random.uint32();
  return bytes;
}

/** The far side: answers when it is told to, as often as it has been asked. */
function farSide(file: PrivateBytes) {
  const asked: { readonly parts: readonly ReadPart[]; answer(): void; fail(error: Error): void }[] =
    [];
  const send = (parts: readonly ReadPart[], lent: PrivateBytes) =>
    new Promise<PartsRead>((resolve, reject) => {
      const answer = () => {
        let start = 0;
        const outcomes = parts.map(({ number, offset, byteLength }) => {
          const place = lent.subarray(start, start + byteLength);
          start += byteLength;
          if (number === 0) return { code: "EBADF", message: "the file is closed" };
          const part = file.subarray(offset, offset + byteLength);
          place.set(part);
          return part.byteLength;
        });
        resolve({ outcomes, bytes: lent });
      };
      asked.push({ parts, answer, fail: reject });
    });
  return { asked, send };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

async function answerAll(asked: { answer(): void }[]): Promise<number> {
  let messageCount = 0;
  for (await turn(); asked.length > 0; await turn()) {
    messageCount += 1;
    asked.shift()?.answer();
  }
  return messageCount;
}

describe("reads of the OPFS tier", () => {
  it("share messages, and each gets its own bytes", async () => {
    await withSeed("reads that share messages", async (seed) => {
      const file = noise(4 * MIB, seed);
      const { asked, send } = farSide(file);
      const reads = new OpfsReads(send, new MessageBuffers());
      const random = seededRandom(seed);
      const wanted = Array.from({ length: 64 }, () => {
        const offset = random.uint32() % (4 * MIB);
        // Some are cut by the end of the file, some are longer than a message.
        const byteLength = 1 + (random.uint32() % (random.uint32() % 16 === 0 ? MIB : 65_536));
        const targets = [
          privateBytes(byteLength >> 1),
          privateBytes(byteLength - (byteLength >> 1)),
        ];
        return { offset, targets, count: reads.read(1, targets, offset) };
      });
      await turn();
      expect(asked.length).toBe(2);
      expect(await answerAll(asked)).toBeLessThan(16);
      for (const { offset, targets, count } of wanted) {
        const byteLength = targets.reduce((sum, target) => sum + target.byteLength, 0);
        const expected = file.subarray(offset, offset + byteLength);
        expect(await count).toBe(expected.byteLength);
        const found = Buffer.concat(targets).subarray(0, expected.byteLength);
        expect(found.equals(expected)).toBe(true);
      }
    });
  });

  it("fail alone", async () => {
    const { asked, send } = farSide(noise(MIB, 1));
    const reads = new OpfsReads(send, new MessageBuffers());
    const outcomes = [1, 0, 1].map((number) => reads.read(number, [privateBytes(8)], 0));
    outcomes[1]?.catch(() => {});
    expect(await answerAll(asked)).toBe(1);
    expect(await outcomes[0]).toBe(8);
    await expect(outcomes[1]).rejects.toMatchObject({ code: "EBADF" });
    expect(await outcomes[2]).toBe(8);
  });

  it("fail together when the worker ends, also those that were not sent", async () => {
    const { asked, send } = farSide(noise(MIB, 1));
    const reads = new OpfsReads(send, new MessageBuffers());
    const outcomes = Array.from({ length: 9 }, () => reads.read(1, [privateBytes(MIB)], 0));
    const all = Promise.allSettled(outcomes);
    for (await turn(); asked.length > 0; await turn())
      asked.shift()?.fail(new Error("it has ended"));
    expect((await all).map(({ status }) => status)).toEqual(Array(9).fill("rejected"));
  });
});

describe("writes of the OPFS tier", () => {
  /** A file that takes what a worker takes. */
  function openFile(limitBytes: number) {
    const file = { bytes: privateBytes(8 * MIB), byteLength: 0, sentMax: 0 };
    let sentCount = 0;
    const send = async (bytes: PrivateBytes, offset: number, isBehind: boolean) => {
      sentCount += 1;
      file.sentMax = Math.max(file.sentMax, sentCount);
      await turn();
      sentCount -= 1;
      if (isBehind && file.byteLength < offset) return { count: 0, bytes };
      const count = Math.max(0, Math.min(bytes.byteLength, limitBytes - offset));
      file.bytes.set(bytes.subarray(0, count), offset);
      file.byteLength = Math.max(file.byteLength, offset + count);
      return { count, bytes };
    };
    return { file, send };
  }

  it.each([0, 1, 65_536, MIB - 1, MIB, 3 * MIB + 5])(
    "of %d bytes are whole",
    async (byteLength) => {
      const { file, send } = openFile(8 * MIB);
      const source = noise(byteLength, 3);
      const cut = byteLength >> 2;
      const sources = [privatePart(source, 0, cut), privatePart(source, cut, byteLength)];
      expect(await writeInParts(send, new MessageBuffers(), sources, 128)).toBe(byteLength);
      expect(Buffer.compare(file.bytes.subarray(128, 128 + byteLength), source)).toBe(0);
      expect(file.sentMax).toBeLessThanOrEqual(4);
    },
  );

  it.each([0, 5, MIB, 2 * MIB + 7])("leave nothing behind a gap at %d", async (limitBytes) => {
    const { file, send } = openFile(limitBytes);
    const source = noise(4 * MIB, 4);
    expect(await writeInParts(send, new MessageBuffers(), [source], 0)).toBe(limitBytes);
    expect(file.byteLength).toBe(limitBytes);
    expect(Buffer.compare(file.bytes.subarray(0, limitBytes), source.subarray(0, limitBytes))).toBe(
      0,
    );
  });

  it("reject with the first part that failed, when none is under way", async () => {
    let underWay = 0;
    const send = async (bytes: PrivateBytes, offset: number) => {
      underWay += 1;
      await turn();
      underWay -= 1;
      if (offset > 0) throw new Error(`no ${offset}`);
      return { count: bytes.byteLength, bytes };
    };
    const writing = writeInParts(send, new MessageBuffers(), [privateBytes(4 * MIB)], 0);
    await expect(writing).rejects.toThrow("no 524288");
    expect(underWay).toBe(0);
  });

  it("behind their writer are whole, of copies, and few at once", async () => {
    const { file, send } = openFile(8 * MIB);
    const writes = new WritesBehind(send, new MessageBuffers());
    const source = noise(4 * MIB + 3, 5);
    const piece = privateBytes(MIB >> 2);
    for (let offset = 0; offset < source.byteLength; offset += piece.byteLength) {
      const part = source.subarray(offset, offset + piece.byteLength);
      piece.set(part);
      await writes.write(privatePart(piece, 0, part.byteLength), offset);
      piece.fill(0);
    }
    expect(file.byteLength).toBeLessThan(source.byteLength);
    await writes.settle();
    expect(Buffer.compare(file.bytes.subarray(0, source.byteLength), source)).toBe(0);
    expect(file.sentMax).toBe(4);
  });

  it("behind their writer tell what went wrong, and leave nothing behind a gap", async () => {
    const { file, send } = openFile(5);
    const writes = new WritesBehind(send, new MessageBuffers());
    const writing = async () => {
      for (let offset = 0; offset < 64; offset += 8) await writes.write(privateBytes(8), offset);
      await writes.settle();
    };
    await expect(writing()).rejects.toMatchObject({ code: "ENOSPC" });
    expect(file.byteLength).toBe(5);
  });

  it("behind their writer go on where a piece was written in part", async () => {
    const bytes = privateBytes(64);
    let writtenBytes = 0;
    // Takes three bytes at a time.
    const send = async (source: PrivateBytes, offset: number, isBehind: boolean) => {
      await turn();
      if (isBehind && writtenBytes < offset) return { count: 0, bytes: source };
      bytes.set(source.subarray(0, 3), offset);
      const count = Math.min(3, source.byteLength);
      writtenBytes = Math.max(writtenBytes, offset + count);
      return { count, bytes: source };
    };
    const writes = new WritesBehind(send, new MessageBuffers());
    const source = noise(64, 6).map((_value, index) => index);
    for (let offset = 0; offset < 64; offset += 8) {
      await writes.write(privateCopy(source.subarray(offset, offset + 8)), offset);
    }
    await writes.settle();
    expect([...bytes]).toEqual([...source]);
  });

  it("behind their writer fail when they are settled, at the latest", async () => {
    const send = () => Promise.reject(new Error("it has ended"));
    const writes = new WritesBehind(send, new MessageBuffers());
    await writes.write(privateBytes(8), 0);
    await expect(writes.settle()).rejects.toThrow("it has ended");
  });
});
