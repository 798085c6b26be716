// What a stack of tiers is made of.

import type { Clock } from "../clock.js";
import type { TierFigures } from "../hardware/hardware-profile.js";
import type { Feature } from "../stats/feature.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { Tier } from "../tier/tier.js";
import type { BreakerOptions } from "./circuit-breaker.js";
import type { ObjectMover } from "./object-mover.js";
import type { TierManager } from "./tier-manager.js";

export interface TierStackOptions {
  /** Fastest first; at most 8. */
  readonly tiers: readonly Tier[];
  /** Names of tiers that need not answer when the stack is opened. Default: none. */
  readonly mayBeAbsent?: readonly string[];
  readonly manager: TierManager;
  readonly mover: ObjectMover;
  readonly clock: Clock;
  /** What is known of tiers beforehand, by name. Default: nothing. */
  readonly figures?: Readonly<Record<string, TierFigures | undefined>>;
  readonly breaker?: BreakerOptions;
  /** Objects are records, so that a copy can be checked by itself. Default: false. */
  readonly checksRecords?: boolean;
  /** Copies upwards. Default: always on, unmetered. */
  readonly placement?: Feature | undefined;
  /** Told how long reads of each level take. Default: nobody. */
  readonly sink?: StatsSink | undefined;
  /** Told about every failure of a level. Default: nobody. */
  readonly onFailure?: (tier: string, error: Error) => void;
}
