// What watches a memory from outside: the governor of its optimisations, the recorder of its latencies and
// of its course. Wires them to what they look at, and puts the balances of all features into one table,
// also of those that govern themselves.
import type { CodecStats } from "../cache/codec-meter.js";
import type { DisposableStats } from "../cache/disposables.js";
import type { LookupStats } from "../cache/hierarchical-cache.js";
import type { SwapperStats } from "../cache/swapper-stats.js";
import type { TranscodingBalance } from "../cache/transcode-gate.js";
import type { TransferSpeed } from "../cache/transfer-speed.js";
import type { Clock } from "../clock.js";
import type { EventHub } from "../memory/events.js";
import { checkFeatures, codecsOff } from "../memory/feature-options.js";
import type { CheckedOptions, TensorMemoryOptions } from "../memory/options.js";
import type { LearntStats } from "../policy/learnt-stats.js";
import type { Feature, FeatureMode, FeatureName, FeatureStats } from "../stats/feature.js";
import { Governor } from "../stats/governor.js";
import type { ObservedStats } from "../stats/memory-stats.js";
import { nullSink } from "../stats/null-sink.js";
import { Recorder } from "../stats/recorder.js";
import type { SeriesSample } from "../stats/recording.js";
import type { StatsSink } from "../stats/stats-sink.js";

/** One in so many allocations is timed. */
const TIMED_ALLOCATIONS = 1024;

/** What is looked at. */
export interface ObservedParts {
  readonly budget: { readonly usedBytes: number };
  readonly pools: ReadonlyMap<unknown, { readonly grantedBytes: number }>;
  readonly cache: { lookupStats(): LookupStats };
  readonly swapper: { stats(): SwapperStats; readonly speed: TransferSpeed };
  readonly engine: {
    readonly tier: { stats(): { readonly storedBytes: number } };
    codecStats(): CodecStats[];
    readonly codingGate: {
      readonly switchedOffCount: number;
      readonly plainMsPerByte: number | null;
    };
  };
  readonly stack: { transcodingBalance(): TranscodingBalance | null } | null;
  readonly disposables: { stats(): DisposableStats };
  /** null: the order of leaving was chosen. */
  readonly learnt: { stats(): LearntStats } | null;
}

export class Observer {
  readonly sink: StatsSink;
  /** 0: no allocation is timed. */
  readonly timedOneIn: number;
  /** Names of codecs that are off. */
  readonly codecsOff: readonly string[];
  readonly #governor: Governor;
  readonly #recorder: Recorder | null;
  readonly #parts: { current: ObservedParts | null } = { current: null };

  /** @throws {MisuseError} `bad-option`. */
  constructor(given: {
    readonly options: TensorMemoryOptions;
    readonly checked: CheckedOptions;
    readonly clock: Clock;
    readonly events: EventHub;
  }) {
    const { options, checked, clock, events } = given;
    const features = checkFeatures(options.features);
    this.codecsOff = codecsOff(features);
    const onDemand = checked.compaction === null ? { compaction: false } : {};
    const uncollected = options.lifetimes === false ? { collector: false } : {};
    this.#governor = new Governor({
      modes: { ...features, ...onDemand, ...uncollected },
      onSwitch: (change) => events.emit({ type: "feature", ...change }),
    });
    const next = options.seams?.statsSink ?? nullSink;
    const isFull = options.statistics !== "counters";
    this.timedOneIn = isFull ? TIMED_ALLOCATIONS : 0;
    const sampledOneIn = new Map([["allocate", TIMED_ALLOCATIONS]]);
    this.#recorder = isFull ? new Recorder({ clock, next, sampledOneIn }) : null;
    this.sink = this.#recorder ?? next;
  }

  modeOf(name: FeatureName): FeatureMode {
    return this.#governor.modeOf(name);
  }

  isOff(name: FeatureName): boolean {
    return this.modeOf(name) === false;
  }

  /** A feature that the governor watches. Asked once for each. */
  feature(name: FeatureName): Feature {
    return this.#governor.feature(name);
  }

  /** From here on it has something to look at. */
  watch(parts: ObservedParts): void {
    this.#parts.current = parts;
    this.#recorder?.watch(() => sampleOf(parts));
  }

  stats(): ObservedStats {
    const parts = this.#parts.current;
    return {
      features: [...this.#governor.stats(), ...(parts === null ? [] : this.#ownRows(parts))],
      latencies: this.#recorder?.latencies() ?? [],
      series: this.#recorder?.series() ?? null,
      learnt: parts?.learnt?.stats() ?? null,
    };
  }

  /** Those that measure for each decision what it costs. */
  #ownRows(parts: ObservedParts): FeatureStats[] {
    const { swapper, engine, stack, disposables, learnt } = parts;
    const { speed } = swapper;
    const { hotBytes, hotCount } = swapper.stats();
    const moveMs = (bytes: number) => (bytes > 0 ? (speed.estimateMs(bytes) ?? 0) : 0);
    const rows: FeatureStats[] = [];
    const { refusedCount, refusedBytes, wantedAgainCount, wantedAgainBytes } = disposables.stats();
    rows.push(
      this.#row("admission", {
        cost: amount(moveMs(wantedAgainBytes), wantedAgainBytes, wantedAgainCount),
        gain: amount(moveMs(refusedBytes), refusedBytes, refusedCount),
      }),
    );
    if (this.isOff("learntPolicy")) rows.push(this.#row("learntPolicy", {}));
    if (learnt !== null) {
      const { spentMs, useCount, hitsGained, isRanking, switchCount } = learnt.stats();
      const meanBytes = hotCount === 0 ? 0 : hotBytes / hotCount;
      const gained = Math.max(0, hitsGained);
      const lost = Math.max(0, -hitsGained);
      const row = this.#row("learntPolicy", {
        cost: amount(spentMs + lost * moveMs(meanBytes), lost * meanBytes, useCount),
        gain: amount(gained * moveMs(meanBytes), gained * meanBytes, gained),
        // It begins with recency, so every second change is a step back.
        switchedOffCount: Math.floor(switchCount / 2),
      });
      rows.push({ ...row, isOn: row.isOn && isRanking });
    }
    const codecs = engine.codecStats().filter(({ codec }) => codec !== "raw");
    const ofCodecs = codecs.map((each) => {
      const savedBytes = Math.max(0, each.rawBytes - each.storedBytes);
      return {
        name: `codec/${each.codec}` as FeatureName,
        gainMs: savedBytes * (engine.codingGate.plainMsPerByte ?? 0),
        savedBytes,
        ...each,
      };
    });
    const sum = (pick: (each: (typeof ofCodecs)[number]) => number) =>
      ofCodecs.reduce((total, each) => total + pick(each), 0);
    rows.push(
      this.#row("coding", {
        cost: amount(
          sum(({ encodeMs, decodeMs }) => encodeMs + decodeMs),
          sum(({ rawBytes }) => rawBytes),
          sum(({ tensorCount }) => tensorCount),
        ),
        gain: amount(
          sum(({ gainMs }) => gainMs),
          sum(({ savedBytes }) => savedBytes),
          sum(({ tensorCount }) => tensorCount),
        ),
        switchedOffCount: engine.codingGate.switchedOffCount,
      }),
    );
    for (const {
      name,
      encodeMs,
      decodeMs,
      rawBytes,
      tensorCount,
      gainMs,
      savedBytes,
    } of ofCodecs) {
      rows.push(
        this.#row(name, {
          cost: amount(encodeMs + decodeMs, rawBytes, tensorCount),
          gain: amount(gainMs, savedBytes, savedBytes > 0 ? tensorCount : 0),
        }),
      );
    }
    for (const codec of this.codecsOff) {
      const name = `codec/${codec}` as FeatureName;
      if (!rows.some((row) => row.name === name)) rows.push(this.#row(name, {}));
    }
    const transcoding = stack?.transcodingBalance() ?? null;
    if (transcoding !== null) {
      const { spentMs, codedBytes, savedBytes, recordCount, switchedOffCount } = transcoding;
      rows.push(
        this.#row("transcoding", {
          cost: amount(spentMs, codedBytes, recordCount),
          gain: amount(2 * moveMs(savedBytes), savedBytes, recordCount),
          switchedOffCount,
        }),
      );
    }
    return rows;
  }

  #row(
    name: FeatureName,
    balance: Partial<Pick<FeatureStats, "cost" | "gain" | "switchedOffCount">>,
  ): FeatureStats {
    const mode = this.modeOf(name);
    const nothing = { cost: amount(0, 0, 0), gain: amount(0, 0, 0), switchedOffCount: 0 };
    const governedBy = mode === "auto" ? "itself" : "option";
    return { name, isOn: mode !== false, governedBy, ...nothing, ...balance };
  }
}

function amount(ms: number, bytes: number, count: number): FeatureStats["cost"] {
  return { ns: Math.round(ms * 1e6), bytes: Math.round(bytes), count };
}

function sampleOf(parts: ObservedParts): Omit<SeriesSample, "timeMs"> {
  const { hits, joins, misses } = parts.cache.lookupStats();
  const { hotBytes, rawBytesOut, rawBytesIn } = parts.swapper.stats();
  let grantedBytes = 0;
  for (const pool of parts.pools.values()) grantedBytes += pool.grantedBytes;
  const coldBytes = parts.engine.tier.stats().storedBytes;
  const { usedBytes } = parts.budget;
  const moved = { rawBytesOut, rawBytesIn };
  return { usedBytes, grantedBytes, hotBytes, coldBytes, hits, joins, misses, ...moved };
}
