// Where a safetensors file comes from: anything whose bytes can be read by their place.
import { MisuseError, throwIfAborted } from "../../errors.js";
import { SafetensorsError } from "./safetensors-error.js";

/** Reads ranges of a file: of an HTTP server, of an archive. */
export interface ByteRangeReader {
  /** Length of the file. */
  readonly byteLength: number;
  /**
   * Puts bytes of the file into `target`, which may lie in the heap and must not be touched later.
   *
   * @param target At least one byte; on a memory with `shared: true` it lies on shared memory.
   * @param offset From the beginning of the file.
   * @returns How many bytes were put: from 1 to the length of `target`; 0 if there are none any more.
   */
  readInto(target: Uint8Array, offset: number): Promise<number>;
}

/** A file in memory, a `Blob` or `File`, or what a reader reads. */
export type SafetensorsSource = Uint8Array | Blob | ByteRangeReader;

/** What is read, or copied, between two looks at the signal. */
const CHUNK_BYTES = 2 ** 20;
const NAME = "safetensors";

function bytesReader(bytes: Uint8Array): ByteRangeReader {
  return {
    byteLength: bytes.byteLength,
    readInto: async (target, offset) => {
      const part = bytes.subarray(offset, offset + target.byteLength);
      target.set(part);
      return part.byteLength;
    },
  };
}

function blobReader(blob: Blob): ByteRangeReader {
  return {
    byteLength: blob.size,
    readInto: async (target, offset) => {
      const part = await blob.slice(offset, offset + target.byteLength).arrayBuffer();
      target.set(new Uint8Array(part));
      return part.byteLength;
    },
  };
}

/** @throws {MisuseError} `bad-option` — not a source. */
export function readerOf(source: SafetensorsSource): ByteRangeReader {
  if (source instanceof Uint8Array) return bytesReader(source);
  if (source instanceof Blob) return blobReader(source);
  const { byteLength, readInto } = (source ?? {}) as Partial<ByteRangeReader>;
  if (
    typeof readInto === "function" &&
    Number.isSafeInteger(byteLength) &&
    Number(byteLength) >= 0
  ) {
    return source;
  }
  throw new MisuseError("bad-option", "a source is bytes, a Blob, or a reader of ranges");
}

/**
 * Fills `target` from `offset` on, in chunks.
 *
 * @throws {SafetensorsError} `truncated` — the source has fewer bytes. @throws {TierError} `aborted`.
 * @throws What the reader throws.
 */
export async function readFully(
  reader: ByteRangeReader,
  target: Uint8Array,
  offset: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let done = 0; done < target.byteLength; ) {
    throwIfAborted(signal, NAME);
    const chunk = target.subarray(done, done + CHUNK_BYTES);
    const count = await reader.readInto(chunk, offset + done);
    if (!Number.isInteger(count) || count < 1 || count > chunk.byteLength) {
      const problem = `no bytes from ${offset + done} on`;
      throw new SafetensorsError("truncated", `${problem}: the source is shorter than it said`);
    }
    done += count;
  }
  throwIfAborted(signal, NAME);
}
