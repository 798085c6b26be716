// The real sink: durations become histograms of fixed classes, and moments of what happens become samples
// of the whole memory. Everything lies in typed arrays of fixed length, so nothing grows with what is recorded.
import type { Clock } from "../clock.js";
import type { LatencyStats, SeriesSample, SeriesStats } from "./recording.js";
import type { StatsSink } from "./stats-sink.js";

/** Upper end of the shortest class, and classes to each doubling. */
const LEAST_MS = 2 ** -10;
const CLASSES_PER_DOUBLING = 4;
/** From a microsecond to more than a minute, and one for what is longer. */
const CLASS_COUNT = 27 * CLASSES_PER_DOUBLING + 1;

const SAMPLE_CAPACITY = 128;
const FIRST_INTERVAL_MS = 100;
const COLUMNS = [
  "timeMs",
  "usedBytes",
  "grantedBytes",
  "hotBytes",
  "coldBytes",
  "hits",
  "joins",
  "misses",
  "rawBytesOut",
  "rawBytesIn",
] as const satisfies readonly (keyof SeriesSample)[];

/** Durations of one name. */
export class Histogram {
  readonly #classes = new Float64Array(CLASS_COUNT);
  #count = 0;
  #totalMs = 0;
  #leastMs = Number.POSITIVE_INFINITY;
  #mostMs = 0;

  note(durationMs: number): void {
    this.#classes[classOf(durationMs)] = (this.#classes[classOf(durationMs)] as number) + 1;
    this.#count += 1;
    this.#totalMs += durationMs;
    if (durationMs < this.#leastMs) this.#leastMs = durationMs;
    if (durationMs > this.#mostMs) this.#mostMs = durationMs;
  }

  /** Of at least one duration. */
  stats(name: string, sampledOneIn: number): LatencyStats {
    const classes: { upToMs: number; count: number }[] = [];
    for (const [index, count] of this.#classes.entries()) {
      if (count > 0) classes.push({ upToMs: upperMs(index), count });
    }
    return {
      name,
      sampledOneIn,
      count: this.#count,
      totalMs: this.#totalMs,
      leastMs: this.#leastMs,
      mostMs: this.#mostMs,
      p50Ms: this.#percentileMs(classes, 0.5),
      p90Ms: this.#percentileMs(classes, 0.9),
      p99Ms: this.#percentileMs(classes, 0.99),
      classes,
    };
  }

  #percentileMs(classes: LatencyStats["classes"], share: number): number {
    let seenCount = 0;
    for (const { upToMs, count } of classes) {
      seenCount += count;
      if (seenCount >= share * this.#count) return Math.min(upToMs, this.#mostMs);
    }
    return this.#mostMs;
  }
}

function classOf(durationMs: number): number {
  if (!(durationMs > LEAST_MS)) return 0;
  const index = Math.ceil(CLASSES_PER_DOUBLING * Math.log2(durationMs / LEAST_MS));
  return Math.min(index, CLASS_COUNT - 1);
}

function upperMs(index: number): number {
  if (index === CLASS_COUNT - 1) return Number.POSITIVE_INFINITY;
  return LEAST_MS * 2 ** (index / CLASSES_PER_DOUBLING);
}

export interface RecorderOptions {
  readonly clock: Clock;
  /** Told everything, too. */
  readonly next: StatsSink;
  /** One in so many operations of these names is timed; 1 of the others. */
  readonly sampledOneIn: ReadonlyMap<string, number>;
}

/** Fills a row with the figures of this moment, in the order of the columns but for the time. */
export type LookAt = () => Omit<SeriesSample, "timeMs">;

export class Recorder implements StatsSink {
  readonly #clock: Clock;
  readonly #next: StatsSink;
  readonly #sampledOneIn: ReadonlyMap<string, number>;
  readonly #histograms = new Map<string, Histogram>();
  readonly #rows = new Float64Array(SAMPLE_CAPACITY * COLUMNS.length);
  #rowCount = 0;
  #intervalMs = FIRST_INTERVAL_MS;
  #nextSampleMs = Number.NEGATIVE_INFINITY;
  #lookAt: LookAt | null = null;

  constructor(options: RecorderOptions) {
    this.#clock = options.clock;
    this.#next = options.next;
    this.#sampledOneIn = options.sampledOneIn;
  }

  /** From here on samples are taken, whenever something is told and the last one is old enough. */
  watch(lookAt: LookAt): void {
    this.#lookAt = lookAt;
  }

  count(name: string, amount: number): void {
    this.#next.count(name, amount);
    this.#sample();
  }

  time(name: string, durationMs: number): void {
    let histogram = this.#histograms.get(name);
    if (histogram === undefined) {
      histogram = new Histogram();
      this.#histograms.set(name, histogram);
    }
    histogram.note(durationMs);
    this.#next.time(name, durationMs);
    this.#sample();
  }

  latencies(): LatencyStats[] {
    return [...this.#histograms].map(([name, histogram]) =>
      histogram.stats(name, this.#sampledOneIn.get(name) ?? 1),
    );
  }

  series(): SeriesStats {
    const samples: SeriesSample[] = [];
    for (let row = 0; row < this.#rowCount; row++) {
      const cells = COLUMNS.map((name, column) => [
        name,
        this.#rows[row * COLUMNS.length + column],
      ]);
      samples.push(Object.fromEntries(cells) as SeriesSample);
    }
    return { intervalMs: this.#intervalMs, capacity: SAMPLE_CAPACITY, samples };
  }

  #sample(): void {
    if (this.#lookAt === null) return;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs < this.#nextSampleMs) return;
    this.#nextSampleMs = nowMs + this.#intervalMs;
    const sample = this.#lookAt();
    if (this.#rowCount === SAMPLE_CAPACITY) this.#thinOut();
    const at = this.#rowCount * COLUMNS.length;
    for (const [column, name] of COLUMNS.entries()) {
      this.#rows[at + column] = name === "timeMs" ? nowMs : sample[name];
    }
    this.#rowCount += 1;
  }

  /** Every other row goes, and from here on rows come half as often. */
  #thinOut(): void {
    const width = COLUMNS.length;
    for (let row = 1; row < SAMPLE_CAPACITY / 2; row++) {
      this.#rows.copyWithin(row * width, 2 * row * width, (2 * row + 1) * width);
    }
    this.#rowCount = SAMPLE_CAPACITY / 2;
    this.#intervalMs *= 2;
  }
}
