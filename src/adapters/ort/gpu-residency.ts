// Where the caches of one decoder lie: in buffers of the device, in the heap, or in both. Gives them buffers,
// makes others leave when there are none, and moves rows between the two.
import { MisuseError, OutOfMemoryError } from "../../errors.js";
import type { GpuBuffer } from "../../gpu/gpu-device.js";
import type { Pin } from "../../memory/pin.js";
import type { KvEntry } from "../onnx/decoder-graph.js";
import { type CacheSeal, sealId, writeSeal } from "./cache-seal.js";
import type { GpuCachePlan, GpuSet, OrtGpuCache } from "./gpu-cache.js";
import { clearOnDevice, copyOnDevice, type GpuRows, readBack, uploadRows } from "./gpu-rows.js";

/** Counted here, shown by the decoder. */
export interface GpuResidencyStats {
  relayoutCount: number;
  suspendCount: number;
  evictCount: number;
  restoreCount: number;
  readBackBytes: number;
  uploadBytes: number;
}

const DTYPE_BYTES = { f32: 4, f16: 2 } as const;

/** [1, heads, tokens, headDim] */
export function shapeOf({ heads, headDim }: KvEntry, tokens: number): number[] {
  return [1, heads, tokens, headDim];
}

/** Bytes of one head for one token. */
export function rowBytesOf({ headDim, dtype }: KvEntry): number {
  return headDim * DTYPE_BYTES[dtype];
}

/** The caches of one decoder. Its methods run one after the other, under `GpuBuffers.guard`. */
export class GpuResidency {
  readonly #plan: GpuCachePlan;
  readonly #stats: GpuResidencyStats;
  /** Past and present share a set, whose stride is its capacity. */
  readonly #isGrouped: boolean;
  readonly #pageTokens: number;
  /** Those with buffers, in the order of their last use. */
  readonly #onGpu = new Set<OrtGpuCache>();

  constructor(
    plan: GpuCachePlan,
    stats: GpuResidencyStats,
    options: { readonly isGrouped: boolean; readonly pageTokens: number },
  ) {
    this.#plan = plan;
    this.#stats = stats;
    this.#isGrouped = options.isGrouped;
    this.#pageTokens = options.pageTokens;
  }

  /** The cache is about to be freed. */
  forget(cache: OrtGpuCache): void {
    this.#onGpu.delete(cache);
  }

  /** Tokens for which buffers are asked. */
  paged(tokens: number): number {
    return Math.ceil(tokens / this.#pageTokens) * this.#pageTokens;
  }

  /** Buffers for so many tokens, all or none; other caches leave for them, the longest unused first. */
  async acquireSet(cache: OrtGpuCache, tokens: number): Promise<GpuBuffer[]> {
    const { buffers: source, entries } = this.#plan;
    const buffers: GpuBuffer[] = [];
    try {
      for (const entry of entries) {
        const bytes = entry.heads * tokens * rowBytesOf(entry);
        for (;;) {
          try {
            buffers.push(await source.acquire(bytes));
            break;
          } catch (error) {
            if (!(error instanceof OutOfMemoryError) || !(await this.#evictOther(cache)))
              throw error;
          }
        }
      }
    } catch (error) {
      for (const buffer of buffers) source.release(buffer);
      throw error;
    }
    return buffers;
  }

  async #evictOther(cache: OrtGpuCache): Promise<boolean> {
    for (const other of this.#onGpu) {
      if (other.set === null) this.#onGpu.delete(other);
      if (other === cache || other.set === null || other.id === null) continue;
      await other.leaving(() => this.suspend(other));
      this.#stats.evictCount += 1;
      return true;
    }
    return false;
  }

  /** The cache has these buffers now, and no others. */
  give(cache: OrtGpuCache, buffers: readonly GpuBuffer[], stride: number): void {
    cache.releaseBuffers();
    cache.set = { buffers, stride };
    this.#onGpu.delete(cache);
    this.#onGpu.add(cache);
  }

  /** Moves the rows in use to buffers of another stride, on the device. */
  async restride(cache: OrtGpuCache, stride: number): Promise<void> {
    const { device } = this.#plan.buffers;
    const next = await this.acquireSet(cache, this.paged(stride));
    if (this.#isGrouped) clearOnDevice(device, next);
    if (cache.set !== null) {
      const [from, to] = [this.#rowsOf(cache.set), this.#rowsOf({ buffers: next, stride })];
      const pairs = from.map((source, index) => [source, to[index] as GpuRows] as const);
      copyOnDevice(device, pairs, Math.min(cache.tokenCount, stride));
      this.#stats.relayoutCount += 1;
    }
    this.give(cache, next, stride);
  }

  #rowsOf({ buffers, stride }: GpuSet): GpuRows[] {
    return this.#plan.entries.map((entry, index) => ({
      buffer: buffers[index] as GpuBuffer,
      shape: entry,
      rowBytes: rowBytesOf(entry),
      stride,
    }));
  }

  // --- Between the device and the heap -------------------------------------------------------------

  /** Copies a cache out and gives its buffers back. */
  async suspend(cache: OrtGpuCache): Promise<void> {
    await this.copyOut(cache);
    cache.releaseBuffers();
    this.#onGpu.delete(cache);
    this.#stats.suspendCount += 1;
  }

  /** Makes the heap's copy of a cache that of all its tokens. */
  async copyOut(cache: OrtGpuCache): Promise<void> {
    const { memory, buffers, entries } = this.#plan;
    const { set, tokenCount: tokens } = cache;
    if (set === null || cache.copiedTokens === tokens) return;
    const stride = this.paged(tokens);
    const id = cache.id as string;
    if (cache.mustUnseal) await memory.delete(sealId(id));
    cache.mustUnseal = false;
    cache.copy = null;
    for (const each of cache.ids.toReversed()) memory.tensor(each)?.free();
    const leases: Pin<"f32" | "f16">[] = [];
    try {
      for (const [index, entry] of entries.entries()) {
        const bytes = entry.heads * stride * rowBytesOf(entry);
        await memory.reserve({ kind: "KV_CACHE", bytes });
        const tensor = memory.allocate({
          kind: "KV_CACHE",
          id: cache.ids[index] as string,
          shape: shapeOf(entry, stride),
          dtype: entry.dtype,
          zero: true,
        });
        leases.push(tensor.pin());
      }
      await readBack(buffers, this.#rowsOf(set), tokens, (index, head, byteLength) => {
        const { bytes } = leases[index] as Pin<"f32">;
        const start = head * stride * rowBytesOf(entries[index] as KvEntry);
        this.#stats.readBackBytes += byteLength;
        return bytes.subarray(start, start + byteLength);
      });
    } catch (error) {
      for (const lease of leases.splice(0)) lease[Symbol.dispose]();
      for (const each of cache.ids) memory.tensor(each)?.free();
      throw error;
    }
    for (const lease of leases) lease[Symbol.dispose]();
    cache.copy = { tokens, stride, versions: cache.versions() };
    await writeSeal(memory, id, this.sealOf(cache));
  }

  /** What a copy of all its tokens is sealed with. */
  sealOf({ tokens, copy }: OrtGpuCache): CacheSeal {
    return { fingerprint: this.#plan.fingerprint, tokens, stride: copy?.stride ?? 0 };
  }

  /** Puts the heap's copy of a suspended cache into buffers. */
  async bringIn(cache: OrtGpuCache): Promise<void> {
    const { memory } = this.#plan;
    const { device } = this.#plan.buffers;
    const { copy } = cache;
    if (cache.set !== null || copy === null || cache.tokenCount === 0) return;
    const ids = cache.ids.slice(0, -1);
    const leases = await memory.acquireChain<"f32" | "f16">(ids, { access: "read" });
    if (leases === null) throw new MisuseError("freed", "tensors of the cache were freed");
    try {
      cache.checkCopyUntouched(copy);
      const isGrouped = this.#isGrouped;
      const stride = isGrouped ? this.paged(cache.tokenCount + 1) : cache.tokenCount;
      const buffers = await this.acquireSet(cache, this.paged(stride));
      if (isGrouped) clearOnDevice(device, buffers);
      const pairs = this.#rowsOf({ buffers, stride }).map((target, index) => {
        const elements = (leases[index] as Pin<"f32">).view;
        return [{ elements, stride: copy.stride }, target] as const;
      });
      await uploadRows(device, pairs, cache.tokenCount);
      this.give(cache, buffers, stride);
      for (const { shape, rowBytes } of this.#rowsOf({ buffers, stride })) {
        this.#stats.uploadBytes += shape.heads * rowBytes * cache.tokenCount;
      }
      this.#stats.restoreCount += 1;
    } finally {
      for (const lease of leases) lease[Symbol.dispose]();
    }
  }
}
