// Gives up registered tensors that seem to be over, ahead of the policy's order: at few looks per
// allocation, the more often the fuller the heap is, and first of all when somebody needs room. Who is
// over is the predictor's business; what has no other copy is demoted, and dropped only if it is
// disposable. Has no timer: while nothing is allocated, nothing is looked at. Sees seams only.
import type { Clock } from "../clock.js";
import { TierheapError } from "../errors.js";
import type { LifetimePredictor, LifetimeSample } from "../lifetime/lifetime-predictor.js";
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
/** What counts of the last peak at the next look: who has been full will be again. */
const PEAK_SHARE_KEPT = 0.99;
/** Tensors that one look asks about, and one search for room. */
const LOOK_COUNT = 32;
const SEARCH_COUNT = 4096;
/** Tensors that one run gives up at most. */
const RUN_COUNT_MAX = 32;
/** Sites that are told apart in the statistics; the rest is one more. */
const SITE_COUNT_MAX = 64;
/** Ids of dropped tensors that are kept, to notice when one is wanted. */
const DROPPED_COUNT_MAX = 4096;

type SiteSum = { -readonly [Name in keyof SiteLifetimes]: SiteLifetimes[Name] };

export class LifetimeCollector {
  readonly #options: LifetimeCollectorOptions;
  readonly #sites = new Map<string, SiteSum>();
  readonly #dropped = new Set<string>();
  /** Found over, and not given up yet: for the next run, and for those who need room. */
  #due: TensorRecord[] = [];
  readonly #chosen = new WeakSet<TensorRecord>();
  /** Where the next look goes on in the directory, and the next search. */
  #lookIndex = 0;
  #searchIndex = 0;
  #untilLook = REST_STRIDE;
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
    const sample: LifetimeSample = { kind, bytes, site, toldMs };
    const nowMs = clock.monotonicMs();
    this.#registeredCount += 1;
    record.life = {
      sample,
      expectedMs: predictor.expectedMs(sample),
      allocatedMs: nowMs,
      usedMs: nowMs,
      useCount: 0,
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
    if (!life.isCollected) return;
    life.isCollected = false;
    this.#regretCount += 1;
  }

  /** A registered tensor was freed by its owner. */
  freed(life: TensorLife): void {
    const { predictor, clock } = this.#options;
    const age = ageOf(life, clock.monotonicMs());
    predictor.observe(life.sample, age, "freed");
    const site = this.#siteOf(life.sample);
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
    if (this.#dropped.size > 0 && this.#dropped.delete(id)) this.#regretCount += 1;
  }

  /** After an allocation or a load: one comparison, as a rule. */
  note(): void {
    this.#untilLook -= 1;
    if (this.#untilLook > 0) return;
    const { swapper, watch, watermarks } = this.#options;
    const { high, low } = watermarks;
    this.#peakBytes = Math.max(swapper.hotBytesNow(), this.#peakBytes * PEAK_SHARE_KEPT);
    const fill = (this.#peakBytes / watch.highBytes) * high;
    if (fill < low) {
      this.#untilLook = REST_STRIDE;
      return;
    }
    const closeness = high === low ? 1 : Math.min(1, (fill - low) / (high - low));
    this.#untilLook = Math.round(STRIDE_MAX - closeness * (STRIDE_MAX - STRIDE_MIN));
    this.#look();
    if (this.#due.length > 0) this.#begin();
  }

  /**
   * A tensor that seems over, of those that may leave.
   *
   * @param mayLeave Asked about those that seem over alone.
   * @returns null when a bounded search finds none.
   */
  next(mayLeave: (record: TensorRecord) => boolean): TensorRecord | null {
    const { directory } = this.#options;
    const nowMs = this.#options.clock.monotonicMs();
    const count = Math.min(SEARCH_COUNT, directory.indexEnd);
    for (let step = 0; step < count; step++) {
      this.#searchIndex = (this.#searchIndex + 1) % directory.indexEnd;
      const record = directory.find(this.#searchIndex);
      if (record === undefined || record.life === null || !record.isResident) continue;
      if (!this.#isOver(record.life, nowMs) || !mayLeave(record)) continue;
      this.#chosen.add(record);
      return record;
    }
    return null;
  }

  /** A tensor has left for want of room, or because it seemed over: the latter is counted. */
  left(record: TensorRecord): void {
    const { life, byteLength } = record;
    if (life === null || !this.#chosen.delete(record)) return;
    this.#collectedCount += 1;
    this.#collectedBytes += byteLength;
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
    const sites = [...this.#sites.values()].map((site) => ({
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

  /** Asks about the next few tensors, and tells the predictor how old they are. */
  #look(): void {
    const { directory, predictor, clock, swapper } = this.#options;
    const nowMs = clock.monotonicMs();
    for (let step = 0; step < LOOK_COUNT; step++) {
      if (this.#lookIndex >= directory.indexEnd) {
        this.#lookIndex = 0;
        predictor.endCensus();
        return;
      }
      const record = directory.find(this.#lookIndex);
      this.#lookIndex += 1;
      if (record === undefined || record.life === null) continue;
      this.#lookCount += 1;
      predictor.observe(record.life.sample, ageOf(record.life, nowMs), "alive");
      if (this.#due.length >= RUN_COUNT_MAX || !this.#isOver(record.life, nowMs)) continue;
      if (swapper.canDemote(record)) this.#due.push(record);
    }
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
    const { clock, swapper, giveUp } = this.#options;
    try {
      // In a turn of its own: whoever allocates may still be about to pin.
      await Promise.resolve();
      for (let record = this.#due.pop(); record !== undefined; record = this.#due.pop()) {
        if (this.#isStopped) return;
        // Used, freed or moved meanwhile.
        if (!swapper.canDemote(record) || record.life === null) continue;
        if (!this.#isOver(record.life, clock.monotonicMs())) continue;
        this.#chosen.add(record);
        if (!(await giveUp(record))) return;
      }
    } catch (error) {
      if (!(error instanceof TierheapError)) throw error;
      // What a demotion found is told by its own event; the tensor stays.
    } finally {
      this.#due = [];
      this.#isRunning = false;
    }
  }

  #siteOf({ kind, site }: LifetimeSample): SiteSum {
    const isFull = this.#sites.size >= SITE_COUNT_MAX;
    const name = `${kind} ${site}`;
    const known = this.#sites.get(name) ?? (isFull ? this.#sites.get("") : undefined);
    if (known !== undefined) return known;
    const fresh: SiteSum = {
      kind,
      site: isFull ? "(others)" : site,
      freedCount: 0,
      predictedCount: 0,
      withinTwiceCount: 0,
      expectedMs: 0,
      livedMs: 0,
    };
    this.#sites.set(isFull ? "" : name, fresh);
    return fresh;
  }
}

function ageOf({ allocatedMs, usedMs, useCount }: TensorLife, nowMs: number) {
  return { ageMs: nowMs - allocatedMs, idleMs: nowMs - usedMs, useCount };
}
