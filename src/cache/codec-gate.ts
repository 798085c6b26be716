// Whether coding pays, measured: what a byte costs on its way out and back, coded and as it is. Kept
// apart by kind and by size, since a record costs something whatever its length.
//
// The dearer way is tried again now and then, so seldom that it costs at most a fiftieth of the time.
import type { TensorKind } from "../types.js";

/** Below this, a record's own cost hides that of its bytes. */
const CODED_BYTES_MIN = 16_384;
/** A way is left only for one that costs less than this share of it. */
const HYSTERESIS = 0.9;
/** Share of a new duration in what is remembered: noise makes durations longer, never shorter. */
const WEIGHT_SHORTER = 0.5;
const WEIGHT_LONGER = 0.125;
/** One stall of a device counts as at most so many times what is remembered. */
const STALL = 4;
const TRIAL_INTERVAL_MIN = 32;
/** Writes of each way before one is preferred, unless coding costs this many times as much. */
const FIRST_COUNT = 3;
const HOPELESS = 2;
/** Part of the time that trials may cost. */
const TRIAL_SHARE = 1 / 50;

/** Milliseconds per byte; NaN until it was measured. */
interface Way {
  writeCount: number;
  writeCost: number;
  readCost: number;
}

interface Scale {
  readonly plain: Way;
  readonly coded: Way;
  isCoded: boolean;
  /** Writes since the other way was tried. */
  sinceTrial: number;
}

export class CodecGate {
  readonly #scales = new Map<string, Scale>();

  /** Whether the next tensor of this kind and length is to be coded. A question is a write to come. */
  asksCoded(kind: TensorKind, rawBytes: number): boolean {
    if (rawBytes < CODED_BYTES_MIN) return false;
    const scale = this.#scaleOf(kind, rawBytes);
    const { plain, coded } = scale;
    if (plain.writeCount === 0) return false;
    const isHopeless = coded.writeCost > HOPELESS * plain.writeCost;
    if (coded.writeCount < FIRST_COUNT && !isHopeless) return coded.writeCount < plain.writeCount;
    const [used, other] = scale.isCoded ? [coded, plain] : [plain, coded];
    const [usedCost, otherCost] = costsOf(used, other);
    if (otherCost < HYSTERESIS * usedCost) scale.isCoded = !scale.isCoded;
    scale.sinceTrial += 1;
    const dearness = usedCost > 0 ? otherCost / usedCost - 1 : 0;
    if (scale.sinceTrial < Math.max(TRIAL_INTERVAL_MIN, dearness / TRIAL_SHARE)) {
      return scale.isCoded;
    }
    scale.sinceTrial = 0;
    return !scale.isCoded;
  }

  noteWrite(kind: TensorKind, rawBytes: number, isCoded: boolean, durationMs: number): void {
    const scale = this.#scaleOf(kind, rawBytes);
    const [way, other] = isCoded ? [scale.coded, scale.plain] : [scale.plain, scale.coded];
    const cost = durationMs / rawBytes;
    // A trial that did better than what is used is repeated at once: what is remembered may be stale.
    if (isCoded !== scale.isCoded && cost < HYSTERESIS * other.writeCost) {
      scale.sinceTrial = Number.POSITIVE_INFINITY;
    }
    way.writeCost = mixed(way.writeCost, cost);
    way.writeCount += 1;
  }

  noteRead(kind: TensorKind, rawBytes: number, isCoded: boolean, durationMs: number): void {
    const { plain, coded } = this.#scaleOf(kind, rawBytes);
    const way = isCoded ? coded : plain;
    way.readCost = mixed(way.readCost, durationMs / rawBytes);
  }

  #scaleOf(kind: TensorKind, rawBytes: number): Scale {
    const name = `${kind} ${Math.floor(Math.log2(rawBytes) / 2)}`;
    let scale = this.#scales.get(name);
    if (scale === undefined) {
      const unknown = { writeCount: 0, writeCost: Number.NaN, readCost: Number.NaN };
      scale = { plain: { ...unknown }, coded: { ...unknown }, isCoded: false, sinceTrial: 0 };
      this.#scales.set(name, scale);
    }
    return scale;
  }
}

/** What both ways cost, reads included as soon as both are known. */
function costsOf(left: Way, right: Way): [number, number] {
  const hasReads = !Number.isNaN(left.readCost + right.readCost);
  const costOf = ({ writeCost, readCost }: Way) => writeCost + (hasReads ? readCost : 0);
  return [costOf(left), costOf(right)];
}

function mixed(before: number, cost: number): number {
  if (Number.isNaN(before)) return cost;
  const clipped = before > 0 ? Math.min(cost, STALL * before) : cost;
  return before + (clipped < before ? WEIGHT_SHORTER : WEIGHT_LONGER) * (clipped - before);
}
