// The codec `plane`: lossless, for any bytes. Planes of equal significance, each with a Huffman code of
// its own where that pays, in chunks that can be read alone.
import { type CodecWorkspace, HUFFMAN_SCRATCH_BYTES } from "../core/codec-workspace.js";
import type { Dtype } from "../types.js";
import { CHUNK_BYTES, roundUp } from "./format.js";

const MODE_RAW = 0;
const MODE_CONST = 1;
const MODE_HUFFMAN = 2;
const PLANE_HEADER_BYTES = 8;
const LENGTHS_BYTES = 128;
const SIZES_BYTES = 16;
/** A code that saves less than this share of a plane is not worth its time. */
const RAW_SHARE = 7.8 / 8;
/** Bytes that wide loads and stores may touch behind a stream. */
const SLACK_BYTES = 16;

/** How the elements of a type are split. */
interface Split {
  readonly planeCount: number;
  readonly isTurned: boolean;
}

function splitOf(dtype: Dtype, elementBytes: number): Split {
  const isFloat = dtype === "f32" || dtype === "f16" || dtype === "bf16";
  return { planeCount: Math.min(4, elementBytes), isTurned: isFloat };
}

/** Most bytes that a chunk of `chunkBytes` can become. */
export function planeBytesMax(chunkBytes: number): number {
  return chunkBytes + 4 * (PLANE_HEADER_BYTES + 8);
}

function split(
  { kernels }: CodecWorkspace,
  { planeCount, isTurned }: Split,
  source: number,
  count: number,
  planes: number,
): number {
  const turned = isTurned ? 1 : 0;
  if (planeCount === 1) return source;
  if (planeCount === 2) kernels.planeSplit2(source, count, turned, planes, planes + count);
  else kernels.planeSplit4(source, count, turned, planes, count);
  return planes;
}

/**
 * Encodes one chunk.
 *
 * @param source Address of at most {@link CHUNK_BYTES} bytes, whole elements.
 * @param target Room for {@link planeBytesMax} bytes and {@link CHUNK_BYTES} more.
 * @returns Bytes written, a multiple of 8.
 */
export function encodeChunk(
  workspace: CodecWorkspace,
  source: number,
  byteLength: number,
  dtype: Dtype,
  elementBytes: number,
  target: number,
): number {
  return workspace.within(() => {
    const shape = splitOf(dtype, elementBytes);
    const count = byteLength / shape.planeCount;
    const space = workspace.take(byteLength + SLACK_BYTES);
    const planes = split(workspace, shape, source, count, space);
    const scratch = workspace.take(HUFFMAN_SCRATCH_BYTES);
    let at = target;
    for (let plane = 0; plane < shape.planeCount; plane++) {
      at += encodePlane(workspace, planes + plane * count, count, at, scratch);
    }
    return at - target;
  });
}

function encodePlane(
  workspace: CodecWorkspace,
  source: number,
  count: number,
  target: number,
  scratch: number,
): number {
  const { kernels } = workspace;
  const data = target + PLANE_HEADER_BYTES;
  const streams = data + LENGTHS_BYTES + SIZES_BYTES;
  kernels.huffmanCount(source, count, scratch);
  const bits = kernels.huffmanLengths(scratch, data);
  let mode = MODE_RAW;
  let byteLength = count;
  if (bits === 0) {
    mode = MODE_CONST;
    byteLength = 1;
    workspace.bytes(data, 1).set(workspace.bytes(source, 1));
  } else if (bits / 8 + LENGTHS_BYTES + SIZES_BYTES < count * RAW_SHARE) {
    mode = MODE_HUFFMAN;
    const { huffmanEncode } = kernels;
    const sizes = data + LENGTHS_BYTES;
    byteLength = huffmanEncode(source, count, data, streams, sizes, scratch);
    byteLength += LENGTHS_BYTES + SIZES_BYTES;
  } else {
    workspace.bytes(data, count).set(workspace.bytes(source, count));
  }
  const padded = roundUp(byteLength, 8);
  workspace.bytes(data + byteLength, padded - byteLength).fill(0);
  workspace.u32(target, 2).set([mode, byteLength]);
  return PLANE_HEADER_BYTES + padded;
}

/**
 * Decodes one chunk.
 *
 * @param source Address of a multiple of 8; 16 bytes behind it may be read.
 * @param byteLength Bytes of the original.
 * @returns False if the chunk is malformed.
 */
export function decodeChunk(
  workspace: CodecWorkspace,
  source: number,
  sourceBytes: number,
  byteLength: number,
  dtype: Dtype,
  elementBytes: number,
  target: number,
): boolean {
  return workspace.within(() => {
    const { kernels } = workspace;
    const { planeCount, isTurned } = splitOf(dtype, elementBytes);
    const count = byteLength / planeCount;
    const planes = planeCount === 1 ? target : workspace.take(byteLength + SLACK_BYTES);
    const scratch = workspace.take(HUFFMAN_SCRATCH_BYTES);
    const end = source + sourceBytes;
    const turned = isTurned ? 1 : 0;
    let at = source;
    let lowest = planes;
    for (let plane = 0; plane < planeCount; plane++) {
      // Of two planes, a low one that lies there as it is needs no copy.
      if (plane === 0 && planeCount === 2 && isRaw(workspace, at, end, count)) {
        lowest = at + PLANE_HEADER_BYTES;
        at += PLANE_HEADER_BYTES + roundUp(count, 8);
        continue;
      }
      const used = decodePlane(workspace, at, end, planes + plane * count, count, scratch);
      if (used === 0) return false;
      at += used;
    }
    if (at !== end) return false;
    if (planeCount === 2) kernels.planeJoin2(lowest, planes + count, count, turned, target);
    if (planeCount === 4) kernels.planeJoin4(planes, count, count, turned, target);
    return true;
  });
}

/** Whether a whole plane as it is begins at `source`. */
function isRaw(workspace: CodecWorkspace, source: number, end: number, count: number): boolean {
  if (end - source < PLANE_HEADER_BYTES + roundUp(count, 8)) return false;
  const [mode, byteLength] = workspace.u32(source, 2);
  return mode === MODE_RAW && byteLength === count;
}

/** @returns Bytes used, or 0 if the plane is malformed. */
function decodePlane(
  workspace: CodecWorkspace,
  source: number,
  end: number,
  target: number,
  count: number,
  scratch: number,
): number {
  if (end - source < PLANE_HEADER_BYTES) return 0;
  const [mode, byteLength = 0] = workspace.u32(source, 2);
  const data = source + PLANE_HEADER_BYTES;
  const padded = roundUp(byteLength, 8);
  if (padded > end - data) return 0;
  const output = workspace.bytes(target, count);
  if (mode === MODE_CONST) {
    if (byteLength !== 1) return 0;
    output.fill(workspace.bytes(data, 1)[0] as number);
  } else if (mode === MODE_RAW) {
    if (byteLength !== count) return 0;
    output.set(workspace.bytes(data, count));
  } else if (mode === MODE_HUFFMAN) {
    const sizes = data + LENGTHS_BYTES;
    const streams = sizes + SIZES_BYTES;
    if (byteLength < LENGTHS_BYTES + SIZES_BYTES) return 0;
    const total = workspace.u32(sizes, 4).reduce((sum, bytes) => sum + bytes, 0);
    if (total !== byteLength - LENGTHS_BYTES - SIZES_BYTES) return 0;
    const { huffmanDecode } = workspace.kernels;
    const limit = end + SLACK_BYTES;
    if (huffmanDecode(streams, limit, data, sizes, target, count, scratch) !== 1) return 0;
  } else return 0;
  return PLANE_HEADER_BYTES + padded;
}

/** Lengths of the chunks of `totalBytes`, in order. */
export function chunkLengths(totalBytes: number): number[] {
  const lengths: number[] = [];
  for (let offset = 0; offset < totalBytes; offset += CHUNK_BYTES) {
    lengths.push(Math.min(CHUNK_BYTES, totalBytes - offset));
  }
  return lengths;
}
