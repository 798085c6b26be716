// Whether coding pays, measured: what a byte costs on its way out and back, coded and as it is. Kept
// apart by kind and by size, since a record costs something whatever its length.
//
// Of the last durations the least counts: whatever else a machine does makes them longer, never shorter.
// The dearer way is tried again now and then, so seldom that it costs at most a hundredth of the time.
import type { TensorKind } from "../types.js";

/** Below this, a record's own cost hides that of its bytes. */
const CODED_BYTES_MIN = 16_384;
/** A way is left only for one that costs less than this share of it. */
const HYSTERESIS = 0.9;
/** Durations that are remembered. */
const RECENT = 8;
const TRIAL_INTERVAL_MIN = 32;
/** Part of the time that trials may cost. */
const TRIAL_SHARE = 1 / 100;
/** Writes of each way before one is preferred, unless coding costs this many times as much. */
const FIRST_COUNT = 3;
const HOPELESS = 2;

/** Milliseconds per byte, the last ones, in no order. */
class Durations {
  readonly #recent: number[] = [];
  #next = 0;

  get count(): number {
    return this.#recent.length;
  }

  /** Infinity when there are none. */
  get least(): number {
    return Math.min(...this.#recent);
  }

  note(duration: number): void {
    this.#recent[this.#next] = duration;
    this.#next = (this.#next + 1) % RECENT;
  }
}

interface Way {
  readonly writes: Durations;
  readonly reads: Durations;
}

interface Scale {
  readonly plain: Way;
  readonly coded: Way;
  isCoded: boolean;
  /** Writes since the other way was tried. */
  sinceTrial: number;
}

export class CodecGate {
  /** Times that coding gave way to writing as it is, for a kind and size. */
  switchedOffCount = 0;
  readonly #plain = { writeMs: 0, writtenBytes: 0, readMs: 0, readBytes: 0 };
  readonly #scales = new Map<string, Scale>();

  /** Whether the next tensor of this kind and length is to be coded. A question is a write to come. */
  asksCoded(kind: TensorKind, rawBytes: number): boolean {
    if (rawBytes < CODED_BYTES_MIN) return false;
    const scale = this.#scaleOf(kind, rawBytes);
    const { plain, coded } = scale;
    const isHopeless = coded.writes.count > 0 && coded.writes.least > HOPELESS * plain.writes.least;
    if (coded.writes.count < FIRST_COUNT && !isHopeless) {
      return coded.writes.count < plain.writes.count;
    }
    const [used, other] = scale.isCoded ? [coded, plain] : [plain, coded];
    const [usedCost, otherCost] = costsOf(used, other);
    if (otherCost < HYSTERESIS * usedCost) {
      if (scale.isCoded) this.switchedOffCount += 1;
      scale.isCoded = !scale.isCoded;
    }
    scale.sinceTrial += 1;
    const dearness = usedCost > 0 ? otherCost / usedCost - 1 : 0;
    if (scale.sinceTrial < Math.max(TRIAL_INTERVAL_MIN, dearness / TRIAL_SHARE)) {
      return scale.isCoded;
    }
    scale.sinceTrial = 0;
    return !scale.isCoded;
  }

  /** What a byte costs out and back as it is, in milliseconds; null before both were measured. */
  get plainMsPerByte(): number | null {
    const { writeMs, writtenBytes, readMs, readBytes } = this.#plain;
    if (writtenBytes === 0 || readBytes === 0) return null;
    return writeMs / writtenBytes + readMs / readBytes;
  }

  noteWrite(kind: TensorKind, rawBytes: number, isCoded: boolean, durationMs: number): void {
    this.#wayOf(kind, rawBytes, isCoded).writes.note(durationMs / rawBytes);
    if (isCoded) return;
    this.#plain.writeMs += durationMs;
    this.#plain.writtenBytes += rawBytes;
  }

  noteRead(kind: TensorKind, rawBytes: number, isCoded: boolean, durationMs: number): void {
    this.#wayOf(kind, rawBytes, isCoded).reads.note(durationMs / rawBytes);
    if (isCoded) return;
    this.#plain.readMs += durationMs;
    this.#plain.readBytes += rawBytes;
  }

  #wayOf(kind: TensorKind, rawBytes: number, isCoded: boolean): Way {
    const { plain, coded } = this.#scaleOf(kind, rawBytes);
    return isCoded ? coded : plain;
  }

  #scaleOf(kind: TensorKind, rawBytes: number): Scale {
    const name = `${kind} ${Math.floor(Math.log2(rawBytes) / 2)}`;
    let scale = this.#scales.get(name);
    if (scale === undefined) {
      const way = () => ({ writes: new Durations(), reads: new Durations() });
      scale = { plain: way(), coded: way(), isCoded: false, sinceTrial: 0 };
      this.#scales.set(name, scale);
    }
    return scale;
  }
}

/** What both ways cost, reads included as soon as both are known. */
function costsOf(left: Way, right: Way): [number, number] {
  const hasReads = left.reads.count > 0 && right.reads.count > 0;
  const costOf = ({ writes, reads }: Way) => writes.least + (hasReads ? reads.least : 0);
  return [costOf(left), costOf(right)];
}
