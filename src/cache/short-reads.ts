// Reads records that are so short that each is read at once, straight to where its bytes belong: they take no
// staging buffer, so that many can be under way, and share what a way to the tier costs.
import type { Clock } from "../clock.js";
import type { Hasher } from "../core/hash-stream.js";
import {
  CODEC_RAW,
  HEADER_BYTES_MIN,
  type RecordHeader,
  recordBytesOf,
  TRAILER_BYTES,
} from "../record/record.js";
import type { Tier, TierKey } from "../tier/tier.js";
import { type PrivateBytes, privateBytes, privatePart } from "../util/private-bytes.js";
import { readRecord, SHORT_BYTES_MAX } from "./record-reading.js";
import type { BytesAt } from "./staging.js";
import { Turns } from "./turns.js";

export interface ShortReadsOptions {
  readonly tier: Tier;
  /** Has a stream more than the transfers that take a staging buffer. */
  readonly hasher: Hasher;
  readonly clock: Clock;
  /** An intact record was read, in this part of the time that several took together. */
  onRead(header: RecordHeader, durationMs: number): void;
}

/** Under way at once: a tier may hold a copy of each. */
const COUNT_MAX = 16;
/** Most headers are the shortest. */
const ENDS_BYTES = HEADER_BYTES_MIN + TRAILER_BYTES;
const NO_ROOM = privateBytes(0);

export class ShortReads {
  readonly #options: ShortReadsOptions;
  readonly #turns = new Turns(COUNT_MAX);
  /** Of {@link ENDS_BYTES} each: where a record's header goes, and its digest. */
  readonly #idleEnds: PrivateBytes[] = [];

  constructor(options: ShortReadsOptions) {
    this.#options = options;
  }

  /** Whether a record with this header is read here. */
  takes({ codecId, storedBytes }: RecordHeader): boolean {
    const { readsInPlace } = this.#options.tier.capabilities;
    return readsInPlace && codecId === CODEC_RAW && storedBytes <= SHORT_BYTES_MAX;
  }

  /**
   * Reads a record and verifies it.
   *
   * @param place Where the bytes go; they are unverified until `"intact"` is returned.
   * @returns `"unexpected"`: it is shorter than it was written, and nothing of it was read.
   * @throws {TierError} `io`, `busy`, `closed`.
   */
  async read(
    key: TierKey,
    header: RecordHeader,
    place: BytesAt,
  ): Promise<"intact" | "missing" | "damaged" | "unexpected"> {
    return this.#turns.use(async () => {
      const { tier, hasher, clock, onRead } = this.#options;
      const startMs = clock.monotonicMs();
      const sharedBy = this.#turns.useCount;
      const totalBytes = recordBytesOf(header);
      const endsBytes = totalBytes - header.storedBytes;
      const reader = await tier.openRead(key);
      if (reader === null) return "missing";
      const ends = this.#takeEnds(endsBytes);
      try {
        if (reader.byteLength < totalBytes) return "unexpected";
        const halves = [ends, privatePart(ends, endsBytes - TRAILER_BYTES, endsBytes)] as const;
        const buffer = { halves, unit: NO_ROOM };
        const openHash = () => hasher.open();
        const outcome = await readRecord({ reader, buffer, openHash, header, sink: null, place });
        if (outcome === "intact") onRead(header, (clock.monotonicMs() - startMs) / sharedBy);
        return outcome;
      } finally {
        if (ends.byteLength === ENDS_BYTES) this.#idleEnds.push(ends);
        await reader.close();
      }
    });
  }

  #takeEnds(byteLength: number): PrivateBytes {
    const idle = byteLength === ENDS_BYTES ? this.#idleEnds.pop() : undefined;
    return idle ?? privateBytes(byteLength);
  }
}
