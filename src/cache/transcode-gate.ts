// Whether coding records anew pays on their way down: the time that the bytes saved would take in the colder tier, out
// and back, against the time that saving them takes. By kind, from what was measured.
import type { TensorKind } from "../types.js";

/** Below this, a record's own cost hides that of its bytes. */
const RECODED_BYTES_MIN = 16_384;
/** Above this share of its capacity a tier takes fewer bytes, whatever they cost. */
const FULLNESS_MAX = 0.8;
/** A way is left only for one that costs less than this share of it. */
const HYSTERESIS = 0.9;
/** Records of a kind before anything is decided by time. */
const FIRST_COUNT = 3;
/** Records after which the other way is tried again. */
const TRIAL_INTERVAL = 32;
/** Weight of a new measurement. */
const SHARE = 0.3;

/** Where a record is to go. */
export interface ColderTier {
  /** null: not known yet. */
  readonly bytesPerSecond: number | null;
  readonly physicalBytes: number;
  readonly capacityBytes: number;
}

interface Kind {
  count: number;
  /** Per byte that is stored. */
  msPerByte: number;
  /** Of the stored bytes. */
  savedShare: number;
  pays: boolean;
  /** Records that were left as they are since one was coded anew. */
  sinceTrial: number;
}

/** What coding anew took and saved, of all records that were measured. */
export interface TranscodingBalance {
  readonly spentMs: number;
  /** As they were stored before, and how many of these bytes were saved. */
  readonly codedBytes: number;
  readonly savedBytes: number;
  readonly recordCount: number;
  /** Times that a kind was found not to pay any more. */
  readonly switchedOffCount: number;
}

export class TranscodeGate {
  readonly balance: { -readonly [name in keyof TranscodingBalance]: number } = {
    spentMs: 0,
    codedBytes: 0,
    savedBytes: 0,
    recordCount: 0,
    switchedOffCount: 0,
  };
  readonly #kinds = new Map<string, Kind>();

  /** Whether the next record of this kind and length should be coded anew. A question is a move to come. */
  asks(kind: string, storedBytes: number, to: ColderTier): boolean {
    if (storedBytes < RECODED_BYTES_MIN) return false;
    const known = this.#kinds.get(kind);
    if (known === undefined || known.count < FIRST_COUNT) return true;
    if (to.physicalBytes + storedBytes > FULLNESS_MAX * to.capacityBytes) return true;
    if (to.bytesPerSecond === null) return true;
    // Written once, and read once.
    const savedMs = (2 * 1000 * known.savedShare) / to.bytesPerSecond;
    const takenMs = known.msPerByte;
    if (known.pays ? savedMs < HYSTERESIS * takenMs : takenMs < HYSTERESIS * savedMs) {
      known.pays = !known.pays;
      if (!known.pays) this.balance.switchedOffCount += 1;
    }
    known.sinceTrial += 1;
    if (known.pays || known.sinceTrial < TRIAL_INTERVAL) return known.pays;
    known.sinceTrial = 0;
    return true;
  }

  /** @param savedShare Of the stored bytes, 0 to 1. */
  note(kind: TensorKind, storedBytes: number, durationMs: number, savedShare: number): void {
    // Coded once to be measured, and once to be written.
    const msPerByte = (2 * durationMs) / storedBytes;
    this.balance.spentMs += 2 * durationMs;
    this.balance.codedBytes += storedBytes;
    this.balance.savedBytes += storedBytes * savedShare;
    this.balance.recordCount += 1;
    const known = this.#kinds.get(kind);
    if (known === undefined) {
      this.#kinds.set(kind, { count: 1, msPerByte, savedShare, pays: true, sinceTrial: 0 });
      return;
    }
    known.count += 1;
    known.msPerByte += SHARE * (msPerByte - known.msPerByte);
    known.savedShare += SHARE * (savedShare - known.savedShare);
  }
}
