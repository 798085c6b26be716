// One level of a stack of tiers: the tier, whether it can be asked, how fast it is, what lies in it.
// Decides nothing about what goes where.
import type { Clock } from "../clock.js";
import { TierError } from "../errors.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { Tier, TierKey } from "../tier/tier.js";
import type { ErrorLimit } from "../types.js";
import { type BreakerOptions, type BreakerState, CircuitBreaker } from "./circuit-breaker.js";
import { TransferSpeed } from "./transfer-speed.js";

/** An object of a stack. */
export interface StackObject {
  readonly key: TierKey;
  /** null until it was seen: of what an earlier process left. */
  byteLength: number | null;
  kind: string | null;
  isDurable: boolean | null;
  isSaved: boolean | null;
  expiresMs: number;
  /** As of {@link ObjectHints}; what an earlier process left stays as it is. */
  recoding: ErrorLimit | "exact" | null;
  /** A bit for each level that holds it as it is; the bytes are identical in all of them. */
  held: number;
  /** A bit for each level that may hold an older object under its key. */
  stale: number;
  /** Of `stale`, the levels for which a log may hold the deletion: see INV-STACK-5. */
  buried: number;
  /** Its deletion has failed and is written down nowhere: it is neither read nor listed. */
  isCondemned: boolean;
  /** Open readers and writers: it stays where it is. */
  userCount: number;
  /** A move or a deletion under way. Never rejects. */
  work: Promise<void> | null;
  /** A move found that its bytes do not fit its digest. It is left for who reads it. */
  isDamaged: boolean;
  useCount: number;
  lastUseMs: number;
  intervalMs: number | null;
  /** The copy that a promotion made: the bit of its level, what it took, and what it has saved so far. */
  promotion: { readonly bit: number; readonly costMs: number; gainMs: number } | null;
}

/** What a level has done and holds. */
export interface LevelStats {
  readonly name: string;
  /** 0 is asked first. */
  readonly priority: number;
  readonly capacityBytes: number;
  readonly storedBytes: number;
  readonly physicalBytes: number;
  readonly objectCount: number;
  /** Lookups that found the object here. */
  readonly hits: number;
  /** Lookups that went on to the next level. */
  readonly misses: number;
  /** Of the misses, those in which the level was not asked, or failed. */
  readonly skips: number;
  /** Objects read to their end. */
  readonly loads: number;
  /** Objects that came up from a lower level, and went down to one. */
  readonly promotions: number;
  readonly demotions: number;
  /** Copies given up without a write, because another level held the object too. */
  readonly cleanEvictions: number;
  readonly bytesWritten: number;
  readonly bytesRead: number;
  /** Measured; null until there was something to measure. */
  readonly latencyMs: number | null;
  readonly bytesPerSecond: number | null;
  readonly breaker: BreakerState;
  readonly failureCount: number;
}

/** How the lookups of a stack ended; see INV-STACK-4. */
export interface StackLookups {
  readonly lookups: number;
  readonly hits: number;
  readonly absent: number;
  readonly failed: number;
}

export interface LevelOptions {
  readonly tier: Tier;
  readonly priority: number;
  readonly clock: Clock;
  /** It need not answer when the stack is opened. */
  readonly mayBeAbsent: boolean;
  readonly breaker: BreakerOptions;
  readonly onFailure: (tier: string, error: Error) => void;
  /** Default: nobody is told how long reads take. */
  readonly sink?: StatsSink | undefined;
}

const FAILURE_CODES: readonly unknown[] = ["io", "timeout", "busy", "closed", "device-lost"];

export class TierLevel {
  readonly tier: Tier;
  readonly priority: number;
  readonly bit: number;
  readonly mayBeAbsent: boolean;
  readonly speed = new TransferSpeed();
  readonly breaker: CircuitBreaker;
  /** Objects that it holds as they are, coldest first. */
  readonly objects = new Map<TierKey, StackObject>();
  /** Keys under which it may hold something older. */
  readonly staleKeys = new Set<TierKey>();
  isOpen = false;
  hits = 0;
  misses = 0;
  skips = 0;
  loads = 0;
  promotions = 0;
  demotions = 0;
  cleanEvictions = 0;
  failureCount = 0;
  readonly #clock: Clock;
  readonly #sink: StatsSink | undefined;
  readonly #readName: string;
  readonly #onFailure: (tier: string, error: Error) => void;
  /** Only one at a time looks for victims. */
  #making: Promise<unknown> = Promise.resolve();

  constructor(options: LevelOptions) {
    this.tier = options.tier;
    this.priority = options.priority;
    this.bit = 1 << options.priority;
    this.mayBeAbsent = options.mayBeAbsent;
    this.#clock = options.clock;
    this.#sink = options.sink;
    this.#readName = `tier.${options.tier.name}.read`;
    this.#onFailure = options.onFailure;
    this.breaker = new CircuitBreaker(options.clock, options.breaker);
  }

  get name(): string {
    return this.tier.name;
  }

  get isPersistent(): boolean {
    return this.tier.capabilities.isPersistent;
  }

  get isUsable(): boolean {
    return this.isOpen && this.breaker.isPassable;
  }

  get capacityBytes(): number {
    return this.tier.stats().capacityBytes;
  }

  get freeBytes(): number {
    const { capacityBytes, physicalBytes } = this.tier.stats();
    return capacityBytes - physicalBytes;
  }

  /** Calls the tier, unless it failed lately; counts failures and tells about them. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (!this.breaker.tryPass()) throw this.unavailable();
    try {
      const result = await work();
      this.breaker.succeed();
      return result;
    } catch (error) {
      if (isTierFailure(error)) {
        this.failureCount += 1;
        this.breaker.fail();
        this.#onFailure(this.name, error as Error);
      } else {
        this.breaker.succeed();
      }
      throw error;
    }
  }

  unavailable(): TierError {
    const message = `the ${this.name} tier failed lately and is not asked for a while`;
    return new TierError("io", this.name, message);
  }

  /** Measures a read. */
  async timed(read: () => Promise<number>): Promise<number> {
    const startMs = this.#clock.monotonicMs();
    const count = await this.run(read);
    const durationMs = this.#clock.monotonicMs() - startMs;
    this.speed.note(count, durationMs);
    this.#sink?.time(this.#readName, durationMs);
    return count;
  }

  /** Runs `work` alone among those that make room here. */
  async alone<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#making.then(work, work);
    this.#making = turn.catch(() => {});
    return turn;
  }

  /** The object lies here as it is, used just now. */
  hold(object: StackObject): void {
    object.held |= this.bit;
    object.stale &= ~this.bit;
    this.staleKeys.delete(object.key);
    this.objects.delete(object.key);
    this.objects.set(object.key, object);
  }

  /** Nothing lies here under the key. */
  drop(object: StackObject): void {
    object.held &= ~this.bit;
    object.stale &= ~this.bit;
    this.objects.delete(object.key);
    this.staleKeys.delete(object.key);
  }

  /** Something older may lie here, which must never be read. */
  distrust(object: StackObject): void {
    this.drop(object);
    object.stale |= this.bit;
    this.staleKeys.add(object.key);
  }

  touch(object: StackObject): void {
    if (this.objects.delete(object.key)) this.objects.set(object.key, object);
  }

  stats(): LevelStats {
    const tier = this.tier.stats();
    const { name, priority, hits, misses, skips, loads, promotions, demotions } = this;
    return {
      name,
      priority,
      capacityBytes: tier.capacityBytes,
      storedBytes: tier.storedBytes,
      physicalBytes: tier.physicalBytes,
      objectCount: tier.objectCount,
      hits,
      misses,
      skips,
      loads,
      promotions,
      demotions,
      cleanEvictions: this.cleanEvictions,
      bytesWritten: tier.bytesWritten,
      bytesRead: tier.bytesRead,
      latencyMs: this.speed.latencyMs,
      bytesPerSecond: this.speed.bytesPerSecond,
      breaker: this.breaker.state,
      failureCount: this.failureCount,
    };
  }
}

/** Whether a tier, and not its caller, is to blame. */
export function isTierFailure(error: unknown): boolean {
  return error instanceof TierError && FAILURE_CODES.includes(error.code);
}
