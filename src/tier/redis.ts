// The remote tier on a Redis or Valkey server, or a cluster: `tierheap/tiers/redis`.
//
// An object is a commit record and chunks, all with the same hash tag, so that a cluster keeps them on
// one server. The commit record is written last and names the generation of its chunks: what was cut off
// before is invisible. A prefix belongs to one memory at a time. Format: redis-frames.ts.
import { MisuseError, TierError } from "../errors.js";
import type { Random } from "../random.js";
import type { PrivateBytes } from "../util/private-bytes.js";
import { TierMeter } from "./meter.js";
import {
  ChunkFrame,
  type CommitRecord,
  chunkCountOf,
  decodeChunk,
  decodeCommit,
  encodeCommit,
  GENERATION_BYTES,
} from "./redis-frames.js";
import { type RedisArgument, RedisLink, type RedisPlace } from "./redis-link.js";
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
  checkOptions(options);
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
  readonly #prefix: string;
  readonly #chunkBytes: number;
  readonly #meter: TierMeter;
  readonly #expiries = new Map<TierKey, number>();
  readonly #writers = new Set<TierWriter>();
  #isOpen = false;

  constructor(parts: Parts) {
    this.name = parts.name;
    this.#parts = parts;
    this.#link = parts.link;
    this.#prefix = parts.prefix ?? "tierheap";
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
      const names = await this.#scan();
      for (let start = 0; start < names.committed.length; start += BATCH_COUNT) {
        const keys = names.committed.slice(start, start + BATCH_COUNT);
        await this.#link.operate(async (call) => {
          const found = await Promise.all(keys.map((key) => this.#readCommit(call, key)));
          for (const [index, record] of found.entries()) {
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
    const words = Array.from({ length: GENERATION_BYTES / 4 }, () => this.#parts.random.uint32());
    const generation = words.map((word) => word.toString(16).padStart(8, "0")).join("");
    const expiresMs = this.#expiryOf(hints?.expiresMs ?? 0);
    const chunkBytes = this.#chunkBytes;
    return this.#track(key, { generation, byteLength, chunkBytes, expiresMs });
  }

  async openRead(key: TierKey): Promise<TierReader | null> {
    this.#checkOpen();
    this.#meter.openReadCount += 1;
    const record = await this.#operate((call) => this.#readCommit(call, key));
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
    const existed = await this.#operate(async (call) => {
      const record = await this.#readCommit(call, key);
      if (record === null) return false;
      // At once, so that the commit record never outlives its chunks.
      const names = [this.#nameOf(key), ...this.#chunkNames(key, record)];
      return this.#count(await call("UNLINK", ...names)) > 0;
    });
    this.#forget(key);
    this.#meter.deleteCount += 1;
    return existed;
  }

  async quarantine(key: TierKey): Promise<void> {
    this.#checkOpen();
    const isThere = await this.#operate(async (call) => {
      if (this.#count(await call("EXISTS", this.#nameOf(key))) === 0) return false;
      await call("RENAME", this.#nameOf(key), this.#damagedNameOf(key));
      return true;
    });
    if (!isThere) return;
    this.#forget(key);
    this.#meter.quarantinedCount += 1;
  }

  async *list(): AsyncIterable<TierKey> {
    this.#checkOpen();
    yield* (await this.#scan()).committed;
  }

  /** Bytes are those of the objects; what the server needs around them is not counted. */
  stats(): TierStats {
    return this.#meter.stats();
  }

  async close(): Promise<void> {
    this.#isOpen = false;
    for (const writer of [...this.#writers]) await writer.abort();
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
      const name = this.#chunkName(key, generation, sentCount);
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
        const outcome = await this.#link.operate((call) => this.#commit(call, key, record));
        if (outcome === "no-space") {
          this.#meter.noSpaceCount += 1;
          state = "open";
          return outcome;
        }
        end();
        this.#note(key, record);
        this.#meter.commitCount += 1;
        return "stored";
      },
      abort: async () => {
        const mayDelete = state === "open" && sentCount > 0 && this.#isOpen;
        end();
        if (!mayDelete) return;
        const names = this.#chunkNames(key, record).slice(0, sentCount);
        // What stays is swept at the next opening.
        await this.#link.operate((call) => call("UNLINK", ...names)).catch(() => {});
      },
    };
    this.#writers.add(writer);
    return writer;
  }

  async #commit(call: RedisLink["call"], key: TierKey, record: CommitRecord): Promise<void> {
    const before = await this.#readCommit(call, key);
    await this.#set(call, this.#nameOf(key), encodeCommit(key, record), record);
    if (before === null || before.generation === record.generation) return;
    const names = this.#chunkNames(key, before);
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

  async #readCommit(call: RedisLink["call"], key: TierKey): Promise<CommitRecord | null> {
    const reply = await call("GET", this.#nameOf(key));
    if (reply === null) return null;
    if (!(reply instanceof Uint8Array)) throw this.#crossed();
    const decoded = decodeCommit(key, reply);
    if (decoded.verdict === "valid") return decoded.record;
    if (decoded.verdict === "foreign") throw this.#crossed();
    const message = "an object of another version of the format is left alone";
    throw new TierError("incompatible", this.name, message);
  }

  /** @throws {TierError} `io` — what came is not what was asked for, twice. */
  async #readChunk(key: TierKey, record: CommitRecord, index: number): Promise<Uint8Array | null> {
    for (let attempt = 0; ; attempt++) {
      const name = this.#chunkName(key, record.generation, index);
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
    if (result === "no-space") throw new TierError("io", this.name, "the server has no memory");
    return result;
  }

  #count(reply: unknown): number {
    if (typeof reply !== "number") throw this.#crossed();
    return reply;
  }

  #crossed(): TierError {
    return new TierError("io", this.name, "what came is not an answer to what was asked");
  }

  /** All keys with a commit record, and the generations of chunks of each key. */
  async #scan() {
    const committed = new Set<TierKey>();
    const chunks = new Map<TierKey, Map<string, string[]>>();
    const damaged = new Set<TierKey>();
    // What has a meaning in patterns is taken literally.
    const pattern = `${this.#prefix.replaceAll(/[\\*?[\]^-]/g, "\\$&")}:{*`;
    const form = /^:\{([0-9a-f]{64})\}(?:|:(damaged)|:([0-9a-f]{32}):[0-9]+)$/;
    const pages = this.#link.callEach("SCAN", (cursor) => [
      cursor,
      "MATCH",
      pattern,
      "COUNT",
      1000,
    ]);
    for await (const names of pages) {
      for (const name of names) {
        const match = name.startsWith(this.#prefix)
          ? form.exec(name.slice(this.#prefix.length))
          : null;
        if (match === null) continue;
        const key = match[1] as TierKey;
        const generation = match[3];
        if (match[2] !== undefined) damaged.add(key);
        else if (generation === undefined) committed.add(key);
        else {
          const own = chunks.get(key) ?? new Map<string, string[]>();
          own.set(generation, [...(own.get(generation) ?? []), name]);
          chunks.set(key, own);
        }
      }
    }
    // Chunks of what was put aside are kept.
    for (const key of damaged) chunks.delete(key);
    return { committed: [...committed], chunks };
  }

  async #sweep(chunks: ReadonlyMap<TierKey, ReadonlyMap<string, readonly string[]>>) {
    for (const generations of chunks.values()) {
      for (const names of generations.values()) {
        await this.#operate((call) => call("UNLINK", ...names));
      }
    }
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

  #nameOf(key: TierKey): string {
    return `${this.#prefix}:{${key}}`;
  }

  #damagedNameOf(key: TierKey): string {
    return `${this.#nameOf(key)}:damaged`;
  }

  #chunkName(key: TierKey, generation: string, index: number): string {
    return `${this.#nameOf(key)}:${generation}:${index}`;
  }

  #chunkNames(key: TierKey, record: CommitRecord): string[] {
    return Array.from({ length: chunkCountOf(record) }, (_, index) =>
      this.#chunkName(key, record.generation, index),
    );
  }

  #checkOpen(): void {
    if (!this.#isOpen) throw new TierError("closed", this.name, "the tier is closed");
  }
}

function checkOptions(options: RedisTierOptions): void {
  const { url, socketPath, nodes, prefix, timeoutMs, ttlMs, chunkBytes } = options;
  const isWithin = (value: number | undefined, least: number, most: number) =>
    value === undefined || (Number.isSafeInteger(value) && value >= least && value <= most);
  const placeCount = [url, socketPath, nodes].filter((place) => place !== undefined).length;
  if (placeCount !== 1) throw new MisuseError("bad-option", "give one of url, socketPath, nodes");
  if (nodes?.length === 0) throw new MisuseError("bad-option", "a cluster has at least one node");
  // A brace in it would be taken for the hash tag.
  if (prefix !== undefined && !/^[^{}\s]{1,200}$/.test(prefix)) {
    throw new MisuseError("bad-option", "prefix has 1 to 200 characters, no braces and no blanks");
  }
  if (
    !isWithin(timeoutMs, 1, 600_000) ||
    !isWithin(ttlMs, 1, Number.MAX_SAFE_INTEGER / 2) ||
    !isWithin(chunkBytes, 1024, 2 ** 24)
  ) {
    throw new MisuseError("bad-option", "timeoutMs, ttlMs or chunkBytes is out of range");
  }
}
