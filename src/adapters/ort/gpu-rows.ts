// Moves the rows of a KV tensor [1, heads, tokens, headDim] between buffers, and between a buffer and the
// heap. Heads lie `stride` tokens apart, on either side by its own measure.
import type { GpuBuffers } from "../../cache/gpu-buffers.js";
import type { GpuBuffer, GpuDevice } from "../../gpu/gpu-device.js";
import type { RowShape } from "./layout.js";

/** Rows of one tensor in a buffer. */
export interface GpuRows {
  readonly buffer: GpuBuffer;
  readonly shape: RowShape;
  /** Bytes of a head's row for one token. */
  readonly rowBytes: number;
  readonly stride: number;
}

/** So many bytes are on their way at a time, so that little memory is shared with the GPU's process. */
const CHUNK_BYTES = 16 * 2 ** 20;

/** Copies the first `tokens` rows of each head to another buffer of another stride. */
export function copyOnDevice(
  device: GpuDevice,
  pairs: readonly (readonly [source: GpuRows, target: GpuRows])[],
  tokens: number,
): void {
  if (tokens === 0) return;
  const encoder = device.createCommandEncoder();
  for (const [source, target] of pairs) {
    for (let head = 0; head < source.shape.heads; head++) {
      encoder.copyBufferToBuffer(
        source.buffer,
        head * source.stride * source.rowBytes,
        target.buffer,
        head * target.stride * target.rowBytes,
        tokens * source.rowBytes,
      );
    }
  }
  device.queue.submit([encoder.finish()]);
}

/** Makes buffers zeros: what an earlier owner left may be no number, and would survive a mask. */
export function clearOnDevice(device: GpuDevice, buffers: readonly GpuBuffer[]): void {
  const encoder = device.createCommandEncoder();
  for (const buffer of buffers) encoder.clearBuffer(buffer);
  device.queue.submit([encoder.finish()]);
}

type Elements = Float32Array | Uint16Array;

/** Rows in the heap, pinned. */
export interface HeapRows {
  readonly elements: Elements;
  readonly stride: number;
}

/** Copies the first `tokens` rows of each head from the heap into buffers. */
export async function uploadRows(
  device: GpuDevice,
  pairs: readonly (readonly [source: HeapRows, target: GpuRows])[],
  tokens: number,
): Promise<void> {
  let pendingBytes = 0;
  for (const [{ elements, stride }, target] of pairs) {
    const { heads, headDim } = target.shape;
    for (let head = 0; head < heads; head++) {
      const from = head * stride * headDim;
      const part = elements.subarray(from, from + tokens * headDim);
      device.queue.writeBuffer(
        target.buffer,
        head * target.stride * target.rowBytes,
        // Not every platform takes views of a shared memory.
        (part.buffer instanceof ArrayBuffer ? part : part.slice()) as Float32Array<ArrayBuffer>,
      );
      pendingBytes += part.byteLength;
      if (pendingBytes < CHUNK_BYTES) continue;
      await device.queue.onSubmittedWorkDone();
      pendingBytes = 0;
    }
  }
}

/**
 * Copies the first `tokens` rows of each head out of buffers.
 *
 * @param targetOf Where the rows of one head go, as long as they are.
 */
export async function readBack(
  buffers: GpuBuffers,
  sources: readonly GpuRows[],
  tokens: number,
  targetOf: (index: number, head: number, byteLength: number) => Uint8Array,
): Promise<void> {
  const reads = sources.flatMap(({ buffer, shape, rowBytes, stride }, index) =>
    Array.from({ length: shape.heads }, (_, head) => {
      const target = targetOf(index, head, tokens * rowBytes);
      return buffers.read(buffer, head * stride * rowBytes, target);
    }),
  );
  // Nobody may write there any more when this has ended.
  for (const outcome of await Promise.allSettled(reads)) {
    if (outcome.status === "rejected") throw outcome.reason;
  }
}
