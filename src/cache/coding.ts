// Which tensors may be coded when they leave RAM, and how far their values may change. Decides nothing
// by time: that is the gate's business.
import type { PartLimit } from "../codec/codec.js";
import type { CodecRule, CodecRules } from "../memory/codec-options.js";
import { CODEC_RAW } from "../record/record.js";
import type { ErrorLimit } from "../types.js";
import type { TensorRecord } from "./tensor-record.js";

export interface Coding {
  /** Coded whenever it gets shorter; otherwise when it pays. */
  readonly isAlways: boolean;
  /** Coded where the tier is nearly full alone. Default: false. */
  readonly isWhenFull?: boolean;
  /** Null: exact. */
  readonly limit: PartLimit | null;
  /** How much of the original may change in all, when it is coded anew on its way down; null: it never is. */
  readonly recoding: ErrorLimit | "exact" | null;
  /** A longer record is refused as if there were no room. Default: no limit. */
  readonly storedBytesMax?: number;
}

/** Of a budget, what a copy in the warm tier takes. */
const WARM_SHARE = 1 / 4;
/** Bytes of f32 that a codec of the warm tier decodes per second, at least. */
const WARM_BANDWIDTH = 3e9;

/**
 * How a tensor is to be written, or null: as it is.
 *
 * @remarks An error budget of a kind or a tag is for swapped-out copies; a saved record obeys only the
 *   tensor's own. What came back from a copy that was not exact, and has not been written since, is
 *   kept exactly: its error is spent.
 */
export function codingOf(rules: CodecRules, record: TensorRecord, isSaved: boolean): Coding | null {
  if (rules.isOff) return null;
  const rule = rules.tags.get(record.tag) ?? rules.kinds.get(record.kind) ?? rules.otherwise;
  const own = record.errorBudget;
  const isSpent = record.inexactVersion === record.version;
  const limit = isSpent ? null : own === null ? limitOf(isSaved ? null : rule) : limitOf(own);
  const recoding = rules.isColderSmaller ? (limit ?? "exact") : null;
  if (limit !== null) {
    const isFirst = rules.isColderSmaller && rules.hasWarm && !isSaved;
    return { isAlways: true, limit: isFirst ? firstOf(limit) : limit, recoding };
  }
  if (rule === "raw") return null;
  const isAlways = rule === "lossless" || typeof rule === "object";
  return { isAlways, isWhenFull: rule === "when-full", limit: null, recoding };
}

/** The part of a budget that a copy takes which is to be read soon or coded anew. */
function firstOf({ metric, epsilon }: ErrorLimit): PartLimit {
  return { metric, epsilon: WARM_SHARE * epsilon, minBandwidth: WARM_BANDWIDTH };
}

/** Whether what was written so, in a record of that codec, may come back with other values. */
export function mayComeBackInexact(coding: Coding | null, codecId: number): boolean {
  if (coding === null || coding.limit === null) return false;
  return codecId !== CODEC_RAW || coding.recoding !== null;
}

function limitOf(rule: CodecRule | "exact" | null): ErrorLimit | null {
  return typeof rule === "object" && rule !== null && rule.epsilon > 0 ? rule : null;
}
