// Learns per kind and site how long tensors live, and after which time without use, at which number
// of uses, hardly any of them is used again. Until a site has shown enough, what the caller expects
// counts; without that, nothing is over.
import { MisuseError } from "../errors.js";
import type { TensorKind } from "../types.js";
import { IdleTimes } from "./idle-times.js";
import type { LifetimePredictor, LifetimeSample } from "./lifetime-predictor.js";
import { LifetimesEnded } from "./lifetimes-ended.js";
import { toldLifetime } from "./told-lifetime.js";

export interface LearntLifetimeOptions {
  /**
   * Most of the tensors called over that may be used again, above 0 and at most 0.5. Default: 0.01.
   * Lower waits longer, and takes more examples before it calls any over: half as many as its inverse,
   * of which those that wait at the same time count as one.
   */
  readonly regretShare?: number | undefined;
}

/** Sites of a kind that are kept; beyond that the one seen first is forgotten. */
const SITE_COUNT_MAX = 512;
/** Lifetimes that a site must have ended before its history counts more than what was told. */
const ENDED_COUNT_MIN = 32;
/** Numbers of uses that are told apart; above them it is doublings, and those above the last are one. */
const USE_COUNT_EXACT = 32;
const USE_CLASS_COUNT = USE_COUNT_EXACT + 8;

interface SiteHistory {
  readonly lifetimes: LifetimesEnded;
  /** By number of uses. */
  readonly idle: (IdleTimes | undefined)[];
}

/** @throws {MisuseError} `bad-option` — the share is out of range. */
export function learntLifetime(options: LearntLifetimeOptions = {}): LifetimePredictor {
  const { regretShare = 0.01 } = options;
  if (typeof regretShare !== "number" || !(regretShare > 0 && regretShare <= 0.5)) {
    throw new MisuseError("bad-option", "regretShare is above 0 and at most 0.5");
  }
  const kinds = new Map<TensorKind, Map<string, SiteHistory>>();
  const known = ({ kind, site }: LifetimeSample) => kinds.get(kind)?.get(site);
  const addSite = ({ kind, site }: LifetimeSample): SiteHistory => {
    const sites = kinds.get(kind) ?? new Map<string, SiteHistory>();
    kinds.set(kind, sites);
    if (sites.size === SITE_COUNT_MAX) sites.delete(sites.keys().next().value as string);
    const history = { lifetimes: new LifetimesEnded(), idle: [] };
    sites.set(site, history);
    return history;
  };
  const useClassOf = (useCount: number) =>
    useCount < USE_COUNT_EXACT
      ? useCount
      : Math.min(
          USE_CLASS_COUNT - 1,
          USE_COUNT_EXACT + Math.clz32(USE_COUNT_EXACT) - Math.clz32(useCount),
        );
  return {
    name: "learnt",
    expectedMs: (sample) => {
      const lifetimes = known(sample)?.lifetimes;
      const isLearnt = lifetimes !== undefined && lifetimes.endedCount >= ENDED_COUNT_MIN;
      return isLearnt ? lifetimes.medianMs() : toldLifetime.expectedMs(sample);
    },
    isOver: (sample, age) => {
      const history = known(sample);
      if (history === undefined || history.lifetimes.endedCount < ENDED_COUNT_MIN) {
        return toldLifetime.isOver(sample, age);
      }
      const idle = history.idle[useClassOf(age.useCount)];
      return idle !== undefined && age.idleMs >= idle.overMs(regretShare);
    },
    observe: (sample, { ageMs, idleMs, useCount, nowMs }, end) => {
      const { lifetimes, idle } = known(sample) ?? addSite(sample);
      const place = useClassOf(useCount);
      const times = idle[place] ?? new IdleTimes();
      idle[place] = times;
      times.note(idleMs, nowMs, end);
      if (end !== "used") lifetimes.note(ageMs, end === "alive");
    },
    endCensus: () => {
      for (const sites of kinds.values()) {
        for (const { lifetimes, idle } of sites.values()) {
          lifetimes.endCensus();
          for (const times of idle) times?.endCensus();
        }
      }
    },
  };
}
