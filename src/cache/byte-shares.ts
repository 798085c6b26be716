// Gives tensors of kinds with a byte target their error limits, one tensor at a time, so that what has left RAM never
// takes more than the target. Loaded when there are targets.
import type { ByteTargets, Codec, PartLimit, TargetTensor } from "../codec/codec.js";
import type { CodecRules } from "../memory/codec-options.js";
import type { TensorKind } from "../types.js";
import { type Coding, codingOf } from "./coding.js";
import type { Directory } from "./directory.js";
import type { TensorRecord } from "./tensor-record.js";

export interface ByteSharesOptions {
  readonly targets: ByteTargets;
  readonly codec: Codec;
  readonly directory: Directory;
  readonly rules: CodecRules;
  /** The bytes of a resident tensor. */
  readonly bytesOf: (record: TensorRecord) => Uint8Array;
  /** Bytes that the tier has room for. */
  readonly tierFreeBytes: () => number;
}

export class ByteShares {
  readonly #options: ByteSharesOptions;
  /** The last write of each kind: they go one after the other. */
  readonly #tails = new Map<TensorKind, Promise<unknown>>();

  constructor(options: ByteSharesOptions) {
    this.#options = options;
  }

  /**
   * Writes a swapped-out copy with the smallest error that its share of the bytes allows.
   *
   * @param coding As the rules say.
   * @param write Tries to write; refuses with `"no-space"`.
   */
  async write<T>(
    record: TensorRecord,
    coding: Coding | null,
    write: (coding: Coding | null) => Promise<T | "no-space">,
  ): Promise<T | "no-space"> {
    const { targets, codec } = this.#options;
    const { kind } = record;
    const limit = coding?.limit ?? null;
    if (coding === null || limit === null || !targets.has(kind)) return write(coding);
    const coder = await codec.load().catch(() => null);
    if (coder === null) return write(coding);
    const attempt = async (): Promise<T | "no-space"> => {
      if (!record.isResident) return write(coding);
      const { rivals, usedBytes } = this.#look(record);
      const free = targets.freeBytes(kind, usedBytes, this.#options.tierFreeBytes());
      const storedBytesMax = Math.floor(free);
      for (const epsilon of targets.choose(coder, this.#tensor(record, limit), rivals, free)) {
        const share = { ...limit, epsilon };
        const written = await write({
          ...coding,
          limit: epsilon > 0 ? share : null,
          storedBytesMax,
        });
        if (written !== "no-space") return written;
      }
      return "no-space";
    };
    const turn = (this.#tails.get(kind) ?? Promise.resolve()).then(attempt, attempt);
    this.#tails.set(kind, turn);
    return turn;
  }

  /** Those that may have to leave too, and what those take that have left. */
  #look(asked: TensorRecord): { rivals: TargetTensor[]; usedBytes: number } {
    const { directory, rules } = this.#options;
    const rivals: TargetTensor[] = [];
    let usedBytes = 0;
    for (const record of directory) {
      if (record.kind !== asked.kind || record === asked) continue;
      if (record.cold?.isSaved === false) usedBytes += record.cold.storedBytes;
      if (record.id === null || !record.isResident || record.isClean) continue;
      const limit = codingOf(rules, record, false)?.limit ?? null;
      if (limit !== null) rivals.push(this.#tensor(record, limit));
    }
    return { rivals, usedBytes };
  }

  #tensor(record: TensorRecord, limit: PartLimit): TargetTensor {
    const { dtype, byteLength: rawBytes, version, kind, shape } = record;
    const columns = shape.at(-1) as number;
    const bytes = (offset: number, byteLength: number) =>
      this.#options.bytesOf(record).subarray(offset, offset + byteLength);
    const mayFactor = kind !== "KV_CACHE";
    return { key: record, version, dtype, columns, rawBytes, limit, mayFactor, bytes };
  }
}
