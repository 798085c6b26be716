// Spreads a byte budget over the tensors of a kind: each offers what it can become at several errors, as a sample
// of its parts shows, and bytes go where they lower the squared error most. Part of `tierheap/codecs`.
import { MisuseError } from "../errors.js";
import { type ByteSize, checkKind, type Dtype, parseByteSize, type TensorKind } from "../types.js";
import { allocateBytes, type Bidder, type Offer } from "./allocate.js";
import type { ByteTargets, TargetTensor, UnitCoder } from "./codec.js";

/** Errors that a tensor offers, as shares of the largest that it may have. */
const LADDER = [1, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.0625, 0.03, 0.015, 0];
/** Parts of a tensor that are looked at. */
const SAMPLE_PARTS = 2;
/** Tensors that are looked at anew for one that leaves; more are taken to be like it. */
const LOOK_COUNT_MAX = 256;
/** Samples foretell a little too few bytes as often as too many. */
const MARGIN = 1.01;
/** Of the room of a tier, for targets that fit it: what framing takes. */
const FIT_SHARE = 0.95;

/** An offer, and the largest error to ask for. */
interface Rung extends Offer {
  readonly epsilon: number;
}

interface Known {
  readonly version: number;
  readonly rungs: readonly Rung[];
  /** Of the original. */
  readonly squares: number;
}

/**
 * Byte budgets for the swapped-out copies of whole kinds, for the option `codecs.targets`.
 *
 * @param targets By kind: bytes that its copies take together at most; `"fit"`: what the tier has room for. The
 *   kind needs an error budget in `codecs.kinds`, which no tensor's error exceeds; a tensor that finds no room
 *   inside it stays in RAM.
 * @throws {MisuseError} `bad-kind`, `bad-size`.
 */
export function byteTargets(targets: Partial<Record<TensorKind, ByteSize | "fit">>): ByteTargets {
  const bytesMax = new Map<TensorKind, number | "fit">();
  for (const [kind, size] of Object.entries(targets)) {
    const target = size === "fit" ? size : parseByteSize(size, `targets.${kind}`);
    bytesMax.set(checkKind(kind), target);
  }
  if (bytesMax.size === 0) throw new MisuseError("bad-option", "byteTargets names no kind");
  return new Targets(bytesMax);
}

class Targets implements ByteTargets {
  readonly #bytesMax: ReadonlyMap<TensorKind, number | "fit">;
  readonly #known = new WeakMap<object, Known>();

  constructor(bytesMax: ReadonlyMap<TensorKind, number | "fit">) {
    this.#bytesMax = bytesMax;
  }

  has(kind: TensorKind): boolean {
    return this.#bytesMax.has(kind);
  }

  freeBytes(kind: TensorKind, usedBytes: number, tierFreeBytes: number): number {
    const target = this.#bytesMax.get(kind) ?? "fit";
    return target === "fit" ? FIT_SHARE * tierFreeBytes : target - usedBytes;
  }

  choose(
    coder: UnitCoder,
    tensor: TargetTensor,
    rivals: readonly TargetTensor[],
    freeBytes: number,
  ): number[] {
    const own = this.#look(coder, tensor);
    let lookCount = 0;
    const bidders: Bidder[] = [{ offers: own.rungs, weight: own.squares }];
    for (const rival of rivals) {
      const isKnown = this.#known.get(rival.key)?.version === rival.version;
      if (!isKnown) lookCount += 1;
      const share = rival.rawBytes / tensor.rawBytes;
      const known =
        isKnown || lookCount <= LOOK_COUNT_MAX
          ? this.#look(coder, rival)
          : {
              rungs: own.rungs.map((rung) => ({ ...rung, bytes: share * rung.bytes })),
              squares: share * own.squares,
            };
      bidders.push({ offers: known.rungs, weight: known.squares });
    }
    const found = allocateBytes(bidders, freeBytes);
    // Not even the coarsest of all fit together: this one may still.
    const pick = found?.picks[0] ?? 0;
    const chosen = (own.rungs[pick] as Rung).epsilon;
    return [
      chosen,
      ...own.rungs.map(({ epsilon }) => epsilon).filter((each) => each > chosen),
    ].sort((left, right) => left - right);
  }

  #look(coder: UnitCoder, tensor: TargetTensor): Known {
    const known = this.#known.get(tensor.key);
    if (known?.version === tensor.version) return known;
    const { dtype, columns, rawBytes, limit, mayFactor } = tensor;
    const stepBytes = coder.partBytes(dtype, columns);
    const partCount = Math.ceil(rawBytes / stepBytes);
    const sampleCount = Math.min(SAMPLE_PARTS, partCount);
    let sampleBytes = 0;
    let squares = 0;
    const stored = LADDER.map(() => 0);
    const errors = LADDER.map(() => 0);
    for (let sample = 0; sample < sampleCount; sample++) {
      const offset = Math.floor((sample * partCount) / sampleCount) * stepBytes;
      const bytes = tensor.bytes(offset, Math.min(stepBytes, rawBytes - offset));
      const partSquares = squaresOf(bytes, dtype);
      sampleBytes += bytes.byteLength;
      squares += partSquares;
      LADDER.forEach((share, rung) => {
        const asked = share === 0 ? null : { ...limit, epsilon: share * limit.epsilon };
        const unit = coder.encode({ bytes, dtype, columns, mayFactor, limit: asked });
        stored[rung] = (stored[rung] as number) + unit.bytes.byteLength;
        errors[rung] = (errors[rung] as number) + partSquares * unit.relativeError ** 2;
      });
    }
    const scale = rawBytes / sampleBytes;
    const rungs = LADDER.map((share, rung) => ({
      epsilon: share * limit.epsilon,
      bytes: MARGIN * scale * (stored[rung] as number),
      error: squares > 0 ? Math.sqrt((errors[rung] as number) / squares) : 0,
    }));
    const found = { version: tensor.version, rungs, squares: Math.max(scale * squares, 1e-30) };
    this.#known.set(tensor.key, found);
    return found;
  }
}

/** Sum of squares of finite values; 0 for what is no float. */
function squaresOf(bytes: Uint8Array, dtype: Dtype): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let squares = 0;
  const add = (value: number) => {
    if (Number.isFinite(value)) squares += value * value;
  };
  if (dtype === "f32")
    for (let at = 0; at < bytes.byteLength; at += 4) add(view.getFloat32(at, true));
  if (dtype === "f64")
    for (let at = 0; at < bytes.byteLength; at += 8) add(view.getFloat64(at, true));
  if (dtype === "f16") for (let at = 0; at < bytes.byteLength; at += 2) add(halfAt(view, at));
  if (dtype === "bf16") {
    const wide = new DataView(new ArrayBuffer(4));
    for (let at = 0; at < bytes.byteLength; at += 2) {
      wide.setUint16(2, view.getUint16(at, true), true);
      add(wide.getFloat32(0, true));
    }
  }
  return squares;
}

function halfAt(view: DataView, at: number): number {
  const word = view.getUint16(at, true);
  const exponent = (word >> 10) & 31;
  const fraction = word & 1023;
  if (exponent === 31) return Number.NaN;
  return exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
}
