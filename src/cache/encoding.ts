// A tensor as units, one part after the other.
import type { Clock } from "../clock.js";
import type { CodedPart, TensorPart, UnitCoder } from "../codec/codec.js";
import type { BytesAt } from "./staging.js";

/** Bytes encoded in one turn of the event loop. */
const TURN_BYTES = 2 ** 22;

/** A tensor that is encoded. */
export interface Encoding {
  readonly coder: UnitCoder;
  readonly clock: Clock;
  readonly source: BytesAt;
  readonly rawBytes: number;
  /** What holds for every part. */
  readonly part: Omit<TensorPart, "bytes">;
}

/** A part in its encoded form, and what it was. */
export interface PassingUnit {
  /** Valid until the next one is asked for. */
  readonly bytes: Uint8Array;
  readonly part: CodedPart;
  /** Of the part. */
  readonly rawBytes: number;
}

/** Encodes one part. */
export function encodeAt(
  { coder, clock, source, rawBytes, part }: Encoding,
  offset: number,
): PassingUnit {
  const startMs = clock.monotonicMs();
  const stepBytes = coder.partBytes(part.dtype, part.columns);
  const original = source(offset, Math.min(stepBytes, rawBytes - offset));
  const unit = coder.encode({ ...part, bytes: original });
  const { codec, relativeError, maxError, bytes } = unit;
  const durationMs = clock.monotonicMs() - startMs;
  return {
    bytes,
    part: { codec, relativeError, maxError, byteLength: bytes.byteLength, durationMs },
    rawBytes: original.byteLength,
  };
}

/** All units from the part on that begins at `offset`, by the thread that asks for them. */
export async function* encodeHere(encoding: Encoding, offset: number): AsyncGenerator<PassingUnit> {
  for (let at = offset; at < encoding.rawBytes; ) {
    const unit = encodeAt(encoding, at);
    yield unit;
    const end = at + unit.rawBytes;
    const isTurnOver = Math.floor(end / TURN_BYTES) > Math.floor(at / TURN_BYTES);
    at = end;
    if (isTurnOver && at < encoding.rawBytes) await encoding.clock.sleep(0);
  }
}
