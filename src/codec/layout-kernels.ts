// Other orders of the same elements, and other widths: axes exchanged, pages gathered and scattered, f32 to
// and from f16 and bf16. Through the kernels, by way of a workspace of fixed size; or, for views of a
// memory that was named when this was opened, where they lie.
import { CodecWorkspace } from "../core/codec-workspace.js";
import type { KernelExports } from "../core/kernel-exports.js";
import { instantiateKernels } from "../core/kernels-module.js";
import {
  createUnsharedMemory,
  LinearMemory,
  type MemoryFactory,
  type WasmMemory,
} from "../core/linear-memory.js";
import type { WasmSource } from "../core/module-instance.js";
import { MisuseError } from "../errors.js";

/** Elements of 1, 2, 4 or 8 bytes; f16 and bf16 as `Uint16Array`. */
export type Elements =
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array;

export interface LayoutKernelsOptions {
  /** Views of this memory are worked on where they lie. */
  readonly memory?: WasmMemory;
  readonly createMemory?: MemoryFactory;
  /** kernels.wasm; default: the one that the package carries. */
  readonly wasm?: WasmSource;
  /** Bytes of linear memory to work in, at least 64 KiB. Default: 1 MiB. */
  readonly workspaceBytes?: number;
}

/** `[batch, outer, inner, row]`: rows of `row` elements stay together. */
export interface SwapShape {
  /** Default: 1. */
  readonly batch?: number;
  readonly outer: number;
  readonly inner: number;
  /** Default: 1. */
  readonly row?: number;
}

export interface ImageShape {
  readonly images: number;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

export interface HeadShape {
  /** Default: 1. */
  readonly batch?: number;
  readonly heads: number;
  readonly tokens: number;
  readonly headDim: number;
}

/** Pages `[heads, pageTokens, headDim]` beside a tensor `[heads, strideTokens, headDim]`. */
export interface PagedShape {
  readonly heads: number;
  readonly pageTokens: number;
  readonly headDim: number;
  /** Tokens that are copied: the last page may have fewer than the others. */
  readonly tokens: number;
  /** Tokens from one head of the tensor to the next, at least `tokens`. */
  readonly strideTokens: number;
}

export type FloatDtype = "f32" | "f16" | "bf16";

const WORKSPACE_BYTES = 2 ** 20;
const WORKSPACE_BYTES_MIN = 2 ** 16;
/** Rows of so many bytes are copied one by one: nothing is faster. */
const LONG_ROW_BYTES = 4096;
/** Shorter ones are cheaper in one call of a kernel, where they lie, than in a call each. */
const SHORT_ROW_BYTES = 1024;
/** A band of a matrix has at least so many rows or columns; else it is cut into squares. */
const BAND_MIN = 16;
/** Longer blocks would leave the caches that a core has for itself. */
const BLOCK_BYTES_MAX = 2 ** 17;

const bytesOf = (view: Elements) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

function requireCounts(counts: readonly number[]): void {
  for (const count of counts) {
    if (Number.isSafeInteger(count) && count >= 0 && count < 2 ** 31) continue;
    throw new MisuseError("bad-shape", `a shape has whole counts, 0 or more, not ${count}`);
  }
}

function requireLength(view: Elements, count: number, what: string): void {
  if (view.length === count) return;
  throw new MisuseError("bad-size", `the ${what} has ${view.length} elements instead of ${count}`);
}

function requireSameWidth(first: Elements, second: Elements): void {
  if (first.BYTES_PER_ELEMENT === second.BYTES_PER_ELEMENT) return;
  throw new MisuseError("bad-dtype", "source and target have elements of one width");
}

function requireApart(first: Elements, second: Elements): void {
  const isApart =
    first.buffer !== second.buffer ||
    first.byteOffset + first.byteLength <= second.byteOffset ||
    second.byteOffset + second.byteLength <= first.byteOffset;
  if (!isApart) throw new MisuseError("bad-option", "source and target overlap");
}

/**
 * Loads the kernels.
 *
 * @throws {MisuseError} `bad-option` — a workspace of less than 64 KiB.
 * @throws {OutOfMemoryError} The platform has no room for the workspace.
 */
export async function openLayoutKernels(
  options: LayoutKernelsOptions = {},
): Promise<LayoutKernels> {
  const { memory, createMemory = createUnsharedMemory, wasm } = options;
  const { workspaceBytes = WORKSPACE_BYTES } = options;
  if (!(workspaceBytes >= WORKSPACE_BYTES_MIN)) {
    throw new MisuseError("bad-option", "the workspace has at least 64 KiB");
  }
  const workspace = await CodecWorkspace.create(workspaceBytes, createMemory, wasm);
  if (memory === undefined) return new LayoutKernels(workspace, null);
  const kernels = await instantiateKernels(memory, wasm);
  return new LayoutKernels(workspace, { memory: new LinearMemory(memory), kernels });
}

/**
 * Rearranges elements from one view into another.
 *
 * @remarks Every call checks shapes and lengths before it writes: `MisuseError` `bad-shape` for counts that
 *   are none, `bad-size` for a view that is not as long as its shape, `bad-dtype` for elements of two
 *   widths, `bad-option` for views that overlap. Shared memory is read and written as it is: nobody else
 *   may write meanwhile.
 */
export class LayoutKernels {
  readonly #workspace: CodecWorkspace;
  readonly #inPlace: { readonly memory: LinearMemory; readonly kernels: KernelExports } | null;

  /** See {@link openLayoutKernels}. */
  constructor(
    workspace: CodecWorkspace,
    inPlace: { readonly memory: LinearMemory; readonly kernels: KernelExports } | null,
  ) {
    this.#workspace = workspace;
    this.#inPlace = inPlace;
  }

  /** `[images, channels, height, width]` to `[images, height, width, channels]`. */
  nchwToNhwc(source: Elements, target: Elements, shape: ImageShape): void {
    const { images, channels, height, width } = shape;
    requireCounts([images, channels, height, width]);
    this.swapAxes(source, target, { batch: images, outer: channels, inner: height * width });
  }

  /** `[images, height, width, channels]` to `[images, channels, height, width]`. */
  nhwcToNchw(source: Elements, target: Elements, shape: ImageShape): void {
    const { images, channels, height, width } = shape;
    requireCounts([images, channels, height, width]);
    this.swapAxes(source, target, { batch: images, outer: height * width, inner: channels });
  }

  /** `[batch, heads, tokens, headDim]` to `[batch, tokens, heads, headDim]`. */
  headsToTokens(source: Elements, target: Elements, shape: HeadShape): void {
    const { batch = 1, heads, tokens, headDim } = shape;
    this.swapAxes(source, target, { batch, outer: heads, inner: tokens, row: headDim });
  }

  /** `[batch, tokens, heads, headDim]` to `[batch, heads, tokens, headDim]`. */
  tokensToHeads(source: Elements, target: Elements, shape: HeadShape): void {
    const { batch = 1, heads, tokens, headDim } = shape;
    this.swapAxes(source, target, { batch, outer: tokens, inner: heads, row: headDim });
  }

  /** `[batch, outer, inner, row]` to `[batch, inner, outer, row]`. */
  swapAxes(source: Elements, target: Elements, shape: SwapShape): void {
    const { batch = 1, outer, inner, row = 1 } = shape;
    requireCounts([batch, outer, inner, row]);
    const count = batch * outer * inner * row;
    requireLength(source, count, "source");
    requireLength(target, count, "target");
    requireSameWidth(source, target);
    requireApart(source, target);
    if (count === 0) return;
    const rowBytes = row * source.BYTES_PER_ELEMENT;
    const stepBytes = outer * inner * rowBytes;
    const from = this.#inPlace?.memory.tryAddressOf(source) ?? null;
    const to = this.#inPlace?.memory.tryAddressOf(target) ?? null;
    if (this.#inPlace !== null && from !== null && to !== null) {
      for (let at = 0; at < batch * stepBytes; at += stepBytes) {
        this.#inPlace.kernels.axesSwap(from + at, to + at, outer, inner, rowBytes);
      }
      return;
    }
    const sourceBytes = bytesOf(source);
    const targetBytes = bytesOf(target);
    for (let at = 0; at < batch * stepBytes; at += stepBytes) {
      const one = sourceBytes.subarray(at, at + stepBytes);
      this.#swap(one, targetBytes.subarray(at, at + stepBytes), outer, inner, rowBytes);
    }
  }

  /** One matrix of rows, a rectangle that fits the workspace at a time. */
  #swap(source: Uint8Array, target: Uint8Array, outer: number, inner: number, rowBytes: number) {
    if (rowBytes >= LONG_ROW_BYTES) {
      for (let index = 0; index < outer * inner; index++) {
        const place = (index % inner) * outer + Math.floor(index / inner);
        target.set(source.subarray(index * rowBytes, (index + 1) * rowBytes), place * rowBytes);
      }
      return;
    }
    const workspace = this.#workspace;
    const roomBytes = Math.min(BLOCK_BYTES_MAX, (workspace.freeBytes >> 1) - 64);
    const rowCount = Math.floor(roomBytes / rowBytes);
    const outerStep = outerOfBlock(outer, inner, rowCount);
    const innerStep = Math.min(inner, Math.floor(rowCount / outerStep));
    workspace.within(() => {
      const read = workspace.take(roomBytes);
      const written = workspace.take(roomBytes);
      for (let first = 0; first < outer; first += outerStep) {
        const rows = Math.min(outerStep, outer - first);
        for (let left = 0; left < inner; left += innerStep) {
          const columns = Math.min(innerStep, inner - left);
          const block = rows * columns * rowBytes;
          const columnBytes = columns * rowBytes;
          copySlices(
            { bytes: source, start: (first * inner + left) * rowBytes, step: inner * rowBytes },
            { bytes: workspace.bytes(read, block), start: 0, step: columnBytes },
            columnBytes,
            rows,
          );
          workspace.kernels.axesSwap(read, written, rows, columns, rowBytes);
          copySlices(
            { bytes: workspace.bytes(written, block), start: 0, step: rows * rowBytes },
            { bytes: target, start: (left * outer + first) * rowBytes, step: outer * rowBytes },
            rows * rowBytes,
            columns,
          );
        }
      }
    });
  }

  /** Copies the tokens of pages to a tensor; what it has behind them stays as it is. */
  gatherPages(pages: readonly Elements[], target: Elements, shape: PagedShape): void {
    this.#copyPages(pages, target, shape, (page, own, headBytes, stride, bytes) => {
      this.#copyHeads(page, 0, headBytes, target, own, stride, bytes, shape.heads);
    });
  }

  /** Copies tokens of a tensor to pages; what the last page has behind them stays as it is. */
  scatterPages(source: Elements, pages: readonly Elements[], shape: PagedShape): void {
    this.#copyPages(pages, source, shape, (page, own, headBytes, stride, bytes) => {
      this.#copyHeads(source, own, stride, page, 0, headBytes, bytes, shape.heads);
    });
  }

  #copyPages(
    pages: readonly Elements[],
    tensor: Elements,
    shape: PagedShape,
    copy: (
      page: Elements,
      ownOffset: number,
      headBytes: number,
      strideBytes: number,
      bytes: number,
    ) => void,
  ): void {
    const { heads, pageTokens, headDim, tokens, strideTokens } = shape;
    requireCounts([heads, pageTokens, headDim, tokens, strideTokens]);
    if (pageTokens < 1 || tokens > strideTokens) {
      throw new MisuseError("bad-shape", "pages have tokens, and a head has room for all of them");
    }
    if (pages.length !== Math.ceil(tokens / pageTokens)) {
      throw new MisuseError("bad-shape", `${tokens} tokens are not those of ${pages.length} pages`);
    }
    requireLength(tensor, heads * strideTokens * headDim, "tensor");
    for (const page of pages) {
      requireLength(page, heads * pageTokens * headDim, "page");
      requireSameWidth(page, tensor);
      requireApart(page, tensor);
    }
    const rowBytes = headDim * tensor.BYTES_PER_ELEMENT;
    pages.forEach((page, index) => {
      const first = index * pageTokens;
      const bytes = Math.min(pageTokens, tokens - first) * rowBytes;
      copy(page, first * rowBytes, pageTokens * rowBytes, strideTokens * rowBytes, bytes);
    });
  }

  #copyHeads(
    source: Elements,
    sourceOffset: number,
    sourceStep: number,
    target: Elements,
    targetOffset: number,
    targetStep: number,
    bytes: number,
    heads: number,
  ): void {
    const from = this.#inPlace?.memory.tryAddressOf(source) ?? null;
    const to = this.#inPlace?.memory.tryAddressOf(target) ?? null;
    const isShort = bytes < SHORT_ROW_BYTES;
    if (isShort && this.#inPlace !== null && from !== null && to !== null) {
      const { rowsCopy } = this.#inPlace.kernels;
      rowsCopy(from + sourceOffset, sourceStep, to + targetOffset, targetStep, bytes, heads);
      return;
    }
    copySlices(
      { bytes: bytesOf(source), start: sourceOffset, step: sourceStep },
      { bytes: bytesOf(target), start: targetOffset, step: targetStep },
      bytes,
      heads,
    );
  }

  /**
   * Converts floats, to the nearest, ties to even; f16 beyond its range is infinity.
   *
   * @param source `Float32Array` for f32, `Uint16Array` for f16 and bf16; the target likewise.
   */
  convert(source: Elements, from: FloatDtype, target: Elements, to: FloatDtype): void {
    for (const [view, dtype] of [
      [source, from],
      [target, to],
    ] as const) {
      const isRight = dtype === "f32" ? view instanceof Float32Array : view instanceof Uint16Array;
      if (!isRight || !["f32", "f16", "bf16"].includes(dtype)) {
        throw new MisuseError("bad-dtype", `this array has no ${dtype}`);
      }
    }
    requireLength(target, source.length, "target");
    requireApart(source, target);
    const workspace = this.#workspace;
    const sourceBytes = bytesOf(source);
    const targetBytes = bytesOf(target);
    const step = Math.floor((workspace.freeBytes - 256) / 12) & ~63;
    workspace.within(() => {
      const read = workspace.take(step * 4);
      const wide = workspace.take(step * 4);
      const written = workspace.take(step * 4);
      for (let first = 0; first < source.length; first += step) {
        const count = Math.min(step, source.length - first);
        const [sourceWidth, targetWidth] = [source.BYTES_PER_ELEMENT, target.BYTES_PER_ELEMENT];
        const own = sourceBytes.subarray(first * sourceWidth, (first + count) * sourceWidth);
        workspace.bytes(read, own.byteLength).set(own);
        const { kernels } = workspace;
        let at = read;
        if (from !== to && from !== "f32") {
          if (from === "f16") kernels.f16Decode(at, wide, count);
          else kernels.bf16Decode(at, wide, count);
          at = wide;
        }
        if (from !== to && to !== "f32") {
          if (to === "f16") kernels.f16Encode(at, written, count);
          else kernels.bf16Encode(at, written, count);
          at = written;
        }
        targetBytes.set(workspace.bytes(at, count * targetWidth), first * targetWidth);
      }
    });
  }
}

/** Of the rows that fit, how many of the outer axis make a block: as few slices as possible are copied. */
function outerOfBlock(outer: number, inner: number, rowCount: number): number {
  const acrossInner = Math.min(inner, Math.floor(rowCount / outer));
  const alongOuter = Math.min(outer, Math.floor(rowCount / inner));
  const acrossSlices = acrossInner < BAND_MIN ? Infinity : outer * Math.ceil(inner / acrossInner);
  const alongSlices = alongOuter < BAND_MIN ? Infinity : inner * Math.ceil(outer / alongOuter);
  if (acrossInner === inner || acrossSlices < alongSlices) return outer;
  if (alongSlices < Infinity) return alongOuter;
  return Math.min(outer, Math.max(1, Math.floor(Math.sqrt(rowCount))));
}

interface Slices {
  readonly bytes: Uint8Array;
  readonly start: number;
  /** Bytes from one slice to the next. */
  readonly step: number;
}

/** Copies `count` slices, in one piece where they lie together on both sides. */
function copySlices(source: Slices, target: Slices, byteLength: number, count: number): void {
  const isWhole = source.step === byteLength && target.step === byteLength;
  const [bytes, rounds] = isWhole ? [byteLength * count, 1] : [byteLength, count];
  for (let round = 0; round < rounds; round++) {
    const from = source.start + round * source.step;
    target.bytes.set(source.bytes.subarray(from, from + bytes), target.start + round * target.step);
  }
}
