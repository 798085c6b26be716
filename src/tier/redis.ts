// The remote tier on a Redis or Valkey server, or a cluster: `tierheap/tiers/redis`.
//
// An object is a commit record and chunks, all with the same hash tag, so that a cluster keeps them on
// one server. The commit record is written last and names the generation of its chunks: what was cut off
// before is invisible. A prefix belongs to one memory at a time. Format: redis-frames.ts.
import { TierError } from "../errors.js";
import type { Random } from "../random.js";
import type { PrivateBytes } from "../util/private-bytes.js";
import { FailedDeletions } from "./failed-deletions.js";
import { TierMeter } from "./meter.js";
import {
  ChunkFrame,
  type CommitRecord,
  chunkCountOf,
  decodeChunk,
  decodeCommit,
  encodeCommit,
  encodeTombstone,
  GENERATION_BYTES,
} from "./redis-frames.js";
import { type RedisArgument, RedisLink, type RedisPlace } from "./redis-link.js";
import { RedisNames } from "./redis-names.js";
import { checkRedisOptions } from "./redis-options.js";
import { removeRecord, replaceRecord, SCRIPT_KEY_COUNT_MAX } from "./redis-scripts.js";
import type {
  ObjectHints,
  Tier,
  TierCapabilities,
  TierFactory,
  TierKey,
  TierReader,
  TierStats,
  TierWriter,
} from "./tier.js";

export interface RedisTierOptions extends RedisPlace {
  /** Default: `"tierheap"`. Begins every key; no two memories may use one at the same time. */
  readonly prefix?: string;
  /** Default: 1,000. Milliseconds for one call of the tier, from 1 to 600,000. */
  readonly timeoutMs?: number;
  /** Default: none. Milliseconds after which the server drops an object, at least 1. */
  readonly ttlMs?: number;
  /**
   * Default: false. Whether the server has written a change to its device before it acknowledges it, as
   * with `appendfsync always`. Only then may a durable record move there.
   */
  readonly isDurable?: boolean;
  /** Default: 256 KiB. Bytes of one value in the server, from 1 KiB to 16 MiB. */
  readonly chunkBytes?: number;
  /** Default: `"remote"`. */
  readonly name?: string;
}

/** As a memory's `remote` option. Needs the package `ioredis`, which is loaded when the tier is opened. */
export function redisTier(options: RedisTierOptions): TierFactory {
  checkRedisOptions(options);
  return ({ capacityBytes, clock, random }) => {
    const { name = "remote", timeoutMs = TIMEOUT_MS } = options;
    const link = new RedisLink(name, options, timeoutMs, clock);
    return new RedisTier({ ...options, name, capacityBytes, link, random, nowMs: clock.wallMs });
  };
}

const TIMEOUT_MS = 1000;
const CHUNK_BYTES = 2 ** 18;
/** Keys asked for, or deleted, in one call. */
const BATCH_COUNT = 256;
/** How long something that was given up may still be carried out, at least, and in calls. */
const LATE_MS = 60_000;
const LATE_CALL_COUNT = 10;

/** What lies under the name of a commit record. */
interface Found {
  /** null: nothing. */
  readonly bytes: Uint8Array | null;
  /** null: no object. */
  readonly record: CommitRecord | null;
}

interface Parts extends RedisTierOptions {
  readonly name: string;
  readonly capacityBytes: number;
  readonly link: RedisLink;
  readonly random: Random;
  readonly nowMs: () => number;
}

class RedisTier implements Tier {
  readonly name: string;
  readonly capabilities: TierCapabilities;
  readonly #parts: Parts;
  readonly #link: RedisLink;
  readonly #names: RedisNames;
  readonly #chunkBytes: number;
  readonly #meter: TierMeter;
  readonly #expiries = new Map<TierKey, number>();
  readonly #writers = new Set<TierWriter>();
  readonly #condemned = new FailedDeletions();
  /** Keys for which the server may still do what was given up, with when it will have done it. */
  readonly #unsettled = new Map<TierKey, number>();
  /** Keys under which tombstones lie, as far as is known. */
  readonly #tombstones = new Set<TierKey>();
  #isOpen = false;

  constructor(parts: Parts) {
    this.name = parts.name;
    this.#parts = parts;
    this.#link = parts.link;
    this.#names = new RedisNames(parts.prefix ?? "tierheap");
    this.#chunkBytes = parts.chunkBytes ?? CHUNK_BYTES;
    this.#meter = new TierMeter(parts.capacityBytes);
    const hasDurableCommit = parts.isDurable ?? false;
    this.capabilities = {
      isPersistent: true,
      hasDurableCommit,
      needsReadBack: true,
      readsInPlace: false,
    };
  }

  /** Reads what there is, and deletes chunks that no commit record names. */
  async open(): Promise<void> {
    if (this.#isOpen) return;
    this.#link.reopen();
    try {
      const names = await this.#names.scan(this.#link);
      for (let start = 0; start < names.committed.length; start += BATCH_COUNT) {
        const keys = names.committed.slice(start, start + BATCH_COUNT);
        await this.#link.operate(async (call) => {
          const found = await Promise.all(keys.map((key) => this.#readCommit(call, key)));
          for (const [index, { record }] of found.entries()) {
            const key = keys[index] as TierKey;
            if (record === null) continue;
            this.#note(key, record);
            names.chunks.get(key)?.delete(record.generation);
          }
        });
      }
      await this.#sweep(names.chunks);
      this.#isOpen = true;
    } catch (error) {
      this.#link.close();
      throw error;
    }
  }

  async begin(
    key: TierKey,
    byteLength: number,
    hints?: ObjectHints,
  ): Promise<TierWriter | "no-space"> {
    this.#checkOpen();
    this.#forgetExpired();
    if (!this.#meter.tryBegin(byteLength)) return "no-space";
    const generation = this.#drawGeneration();
    const expiresMs = this.#expiryOf(hints?.expiresMs ?? 0);
    const chunkBytes = this.#chunkBytes;
    return this.#track(key, { generation, byteLength, chunkBytes, expiresMs });
  }

  async openRead(key: TierKey): Promise<TierReader | null> {
    this.#checkOpen();
    this.#meter.openReadCount += 1;
    if (this.#condemned.has(key)) await this.#remove(key);
    const { record } = await this.#operate((call) => this.#readCommit(call, key));
    if (record === null) {
      this.#forget(key);
      return null;
    }
    let known: { readonly index: number; readonly payload: Uint8Array } | null = null;
    return {
      byteLength: record.byteLength,
      read: async (offset, target) => {
        this.#checkOpen();
        let filled = 0;
        while (filled < target.byteLength && offset + filled < record.byteLength) {
          const index = Math.floor((offset + filled) / record.chunkBytes);
          if (known?.index !== index) {
            const payload = await this.#readChunk(key, record, index);
            // Replaced or dropped meanwhile: what is missing is for the record's digest to notice.
            if (payload === null) break;
            known = { index, payload };
          }
          const start = offset + filled - index * record.chunkBytes;
          const part = known.payload.subarray(start, start + target.byteLength - filled);
          target.set(part, filled);
          filled += part.byteLength;
        }
        this.#meter.bytesRead += filled;
        return filled;
      },
      close: async () => {
        known = null;
      },
    };
  }

  async delete(key: TierKey): Promise<boolean> {
    this.#checkOpen();
    const existed = await this.#remove(key);
    this.#meter.deleteCount += 1;
    return existed;
  }

  async quarantine(key: TierKey): Promise<void> {
    this.#checkOpen();
    const isThere = await this.#operate(async (call) => {
      if (this.#count(await call("EXISTS", this.#names.of(key))) === 0) return false;
      await call("RENAME", this.#names.of(key), this.#names.ofDamaged(key));
      return true;
    });
    if (!isThere) return;
    this.#forget(key);
    this.#meter.quarantinedCount += 1;
  }

  async *list(): AsyncIterable<TierKey> {
    this.#checkOpen();
    const { committed } = await this.#names.scan(this.#link);
    for (const key of this.#condemned.without(committed)) {
      if (!this.#tombstones.has(key)) yield key;
    }
  }

  /** Bytes are those of the objects; what the server needs around them is not counted. */
  stats(): TierStats {
    return this.#meter.stats();
  }

  async close(): Promise<void> {
    for (const writer of [...this.#writers]) await writer.abort();
    if (this.#isOpen) await this.#condemned.retry((key) => this.#remove(key));
    this.#isOpen = false;
    this.#link.close();
  }

  #track(key: TierKey, record: CommitRecord): TierWriter {
    const { byteLength, chunkBytes, generation } = record;
    const frame = new ChunkFrame(Math.min(chunkBytes, byteLength));
    let written = 0;
    let sentCount = 0;
    let state: "open" | "committing" | "ended" = "open";
    const end = () => {
      if (state === "ended") return;
      state = "ended";
      this.#meter.end(byteLength);
      this.#writers.delete(writer);
    };
    const send = async (): Promise<"written" | "no-space"> => {
      const bytes = frame.seal(generation, sentCount);
      const name = this.#names.ofChunk(key, generation, sentCount);
      const sent = await this.#link.operate((call) => this.#set(call, name, bytes, record));
      if (sent !== "no-space") sentCount += 1;
      else this.#meter.noSpaceCount += 1;
      return sent === "no-space" ? sent : "written";
    };
    const writer: TierWriter = {
      write: async (source: PrivateBytes) => {
        this.#checkOpen();
        if (written + source.byteLength > byteLength) {
          throw new TierError("io", this.name, "the object is longer than announced");
        }
        for (let offset = 0; offset < source.byteLength; ) {
          const part = source.subarray(offset, offset + chunkBytes - frame.filled);
          frame.append(part);
          offset += part.byteLength;
          written += part.byteLength;
          const isFull = frame.filled === chunkBytes || written === byteLength;
          if (isFull && (await send()) === "no-space") return "no-space";
        }
        this.#meter.bytesWritten += source.byteLength;
        return "written";
      },
      commit: async () => {
        this.#checkOpen();
        if (written !== byteLength || sentCount !== chunkCountOf(record)) {
          throw new TierError("io", this.name, "the object is incomplete");
        }
        // From here on it may be there, whatever the answer: its chunks stay.
        state = "committing";
        const outcome = await this.#changing(key, (call) => this.#commit(call, key, record));
        if (outcome === "no-space") {
          this.#meter.noSpaceCount += 1;
          state = "open";
          return outcome;
        }
        end();
        this.#condemned.forget(key);
        this.#note(key, record);
        this.#meter.commitCount += 1;
        return "stored";
      },
      abort: async () => {
        const mayDelete = state === "open" && sentCount > 0 && this.#isOpen;
        end();
        if (!mayDelete) return;
        const names = this.#names.ofChunks(key, record).slice(0, sentCount);
        // What stays is swept at the next opening.
        await this.#link.operate((call) => call("UNLINK", ...names)).catch(() => {});
      },
    };
    this.#writers.add(writer);
    return writer;
  }

  async #commit(call: RedisLink["call"], key: TierKey, record: CommitRecord): Promise<void> {
    const before = await this.#readCommit(call, key);
    const after = encodeCommit(key, record);
    const change = { before: before.bytes, after, expiresMs: record.expiresMs };
    const name = this.#names.of(key);
    if (this.#count(await replaceRecord(call, name, change)) === 0) throw this.#changed();
    this.#tombstones.delete(key);
    if (before.record === null || before.record.generation === record.generation) return;
    const names = this.#names.ofChunks(key, before.record);
    // It is committed; what stays is swept at the next opening.
    await call("UNLINK", ...names).catch(() => {});
  }

  async #set(
    call: RedisLink["call"],
    name: string,
    bytes: Uint8Array,
    { expiresMs }: CommitRecord,
  ): Promise<void> {
    const expiry: RedisArgument[] = expiresMs === 0 ? [] : ["PXAT", expiresMs];
    const reply = await call("SET", name, bytes, ...expiry);
    if (String(reply) !== "OK") throw this.#crossed();
  }

  /** Deletes an object. @returns Whether there was one. @throws {TierError} It may be there still. */
  async #remove(key: TierKey): Promise<boolean> {
    const existed = await this.#condemned.attempt(key, async () => {
      const outcome = await this.#changing(key, async (call) => {
        const { bytes, record } = await this.#readCommit(call, key);
        const untilMs = this.#unsettled.get(key) ?? 0;
        const tombstoneMs = Math.max(0, Math.ceil(untilMs - this.#parts.nowMs()));
        if (record === null && tombstoneMs === 0) return false;
        // At once, so that the commit record never outlives its chunks.
        const chunks = record === null ? [] : this.#names.ofChunks(key, record);
        const names = [this.#names.of(key), ...chunks.slice(0, SCRIPT_KEY_COUNT_MAX - 1)];
        const tombstone = encodeTombstone(key, this.#drawGeneration());
        const change = { before: bytes, tombstone, tombstoneMs };
        if (this.#count(await removeRecord(call, names, change)) === 0) throw this.#changed();
        if (tombstoneMs > 0) this.#tombstones.add(key);
        for (let at = names.length - 1; at < chunks.length; at += SCRIPT_KEY_COUNT_MAX) {
          await call("UNLINK", ...chunks.slice(at, at + SCRIPT_KEY_COUNT_MAX));
        }
        return record !== null;
      });
      if (outcome === "no-space") throw this.#full();
      return outcome;
    });
    this.#forget(key);
    return existed;
  }

  /** Changes a commit record. If that fails, the server may still do it later. */
  async #changing<T>(key: TierKey, work: (call: RedisLink["call"]) => Promise<T>) {
    try {
      return await this.#link.operate(work);
    } catch (error) {
      const { nowMs, timeoutMs = TIMEOUT_MS } = this.#parts;
      for (const [each, untilMs] of this.#unsettled) {
        if (untilMs <= nowMs()) this.#unsettled.delete(each);
      }
      this.#unsettled.set(key, nowMs() + Math.max(LATE_MS, LATE_CALL_COUNT * timeoutMs));
      throw error;
    }
  }

  #drawGeneration(): string {
    const words = Array.from({ length: GENERATION_BYTES / 4 }, () => this.#parts.random.uint32());
    return words.map((word) => word.toString(16).padStart(8, "0")).join("");
  }

  async #readCommit(call: RedisLink["call"], key: TierKey): Promise<Found> {
    const reply = await call("GET", this.#names.of(key));
    this.#tombstones.delete(key);
    if (reply === null) return { bytes: null, record: null };
    if (!(reply instanceof Uint8Array)) throw this.#crossed();
    const decoded = decodeCommit(key, reply);
    if (decoded.verdict === "valid") return { bytes: reply, record: decoded.record };
    if (decoded.verdict === "deleted") {
      this.#tombstones.add(key);
      return { bytes: reply, record: null };
    }
    if (decoded.verdict === "foreign") throw this.#crossed();
    const message = "an object of another version of the format is left alone";
    throw new TierError("incompatible", this.name, message);
  }

  /** @throws {TierError} `io` — what came is not what was asked for, twice. */
  async #readChunk(key: TierKey, record: CommitRecord, index: number): Promise<Uint8Array | null> {
    for (let attempt = 0; ; attempt++) {
      const name = this.#names.ofChunk(key, record.generation, index);
      try {
        return await this.#operate(async (call) => {
          const reply = await call("GET", name);
          if (reply === null) return null;
          const payload = reply instanceof Uint8Array ? decodeChunk(reply, record, index) : null;
          if (payload === null) throw this.#crossed();
          return payload;
        });
      } catch (error) {
        // On another connection it may be right.
        const isCrossed = error instanceof TierError && error.code === "io";
        if (!isCrossed || attempt > 0 || !this.#isOpen) throw error;
      }
    }
  }

  async #operate<T>(work: (call: RedisLink["call"]) => Promise<T>): Promise<T> {
    const result = await this.#link.operate(work);
    if (result === "no-space") throw this.#full();
    return result;
  }

  #count(reply: unknown): number {
    if (typeof reply !== "number") throw this.#crossed();
    return reply;
  }

  #full(): TierError {
    return new TierError("io", this.name, "the server has no memory");
  }

  /** Something that was given up has been carried out meanwhile. */
  #changed(): TierError {
    return new TierError("io", this.name, "the object has changed meanwhile");
  }

  #crossed(): TierError {
    return new TierError("io", this.name, "what came is not an answer to what was asked");
  }

  async #sweep(chunks: ReadonlyMap<TierKey, ReadonlyMap<string, readonly string[]>>) {
    const stray = [...chunks.values()].flatMap((generations) => [...generations.values()]);
    for (const names of stray) await this.#operate((call) => call("UNLINK", ...names));
  }

  #note(key: TierKey, record: CommitRecord): void {
    this.#meter.put(key, record.byteLength);
    if (record.expiresMs > 0) this.#expiries.set(key, record.expiresMs);
    else this.#expiries.delete(key);
  }

  #forget(key: TierKey): void {
    this.#meter.forget(key);
    this.#expiries.delete(key);
  }

  #forgetExpired(): void {
    const nowMs = this.#parts.nowMs();
    for (const [key, expiresMs] of this.#expiries) if (expiresMs <= nowMs) this.#forget(key);
  }

  #expiryOf(expiresMs: number): number {
    const { ttlMs } = this.#parts;
    if (ttlMs === undefined) return expiresMs;
    const ownMs = Math.ceil(this.#parts.nowMs()) + ttlMs;
    return expiresMs === 0 ? ownMs : Math.min(ownMs, expiresMs);
  }

  #checkOpen(): void {
    if (!this.#isOpen) throw new TierError("closed", this.name, "the tier is closed");
  }
}
