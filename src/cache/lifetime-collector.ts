// Gives up registered tensors that seem to be over, ahead of the policy's order: at few looks per
// allocation, the more often the fuller the heap is, and first of all when somebody needs room. Who is
// over is the predictor's business; what has no other copy is demoted, and dropped only if it is
// disposable. Has no timer: while nothing is allocated, nothing is looked at. Sees seams only.
import type { Clock } from "../clock.js";
import { TierheapError } from "../errors.js";
import type { LifetimePredictor, LifetimeSample } from "../lifetime/lifetime-predictor.js";
import type { Feature } from "../stats/feature.js";
import type { TensorKind } from "../types.js";
import type { Directory } from "./directory.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { PressureWatch } from "./pressure-watch.js";
import { nameOf, type TensorLife, type TensorRecord } from "./tensor-record.js";

export interface LifetimeCollectorOptions {
  readonly predictor: LifetimePredictor;
  readonly directory: Directory;
  readonly swapper: MemorySwapper;
  /** Demotes or drops a demotable tensor. @returns false when there is no room for any. */
  readonly giveUp: (record: TensorRecord) => Promise<boolean>;
  readonly watch: PressureWatch;
  readonly watermarks: { readonly high: number; readonly low: number };
  readonly clock: Clock;
  readonly feature: Feature;
}

/** Predicted against actual lifetimes of the tensors of one site that were freed. */
export interface SiteLifetimes {
  readonly kind: TensorKind;
  readonly site: string;
  readonly freedCount: number;
  /** Of these, those for which a lifetime had been predicted when they were allocated. */
  readonly predictedCount: number;
  /** Of these, those that lived between half and twice as long as that. */
  readonly withinTwiceCount: number;
  /** Means over them, in milliseconds; 0 without any. */
  readonly expectedMs: number;
  readonly livedMs: number;
  /** Freed until the first one of the site was collected; null: none was. */
  readonly freedBeforeCount: number | null;
}

export interface LifetimeStats {
  readonly predictor: string;
  /** Tensors that were ever registered. */
  readonly registeredCount: number;
  /** Left because they seemed over; of these dropped, which only disposable ones are. */
  readonly collectedCount: number;
  readonly collectedBytes: number;
  readonly droppedCount: number;
  /** Collected, and wanted again. */
  readonly regretCount: number;
  /** Tensors looked at. */
  readonly lookCount: number;
  /** One tensor at most is pinned by the collector, or about to be. */
  readonly isRunning: boolean;
  /** Sites with most tensors freed first. */
  readonly sites: readonly SiteLifetimes[];
}

/** Allocations and loads between two looks: below the low watermark, just above it, and at the high one. */
const REST_STRIDE = 32;
const STRIDE_MAX = 32;
const STRIDE_MIN = 2;
/** What counts of a peak after so many allocations or loads: who has been full will be again. */
const PEAK_SHARE_KEPT = 0.5;
const PEAK_ALLOCATIONS = 32_768;
/** Tensors that one look asks about, and looks in vain for those who need room, between two uses. */
const LOOK_COUNT = 32;
const VAIN_LOOKS_MAX = 4;
/** Tensors that wait for being given up, and those of them that one search asks about. */
const DUE_COUNT_MAX = 1024;
const DUE_LOOK_COUNT = 64;
/** Tensors that one run gives up at most. */
const RUN_COUNT_MAX = 32;
/** Sites that are told apart in the statistics; the rest is one more. */
const SITE_COUNT_MAX = 64;
/** Ids of dropped tensors that are kept, to notice when one is wanted. */
const DROPPED_COUNT_MAX = 4096;

type SiteSum = { -readonly [Name in keyof SiteLifetimes]: SiteLifetimes[Name] };

/** A place where tensors are allocated. */
interface Place {
  readonly sum: SiteSum;
  /** As the one registered last had it: most are like the one before. */
  sample: LifetimeSample;
}

export class LifetimeCollector {
  readonly #options: LifetimeCollectorOptions;
  readonly #places = new Map<TensorKind, Map<string, Place>>();
  #placeCount = 0;
  /** Of those beyond {@link SITE_COUNT_MAX}. */
  #others: SiteSum | null = null;
  readonly #dropped = new Set<string>();
  /** Found over, and not given up yet: for the next run, and for those who need room. Each once. */
  readonly #due: TensorRecord[] = [];
  /** Where the next look goes on in the directory. */
  #lookIndex = 0;
  #vainLookCount = 0;
  #untilLook = REST_STRIDE;
  #stride = REST_STRIDE;
  /** Of the bytes that were resident lately. */
  #peakBytes = 0;
  #isRunning = false;
  #isStopped = false;
  #registeredCount = 0;
  #collectedCount = 0;
  #collectedBytes = 0;
  #regretCount = 0;
  #droppedCount = 0;
  #lookCount = 0;

  constructor(options: LifetimeCollectorOptions) {
    this.#options = options;
  }

  /** Registers a fresh named tensor, if it has a site or a told lifetime. */
  register(record: TensorRecord, site: string, toldMs: number): void {
    const { kind, byteLength: bytes } = record;
    if (site === "" && toldMs === Number.POSITIVE_INFINITY) return;
    const { predictor, clock } = this.#options;
    const place = this.#placeOf(kind, site);
    if (place.sample.bytes !== bytes || place.sample.toldMs !== toldMs) {
      place.sample = { kind, bytes, site, toldMs };
    }
    const { sample } = place;
    const nowMs = clock.monotonicMs();
    this.#registeredCount += 1;
    this.#vainLookCount = 0;
    record.life = {
      sample,
      expectedMs: predictor.expectedMs(sample),
      allocatedMs: nowMs,
      usedMs: nowMs,
      useCount: 0,
      isDue: false,
      isChosen: false,
      isCollected: false,
    };
  }

  /** A registered tensor is pinned. */
  used(life: TensorLife): void {
    const { predictor, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    predictor.observe(life.sample, ageOf(life, nowMs), "used");
    life.usedMs = nowMs;
    life.useCount += 1;
    life.isChosen = false;
    this.#vainLookCount = 0;
    if (!life.isCollected) return;
    life.isCollected = false;
    this.#regret(life.sample.bytes);
  }

  /** A registered tensor was freed by its owner. */
  freed(life: TensorLife): void {
    const { predictor, clock } = this.#options;
    const age = ageOf(life, clock.monotonicMs());
    predictor.observe(life.sample, age, "freed");
    if (life.isCollected) this.#options.feature.settle(0, this.#loadMs(life.sample.bytes));
    const site = this.#placeOf(life.sample.kind, life.sample.site).sum;
    site.freedCount += 1;
    if (life.expectedMs === Number.POSITIVE_INFINITY) return;
    site.predictedCount += 1;
    site.expectedMs += life.expectedMs;
    site.livedMs += age.ageMs;
    const ratio = age.ageMs / life.expectedMs;
    if (ratio >= 0.5 && ratio <= 2) site.withinTwiceCount += 1;
  }

  /** An id is asked for, or made again: one that the collector has dropped is regretted. */
  noteWanted(id: string): void {
    if (this.#dropped.size === 0 || !this.#dropped.delete(id)) return;
    // How long it was is forgotten: as long as others.
    this.#regret(this.#collectedBytes / this.#collectedCount);
  }

  /** After an allocation or a load: one comparison, as a rule. */
  note(): void {
    this.#untilLook -= 1;
    if (this.#untilLook > 0) return;
    const { swapper, watch, watermarks } = this.#options;
    const { high, low } = watermarks;
    const keptShare = PEAK_SHARE_KEPT ** (this.#stride / PEAK_ALLOCATIONS);
    this.#peakBytes = Math.max(swapper.hotBytesNow(), this.#peakBytes * keptShare);
    const fill = (this.#peakBytes / watch.highBytes) * high;
    const closeness = high === low ? 1 : Math.min(1, (fill - low) / (high - low));
    const isFull = fill >= low;
    this.#stride = isFull
      ? Math.round(STRIDE_MAX - closeness * (STRIDE_MAX - STRIDE_MIN))
      : REST_STRIDE;
    this.#untilLook = this.#stride;
    if (!isFull) return;
    if (!this.#options.feature.allows()) return;
    this.#look(this.#options.clock.monotonicMs(), () => false);
    if (this.#due.length > 0) this.#begin();
  }

  /**
   * A tensor that seems over, of those that may leave.
   *
   * @param mayLeave Asked about those that seem over alone.
   * @returns null when a bounded search finds none.
   */
  next(mayLeave: (record: TensorRecord) => boolean): TensorRecord | null {
    const { clock, feature } = this.#options;
    if (!feature.isOn) return null;
    const nowMs = clock.monotonicMs();
    let record = this.#takeDue(nowMs, mayLeave);
    while (record === null && this.#vainLookCount < VAIN_LOOKS_MAX) {
      this.#vainLookCount += 1;
      record = this.#look(nowMs, mayLeave);
    }
    if (record?.life) {
      this.#vainLookCount = 0;
      record.life.isChosen = true;
    }
    return record;
  }

  /** A tensor has left for want of room, or because it seemed over: the latter is counted. */
  left(record: TensorRecord): void {
    const { life, byteLength } = record;
    if (life === null || !life.isChosen) return;
    life.isChosen = false;
    const { sum } = this.#placeOf(life.sample.kind, life.sample.site);
    sum.freedBeforeCount ??= sum.freedCount;
    this.#collectedCount += 1;
    this.#collectedBytes += byteLength;
    // Somebody else could stay, and need not be loaded.
    this.#options.feature.earn(this.#loadMs(byteLength), byteLength);
    if (!record.isDropped) {
      life.isCollected = true;
      return;
    }
    this.#droppedCount += 1;
    if (this.#dropped.size === DROPPED_COUNT_MAX) {
      this.#dropped.delete(this.#dropped.values().next().value as string);
    }
    this.#dropped.add(nameOf(record));
  }

  /** Ends what is under way after its present transfer, for good. */
  stop(): void {
    this.#isStopped = true;
  }

  stats(): LifetimeStats {
    const sums = [...this.#places.values()].flatMap((places) => [...places.values()]);
    const others = this.#others === null ? [] : [this.#others];
    const sites = [...sums.map(({ sum }) => sum), ...others].map((site) => ({
      ...site,
      expectedMs: site.expectedMs / Math.max(1, site.predictedCount),
      livedMs: site.livedMs / Math.max(1, site.predictedCount),
    }));
    return {
      predictor: this.#options.predictor.name,
      registeredCount: this.#registeredCount,
      collectedCount: this.#collectedCount,
      collectedBytes: this.#collectedBytes,
      droppedCount: this.#droppedCount,
      regretCount: this.#regretCount,
      lookCount: this.#lookCount,
      isRunning: this.#isRunning,
      sites: sites.sort((left, right) => right.freedCount - left.freedCount),
    };
  }

  /**
   * Asks about the next few tensors, and tells the predictor how old they are. Those that seem over and
   * are not wanted are due.
   *
   * @returns The first that seems over and is wanted, or null.
   */
  #look(nowMs: number, wants: (record: TensorRecord) => boolean): TensorRecord | null {
    const { directory, predictor, swapper } = this.#options;
    for (let step = 0; step < LOOK_COUNT; step++) {
      if (this.#lookIndex >= directory.indexEnd) {
        this.#lookIndex = 0;
        predictor.endCensus();
        return null;
      }
      const record = directory.find(this.#lookIndex);
      this.#lookIndex += 1;
      if (record === undefined || record.life === null) continue;
      const { life } = record;
      this.#lookCount += 1;
      predictor.observe(life.sample, ageOf(life, nowMs), "alive");
      if (life.isDue || !record.isResident || !this.#isOver(life, nowMs)) continue;
      if (wants(record)) return record;
      if (this.#due.length === DUE_COUNT_MAX || !swapper.canDemote(record)) continue;
      life.isDue = true;
      this.#due.push(record);
    }
    return null;
  }

  /** Takes the next one that is due, still seems over and is wanted; those that are not wanted stay. */
  #takeDue(nowMs: number, wants: (record: TensorRecord) => boolean): TensorRecord | null {
    const count = Math.min(DUE_LOOK_COUNT, this.#due.length);
    for (let step = 0; step < count; step++) {
      const record = this.#due.shift() as TensorRecord;
      const life = record.life as TensorLife;
      const isOver = record.isResident && !record.isFreed && this.#isOver(life, nowMs);
      if (isOver && !wants(record)) {
        this.#due.push(record);
        continue;
      }
      life.isDue = false;
      if (isOver) return record;
    }
    return null;
  }

  /** What was collected is wanted again: it has to be loaded, and the other's load was not spared. */
  #regret(bytes: number): void {
    const loadMs = this.#loadMs(bytes);
    this.#regretCount += 1;
    this.#options.feature.spend(loadMs ?? 0, bytes);
    this.#options.feature.settle(loadMs ?? 0, loadMs === null ? null : 0);
  }

  #loadMs(bytes: number): number | null {
    return this.#options.swapper.speed.estimateMs(bytes);
  }

  #isOver(life: TensorLife, nowMs: number): boolean {
    return this.#options.predictor.isOver(life.sample, ageOf(life, nowMs));
  }

  #begin(): void {
    if (this.#isRunning || this.#isStopped) return;
    this.#isRunning = true;
    this.#options.swapper.transfers.watchRun(this.#run());
  }

  async #run(): Promise<void> {
    const { clock, swapper, giveUp, feature } = this.#options;
    try {
      // In a turn of its own: whoever allocates may still be about to pin.
      await Promise.resolve();
      for (let count = 0; count < RUN_COUNT_MAX; count++) {
        if (this.#isStopped || !feature.isOn) return;
        // Some were used, freed or moved meanwhile.
        const nowMs = clock.monotonicMs();
        const record = this.#takeDue(nowMs, (each) => swapper.canDemote(each));
        if (record?.life == null) return;
        record.life.isChosen = true;
        if (!(await giveUp(record))) return;
      }
    } catch (error) {
      if (!(error instanceof TierheapError)) throw error;
      // What a demotion found is told by its own event; the tensor stays.
    } finally {
      this.#isRunning = false;
    }
  }

  #placeOf(kind: TensorKind, site: string): Place {
    const places = this.#places.get(kind) ?? new Map<string, Place>();
    const known = places.get(site);
    if (known !== undefined) return known;
    const sample: LifetimeSample = { kind, bytes: 0, site, toldMs: Number.POSITIVE_INFINITY };
    if (this.#placeCount === SITE_COUNT_MAX) {
      this.#others ??= noneFreed(kind, "(others)");
      return { sum: this.#others, sample };
    }
    const fresh: Place = { sum: noneFreed(kind, site), sample };
    this.#places.set(kind, places.set(site, fresh));
    this.#placeCount += 1;
    return fresh;
  }
}

function noneFreed(kind: TensorKind, site: string): SiteSum {
  const counts = { freedCount: 0, predictedCount: 0, withinTwiceCount: 0, freedBeforeCount: null };
  return { kind, site, ...counts, expectedMs: 0, livedMs: 0 };
}

function ageOf({ allocatedMs, usedMs, useCount }: TensorLife, nowMs: number) {
  return { ageMs: nowMs - allocatedMs, idleMs: nowMs - usedMs, useCount, nowMs };
}
