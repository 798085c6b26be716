// Switches a feature off while it costs more than it gives, by its own last outcomes, and tries it again
// after a rest. Knows no feature by its name. Cost: a few additions for each outcome; no clock, no timer.
import type { Feature, FeatureChange, FeatureMode, FeatureName, FeatureStats } from "./feature.js";

export interface GovernorOptions {
  /** Default of each: `"auto"`. */
  readonly modes: { readonly [name in FeatureName]?: FeatureMode | undefined };
  /** Told when a feature is switched off, or on for a trial. */
  readonly onSwitch: (change: FeatureChange) => void;
}

/** Outcomes between two judgements. */
const JUDGED_OUTCOMES = 32;
/** It is switched off only when it costs more than this many times its gain. */
const LOSS_MIN = 1.25;
/** Part of a judged balance that counts in the next judgement. */
const KEPT_SHARE = 1 / 2;
/** Occasions for which it rests; twice as many after each trial that failed. */
const REST_OCCASIONS = 1000;
const REST_DOUBLINGS_MAX = 10;

export class Governor {
  readonly #options: GovernorOptions;
  readonly #features: GovernedFeature[] = [];

  constructor(options: GovernorOptions) {
    this.#options = options;
  }

  modeOf(name: FeatureName): FeatureMode {
    return this.#options.modes[name] ?? "auto";
  }

  /** A feature that is governed here. Asked once for each name. */
  feature(name: FeatureName): Feature {
    const feature = new GovernedFeature(name, this.modeOf(name), this.#options.onSwitch);
    this.#features.push(feature);
    return feature;
  }

  /** In the order in which they were made. */
  stats(): FeatureStats[] {
    return this.#features.map((feature) => feature.stats());
  }
}

class GovernedFeature implements Feature {
  isOn: boolean;
  readonly #name: FeatureName;
  readonly #mode: FeatureMode;
  readonly #onSwitch: GovernorOptions["onSwitch"];
  readonly #cost = { ms: 0, bytes: 0, count: 0 };
  readonly #gain = { ms: 0, bytes: 0, count: 0 };
  /** Sums over outcomes that fade. */
  #recentCostMs = 0;
  #recentGainMs = 0;
  #outcomeCount = 0;
  /** An outcome since the last judgement could not be told. */
  #isUntold = false;
  /** Trials in a row that ended in a loss. */
  #failedTrialCount = 0;
  /** Occasions until the next trial. */
  #restCount = 0;
  #switchedOffCount = 0;

  constructor(name: FeatureName, mode: FeatureMode, onSwitch: GovernorOptions["onSwitch"]) {
    this.#name = name;
    this.#mode = mode;
    this.#onSwitch = onSwitch;
    this.isOn = mode !== false;
  }

  allows(): boolean {
    if (this.isOn || this.#mode === false) return this.isOn;
    this.#restCount -= 1;
    if (this.#restCount > 0) return false;
    this.isOn = true;
    this.#forget(0);
    this.#onSwitch({ feature: this.#name, isOn: true, costMs: 0, gainMs: 0 });
    return true;
  }

  spend(ms: number, bytes: number): void {
    this.#cost.ms += ms;
    this.#cost.bytes += bytes;
    this.#cost.count += 1;
  }

  earn(ms: number | null, bytes: number): void {
    this.#gain.ms += ms ?? 0;
    this.#gain.bytes += bytes;
    this.#gain.count += 1;
  }

  settle(costMs: number, gainMs: number | null): void {
    // What was under way when it was switched off.
    if (!this.isOn) return;
    if (gainMs === null) this.#isUntold = true;
    this.#recentCostMs += costMs;
    this.#recentGainMs += gainMs ?? 0;
    this.#outcomeCount += 1;
    if (this.#outcomeCount === JUDGED_OUTCOMES) this.#judge();
  }

  stats(): FeatureStats {
    const amountOf = ({ ms, bytes, count }: { ms: number; bytes: number; count: number }) => ({
      ns: Math.round(ms * 1e6),
      bytes: Math.round(bytes),
      count,
    });
    return {
      name: this.#name,
      isOn: this.isOn,
      governedBy: this.#mode === "auto" ? "governor" : "option",
      cost: amountOf(this.#cost),
      gain: amountOf(this.#gain),
      switchedOffCount: this.#switchedOffCount,
    };
  }

  #judge(): void {
    const costMs = this.#recentCostMs;
    const gainMs = this.#recentGainMs;
    const isLoss = !this.#isUntold && costMs > LOSS_MIN * gainMs;
    if (this.#mode !== "auto" || !isLoss) {
      if (!this.#isUntold) this.#failedTrialCount = 0;
      this.#forget(KEPT_SHARE);
      return;
    }
    const doublings = Math.min(this.#failedTrialCount, REST_DOUBLINGS_MAX);
    this.#restCount = REST_OCCASIONS * 2 ** doublings;
    this.#failedTrialCount += 1;
    this.#switchedOffCount += 1;
    this.isOn = false;
    this.#forget(0);
    this.#onSwitch({ feature: this.#name, isOn: false, costMs, gainMs });
  }

  #forget(keptShare: number): void {
    this.#recentCostMs *= keptShare;
    this.#recentGainMs *= keptShare;
    this.#outcomeCount = 0;
    this.#isUntold = false;
  }
}
