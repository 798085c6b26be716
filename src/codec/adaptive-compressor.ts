// Picks, for a tensor and an error budget, the codec with the fewest bytes that keeps it. A scan foretells
// the error of every candidate; the cheapest one that should do is encoded and measured; what breaks the
// budget is dropped, and a lossless codec is last, so the budget is never broken.
import { CodecWorkspace } from "../core/codec-workspace.js";
import { createUnsharedMemory, type MemoryFactory } from "../core/linear-memory.js";
import type { WasmSource } from "../core/module-instance.js";
import { MisuseError } from "../errors.js";
import { dtypeTraits } from "../types.js";
import { type AttentionContext, AttentionReplay } from "./attention-replay.js";
import {
  type Candidate,
  type ErrorMetric,
  losslessCandidates,
  lowRankCandidate,
  quantisers,
  rankLimit,
  sparsities,
} from "./candidates.js";
import { CodecEngine, type EncodedUnit, type Loaded } from "./engine.js";
import { findSpectrum, formGram } from "./factors.js";
import type { CodecName } from "./format.js";
import { effectiveRankOf, type Facts, planeBitsOf, scan } from "./scan.js";
import type { Choice, Matrix } from "./unit-header.js";

/** How much a tensor may change. */
export interface ErrorBudget {
  /**
   * `relative`: root of the squared error's share of the squares. `max`: largest absolute error as a share
   * of the largest magnitude. `attention`: as `relative`, of the attention output.
   */
  readonly metric: ErrorMetric;
  /** Largest error, from 0 to 1; 0 is lossless. */
  readonly epsilon: number;
  /** Slower codecs are left out: bytes of f32 decoded per second. Default: none is. */
  readonly minBandwidth?: number;
  /** Only these codecs; lossless ones are always allowed. Default: all. */
  readonly allow?: readonly CodecName[];
  /** Names of codecs that are left out, lossless ones too; `raw` never is. Default: none. */
  readonly without?: readonly string[];
}

/** What the compressor should know about a tensor beside its bytes. */
export interface TensorContext {
  /** Keys that rotary embedding has been applied to have no low rank. Default: `none`. */
  readonly rotary?: "none" | "before" | "after";
  /** Needed for the metric `attention`. */
  readonly attention?: AttentionContext;
}

/** What was chosen. */
export interface Compressed extends EncodedUnit {
  /** The codec with what decided its bytes. */
  readonly choice: Choice;
  /** Codecs that were encoded, the chosen one included. */
  readonly encodeCount: number;
  /** In the budget's metric; with `attention`, the replayed error. */
  readonly error: number;
}

export interface AdaptiveCompressorOptions {
  /** Bytes of linear memory to work in: 32 per value of the largest tensor. Default: 64 MiB. */
  readonly workspaceBytes?: number;
  /** Default: unshared memories. */
  readonly createMemory?: MemoryFactory;
  /** kernels.wasm; default: the one that the package carries. */
  readonly wasm?: WasmSource;
}

const WORKSPACE_BYTES = 64 * 2 ** 20;
/** A foretold error must lie below this share of the budget. */
const MARGIN = 0.98;
/** Replayed queries stand for those to come: their error is taken as so much larger. */
const REPLAY_FACTOR = 1.7;
/** Below this, a Gram matrix in f32 cannot tell small singular values from noise. */
const LOW_RANK_EPSILON_MIN = 0.003;
/** Components that a probe of the spectrum begins with. */
const PROBE_RANK = 8;
/** Bytes of f32 decoded per second, a low estimate for one core. */
const DECODE_BANDWIDTH: Record<CodecName, number> = {
  ...{ raw: 8e9, const: 8e9, narrow: 4e9, half: 4e9, plane: 1e9, q8: 6e9, q4: 5e9, chan: 4e9 },
  ...{ lm: 1e9, sparse: 2e9, lowrank: 1e9, pca: 0.5e9 },
};

export class AdaptiveCompressor {
  /** Encodes and decodes single choices. */
  readonly engine: CodecEngine;
  readonly #workspace: CodecWorkspace;

  private constructor(workspace: CodecWorkspace) {
    this.#workspace = workspace;
    this.engine = new CodecEngine(workspace);
  }

  /** @throws {OutOfMemoryError} The platform has no room for the workspace. */
  static async create(options: AdaptiveCompressorOptions = {}): Promise<AdaptiveCompressor> {
    const { workspaceBytes = WORKSPACE_BYTES, createMemory = createUnsharedMemory } = options;
    return new AdaptiveCompressor(
      await CodecWorkspace.create(workspaceBytes, createMemory, options.wasm),
    );
  }

  /**
   * Compresses a tensor inside a budget.
   *
   * @throws {MisuseError} `bad-option`, `bad-size`, `bad-shape` — before anything is encoded.
   */
  compress(matrix: Matrix, budget: ErrorBudget, context: TensorContext = {}): Compressed {
    checkBudget(budget, context);
    return this.engine.load(matrix, (loaded, workspace) => {
      if (budget.epsilon === 0 || !loaded.isFloat) return this.#compressLossless(loaded, budget);
      const replay = replayOf(workspace, loaded, budget, context);
      const facts = scan(workspace, loaded);
      if (Number.isNaN(facts.magnitude)) return this.#compressLossless(loaded, budget);
      return this.#choose(loaded, budget, context, facts, replay);
    });
  }

  /** As {@link CodecEngine.decode}. */
  decompress(unit: Uint8Array, originalBytesMax?: number): Matrix {
    return this.engine.decode(unit, originalBytesMax);
  }

  /** All candidates for a budget, cheapest first, lossless ones included. */
  candidates(
    loaded: Loaded,
    budget: ErrorBudget,
    context: TensorContext,
    facts: Facts,
    replay: AttentionReplay | null,
  ): { candidate: Candidate; predicted: number }[] {
    const { matrix } = loaded;
    const { metric, epsilon } = budget;
    const perDeviation = replay === null ? 0 : replay.sensitivity * REPLAY_FACTOR;
    const predict = ({ relative, largest }: Candidate): number => {
      if (metric === "relative") return relative;
      if (metric === "max") return facts.magnitude > 0 ? largest / facts.magnitude : 0;
      return relative * facts.deviation * perDeviation;
    };
    // What the metric allows, as a relative error and as a largest one.
    const allowedLargest = metric === "max" ? epsilon * facts.magnitude * MARGIN : null;
    const slope = perDeviation * facts.deviation;
    const relativeEpsilon = metric === "attention" && slope > 0 ? epsilon / slope : epsilon;
    const found = [
      ...losslessCandidates(matrix, facts.planeBits),
      ...quantisers(matrix, facts),
      ...sparsities(matrix, facts, Math.min(1, relativeEpsilon), allowedLargest),
    ].filter(({ choice }) => isAllowed(choice, budget));
    const hasRank = context.rotary !== "after" && metric !== "max";
    if (hasRank && isAllowed({ codec: "lowrank" }, budget)) {
      const promising = found.filter((each) => predict(each) <= MARGIN * epsilon);
      const bytesMax = Math.min(...promising.map(({ bytes }) => bytes));
      found.push(...this.#lowRanks(loaded, relativeEpsilon, bytesMax));
    }
    return found
      .map((candidate) => ({ candidate, predicted: predict(candidate) }))
      .sort((left, right) => left.candidate.bytes - right.candidate.bytes);
  }

  #choose(
    loaded: Loaded,
    budget: ErrorBudget,
    context: TensorContext,
    facts: Facts,
    replay: AttentionReplay | null,
  ): Compressed {
    const { epsilon } = budget;
    const candidates = this.#workspace.within(() =>
      this.candidates(loaded, budget, context, facts, replay),
    );
    // How wrong the forecast was where it was: what attention makes of an error, all codecs share.
    const corrections = new Map<CodecName, number>();
    let correctionOfAll = 1;
    let encodeCount = 0;
    for (const { candidate, predicted } of candidates) {
      const { codec } = candidate.choice;
      if (candidate.relative === 0) return this.#compressLossless(loaded, budget, encodeCount);
      const corrected = predicted * (corrections.get(codec) ?? correctionOfAll);
      if (!(corrected <= MARGIN * epsilon)) continue;
      encodeCount++;
      const unit = this.engine.encodeLoaded(loaded, candidate.choice);
      const error = errorOf(unit, budget, facts, replay);
      if (error <= epsilon) return { ...unit, choice: candidate.choice, encodeCount, error };
      const correction = predicted > 0 ? error / predicted : Number.POSITIVE_INFINITY;
      corrections.set(codec, correction);
      if (replay !== null) correctionOfAll = Math.max(correctionOfAll, correction);
    }
    return this.#compressLossless(loaded, budget, encodeCount);
  }

  /** The smallest of the lossless codecs. */
  #compressLossless(loaded: Loaded, { without = [] }: ErrorBudget, encodeCount = 0): Compressed {
    const { matrix } = loaded;
    const { elementBytes } = dtypeTraits(matrix.dtype);
    const finish = (choice: Choice): Compressed => {
      const unit = this.engine.encodeLoaded(loaded, choice);
      return { ...unit, choice, encodeCount: encodeCount + 1, error: 0 };
    };
    const isLeft = (codec: CodecName) => !without.includes(codec);
    if (isLeft("const") && isConstant(matrix.bytes, elementBytes))
      return finish({ codec: "const" });
    const planeBits = planeBitsOf(this.#workspace, loaded);
    // Planes of what is narrow already are constant: they beat `narrow` unless nothing else is coded.
    if (isLeft("narrow") && planeBits > 15.9 && isBrain(matrix)) {
      return finish({ codec: "narrow", variant: "bf16" });
    }
    if (!isLeft("plane") || planeBits > elementBytes * 8 * 0.99) return finish({ codec: "raw" });
    const planes = finish({ codec: "plane" });
    const isLonger = planes.bytes.byteLength > matrix.bytes.byteLength + 64;
    return isLonger ? { ...finish({ codec: "raw" }), encodeCount: encodeCount + 2 } : planes;
  }

  #lowRanks(loaded: Loaded, epsilon: number, bytesMax: number): Candidate[] {
    const { matrix } = loaded;
    const limit = epsilon < LOW_RANK_EPSILON_MIN ? 0 : rankLimit(matrix, "q8", bytesMax);
    if (limit < 1) return [];
    // The leading k of n eigenvalues sum to no more than the root of k times their squares' sum.
    const workspace = this.#workspace;
    const effectiveRank = effectiveRankOf(workspace, loaded);
    if (Math.max(0, 1 - epsilon ** 2) ** 2 * effectiveRank > 1.25 * limit) return [];
    return workspace.within(() => {
      const gram = formGram(workspace, loaded.values, matrix.rows, matrix.columns);
      // Twice as many components each time, while those left could still hold enough.
      for (let rank = Math.min(limit, PROBE_RANK); ; rank = Math.min(limit, 2 * rank)) {
        const { eigenvalues } = workspace.within(() => findSpectrum(workspace, gram, rank));
        const found = (["f16", "q8"] as const).flatMap((variant) => {
          const each = lowRankCandidate(matrix, variant, eigenvalues, gram.trace, epsilon);
          return each === null ? [] : [each];
        });
        const held = eigenvalues.reduce((sum, value) => sum + value, 0);
        const least = eigenvalues.at(-1) ?? 0;
        const within = held + (limit - eigenvalues.length) * least;
        if (found.length === 2 || rank >= limit) return found;
        if (within < gram.trace * (1 - epsilon ** 2)) return found;
      }
    });
  }
}

/** @throws {MisuseError} `bad-option`. */
function checkBudget({ metric, epsilon }: ErrorBudget, { attention }: TensorContext): void {
  if (!(epsilon >= 0 && epsilon <= 1)) {
    throw new MisuseError("bad-option", "epsilon is a number from 0 to 1");
  }
  if (!["relative", "max", "attention"].includes(metric)) {
    throw new MisuseError("bad-option", "metric is relative, max or attention");
  }
  if (metric === "attention" && attention === undefined && epsilon > 0) {
    throw new MisuseError("bad-option", "the metric attention needs queries and a partner");
  }
}

function replayOf(
  workspace: CodecWorkspace,
  loaded: Loaded,
  { metric }: ErrorBudget,
  { attention }: TensorContext,
): AttentionReplay | null {
  if (metric !== "attention" || attention === undefined) return null;
  return new AttentionReplay(workspace, loaded, attention);
}

function isAllowed(
  { codec }: Pick<Choice, "codec">,
  { allow, minBandwidth = 0, without }: ErrorBudget,
): boolean {
  if (codec === "raw" || codec === "plane") return true;
  if (without?.includes(codec) === true) return false;
  if (DECODE_BANDWIDTH[codec] < minBandwidth) return false;
  return allow === undefined || allow.includes(codec);
}

/** The error in the budget's metric. NaN, which no budget admits, if a value was not finite. */
function errorOf(
  unit: EncodedUnit,
  { metric }: ErrorBudget,
  { magnitude }: Facts,
  replay: AttentionReplay | null,
): number {
  if (Number.isNaN(unit.relativeError)) return Number.NaN;
  if (metric === "relative") return unit.relativeError;
  if (metric === "max") return magnitude > 0 ? unit.maxError / magnitude : 0;
  return replay === null ? Number.NaN : replay.measure() * REPLAY_FACTOR;
}

function isConstant(bytes: Uint8Array, elementBytes: number): boolean {
  for (let index = elementBytes; index < bytes.byteLength; index++) {
    if (bytes[index] !== bytes[index - elementBytes]) return false;
  }
  return true;
}

/** Whether every value is a bf16 already. */
function isBrain({ dtype, bytes }: Matrix): boolean {
  if (dtype !== "f32") return false;
  for (let index = 0; index < bytes.byteLength; index += 4) {
    if (bytes[index] !== 0 || bytes[index + 1] !== 0) return false;
  }
  return true;
}
