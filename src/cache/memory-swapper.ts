// Moves single tensors between hot and cold: writes and verifies a copy, gives the hot block up,
// brings it back. Keeps at most one transfer per tensor; decides nothing about who moves when.

import type { Clock } from "../clock.js";
import type { ControlPlane } from "../core/control-plane.js";
import { CorruptionError, MisuseError, TierError } from "../errors.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { CodecRules } from "../memory/codec-options.js";
import type { EventHub } from "../memory/events.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import { CODEC_RAW, type RecordHeader } from "../record/record.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { ByteShares } from "./byte-shares.js";
import { type Coding, codingOf, mayComeBackInexact } from "./coding.js";
import { type CopyOptions, hasSaved, isNeeded } from "./cold-copies.js";
import type { Directory } from "./directory.js";
import { EarlyCopies, type EarlyCopy } from "./early-copies.js";
import type { Guards } from "./guards.js";
import { Generations, headerOf } from "./record-headers.js";
import { expectedRestoreMs } from "./restore-cost.js";
import type { BytesAt } from "./staging.js";
import type { MemorySwapperOptions } from "./swapper-options.js";
import { type SwapperStats, swapperCounters } from "./swapper-stats.js";
import { type ColdCopy, nameOf, type TensorRecord } from "./tensor-record.js";
import type { TransferEngine, WriteOutcome } from "./transfer-engine.js";
import { TransferSpeed } from "./transfer-speed.js";
import { Transfers } from "./transfers.js";

export type DemoteOutcome = "demoted" | "vetoed" | "no-space";

/** No tensor has this version: a cold copy of it is never clean. */
const NO_VERSION = 0;

export class MemorySwapper {
  readonly #core: ControlPlane;
  readonly #shelf: ArenaShelf;
  readonly #engine: TransferEngine;
  readonly #directory: Directory;
  readonly #policy: EvictionPolicy;
  readonly #events: EventHub;
  readonly #clock: Clock;
  readonly #sink: StatsSink;
  readonly #codecRules: CodecRules;
  readonly #shares: ByteShares | null;
  readonly #guards: Guards | null;
  readonly #onLeaving: (record: TensorRecord) => void;
  readonly earlyCopies: EarlyCopies;
  /** Bytes of resident tensors, at this moment. */
  readonly hotBytesNow = (): number => this.#counters.hotBytes;
  /** Bytes of all tensors that have become hot, ever. */
  placedBytes = 0;
  /** What is under way. */
  readonly transfers = new Transfers();
  /** Of loads, decoding included. */
  readonly speed = new TransferSpeed();
  readonly #generations: Generations;
  readonly #counters = swapperCounters();

  constructor(options: MemorySwapperOptions) {
    this.#core = options.core;
    this.#shelf = options.shelf;
    this.#engine = options.engine;
    this.#directory = options.directory;
    this.#policy = options.policy;
    this.#events = options.events;
    this.#clock = options.clock;
    this.#sink = options.sink;
    this.#codecRules = options.codecRules;
    this.#shares = options.shares;
    this.#guards = options.guards;
    this.#onLeaving = options.onLeaving;
    this.#generations = new Generations(options.clock);
    this.earlyCopies = new EarlyCopies(options, (record, copy, early) =>
      this.#store(record, copy, () => {}, record, early),
    );
  }

  /** Makes a fresh block the hot copy of a tensor. */
  attach(record: TensorRecord, slot: number): void {
    record.bind(slot, this.#core.generationOf(slot));
    this.#guards?.arm(record);
    if (record.id !== null) this.#track(record);
    this.#counters.hotBytes += record.byteLength;
    this.#counters.hotCount += 1;
    this.placedBytes += record.byteLength;
  }

  /**
   * Gives the hot block up. Whether another copy is left is the caller's business.
   *
   * @throws {MisuseError} `pinned` — then nothing has changed.
   */
  detach(record: TensorRecord): void {
    this.#freeBlock(record, "loaded");
    this.#forget(record);
  }

  /**
   * Gives up everything that a freed tensor owns: its block, and its swapped-out copy. A block that a
   * transfer still reads goes when that transfer ends.
   *
   * @throws {MisuseError} `pinned` — then nothing has changed.
   */
  release(record: TensorRecord): void {
    const { slot, transfer } = record;
    record.device?.checkUnused();
    if (slot !== 0) {
      // The pin of a store under way is ours.
      const ownPinCount = transfer === null ? 0 : 1;
      if (this.#core.pinCountOf(slot) > ownPinCount) {
        throw new MisuseError("pinned", "the tensor is pinned");
      }
      if (transfer === null) this.#freeBlock(record, "for-good");
      this.#forget(record);
    }
    this.#end(record);
  }

  /** As {@link release}, for a resident tensor without a transfer whose block is free already. */
  releaseFreed(record: TensorRecord): void {
    record.bind(0, 0);
    this.#forget(record);
    this.#end(record);
  }

  /** Takes the hot block, unfreed, and the swapped-out copy from a tensor that stays. */
  strip(record: TensorRecord): void {
    record.bind(0, 0);
    this.#forget(record);
    record.device?.drop();
    if (record.cold?.isSaved === false) record.cold = null;
    if (record.hasSwapCopy) this.#deleteSwapCopy(record);
  }

  /** Ends a shared tensor: of its own it has nothing but what an earlier process may have left. */
  endShared(record: TensorRecord): void {
    this.#end(record);
  }

  /**
   * Gives a resident tensor another shape, for which its block was resized.
   *
   * @remarks Copies in colder tiers hold other bytes from here on.
   */
  reshape(record: TensorRecord, shape: readonly number[], byteLength: number): void {
    this.#counters.hotBytes += byteLength - record.byteLength;
    record.reshape(shape, byteLength);
    this.#guards?.arm(record);
    if (record.id === null) return;
    this.#policy.untrack(record.index);
    this.#track(record);
  }

  /**
   * After a recovery: a tensor whose block the interrupted call has freed is freed, or cold if it has
   * a copy; a block that the call has allocated for nobody is freed.
   *
   * @returns Tensors that are gone.
   */
  reconcile(heldSlots: readonly number[]): TensorRecord[] {
    const gone: TensorRecord[] = [];
    const owned = new Set(heldSlots);
    for (const record of this.#directory) {
      if (!record.isResident) continue;
      if (this.#core.isHandleLive(record.slot, record.generation)) {
        owned.add(record.slot);
        continue;
      }
      this.#forget(record);
      record.bind(0, 0);
      if (record.isClean || record.isOnlyOnDevice) continue;
      record.isFreed = true;
      gone.push(record);
    }
    // A transfer holds blocks that are no tensor's yet.
    if (this.transfers.isIdle) {
      for (const slot of this.#core.liveSlots()) {
        if (!owned.has(slot)) this.#core.free(slot, this.#core.generationOf(slot));
      }
    }
    return gone;
  }

  /** Whether a resident tensor may be demoted right now. */
  canDemote(record: TensorRecord): boolean {
    return (
      record.id !== null &&
      record.isResident &&
      record.transfer === null &&
      this.#core.pinCountOf(record.slot) === 0
    );
  }

  /** Drops the hot copy of a clean, demotable tensor. Writes nothing. */
  evictClean(record: TensorRecord): void {
    this.detach(record);
    this.#counters.cleanEvictionCount += 1;
    this.#sink.count("swap.clean-eviction", 1);
    this.#spilled(record, 0);
  }

  /**
   * Moves a tensor's only copy to the tier: writes it unless it is clean, reads it back to verify
   * it, and only then gives the hot block up.
   *
   * @param record Demotable ({@link canDemote}).
   * @throws {TierError} `io`, `busy`, `closed`; the tensor stays hot.
   */
  async demote(
    record: TensorRecord,
    options: { readonly durable: boolean },
  ): Promise<DemoteOutcome> {
    if (record.isClean) {
      this.evictClean(record);
      return "demoted";
    }
    let outcome: DemoteOutcome = "vetoed";
    const stored = await this.#store(
      record,
      { ...options, expiresMs: 0, isSaved: false },
      ({ storedBytes }) => {
        if (!record.isClean || this.#core.pinCountOf(record.slot) > 0) {
          this.#counters.vetoCount += 1;
          return;
        }
        outcome = "demoted";
        this.detach(record);
        this.#counters.swapOutCount += 1;
        this.#sink.count("swap.out", 1);
        this.#spilled(record, storedBytes);
      },
    );
    if (record.isFreed) return "demoted";
    return typeof stored === "object" ? outcome : stored;
  }

  /**
   * Writes a record that outlives the tensor; the tensor stays where it is.
   *
   * @param record Resident, without a transfer.
   * @param named Whose record it is to be: that of a shared tensor is written from its content.
   * @throws {TierError} `io`, `busy` — it was written while it was copied, `closed`.
   */
  async save(
    record: TensorRecord,
    options: Omit<CopyOptions, "isSaved">,
    named: TensorRecord,
  ): Promise<"stored" | "no-space"> {
    if (hasSaved(named, options)) return "stored";
    const stored = await this.#store(record, { ...options, isSaved: true }, () => {}, named);
    if (stored === "vetoed") {
      const message = "the tensor was written while it was saved";
      throw new TierError("busy", this.#engine.tier.name, message);
    }
    if (stored === "no-space") return stored;
    this.#counters.saveCount += 1;
    return "stored";
  }

  /**
   * Brings a cold tensor into a fresh block.
   *
   * @param record Not resident, without a transfer.
   * @param allocate Gives an unpinned slot for it and calls back in the same turn; may demote others,
   *   may throw.
   * @throws {CorruptionError} The only copy is damaged or gone.
   * @throws {TierError} `io`, `busy`, `closed`; the tensor stays cold.
   */
  async load(
    record: TensorRecord,
    allocate: (onPlaced: () => void) => Promise<number>,
  ): Promise<void> {
    const end = this.transfers.begin(record);
    this.transfers.bursts.begin(this.#clock.monotonicMs());
    let endProgress = () => {};
    let slot = 0;
    let isIntact = false;
    try {
      slot = await allocate(() => {
        endProgress = this.transfers.noteProgress();
      });
      const generation = this.#core.generationOf(slot);
      this.#core.pin(slot, generation);
      try {
        isIntact = await this.#read(record, slot);
      } finally {
        this.#core.unpin(slot, generation);
      }
    } finally {
      // From here to the end of the transfer nothing waits, so nobody finds the tensor halfway.
      if (slot !== 0 && isIntact && !record.isFreed) {
        this.attach(record, slot);
        if (record.isClean && record.cold?.isInexact === true)
          record.inexactVersion = record.version;
        this.#counters.swapInCount += 1;
        this.#counters.rawBytesIn += record.byteLength;
        this.#sink.count("swap.in", 1);
      } else if (slot !== 0) {
        record.pool.free(slot, this.#core.generationOf(slot));
      }
      endProgress();
      end();
      const arrivedBytes = record.isResident ? (record.cold?.storedBytes ?? 0) : 0;
      this.transfers.bursts.end(this.#clock.monotonicMs(), arrivedBytes);
      if (record.isResident) for (const wake of [...(record.waiters ?? [])]) wake();
    }
    if (!isIntact && !record.isFreed) await this.#lose(record);
  }

  stats(): SwapperStats {
    const { latencyMs, bytesPerSecond } = this.speed;
    const { bytesPerSecond: burstBytesPerSecond } = this.transfers.bursts;
    const speeds = { latencyMs, bytesPerSecond, burstBytesPerSecond };
    return { ...this.#counters, earlyCopyCount: this.earlyCopies.count, ...speeds };
  }

  /**
   * Writes and verifies a copy while the block is pinned; on success the tensor is clean.
   *
   * @param finish Called at the end of the transfer, with the block unpinned, unless it was freed.
   */
  async #store(
    record: TensorRecord,
    options: CopyOptions,
    finish: (cold: ColdCopy) => void = () => {},
    named = record,
    early: EarlyCopy = { isGivenUp: false },
  ): Promise<ColdCopy | "no-space" | "vetoed"> {
    const { slot, generation } = record;
    let result: ColdCopy | "no-space" | "vetoed" = "vetoed";
    this.#core.pin(slot, generation);
    const end = this.transfers.begin(record);
    const endProgress = this.transfers.noteProgress();
    try {
      result = await this.#writeCopy(record, slot, options, named, early);
    } catch (error) {
      this.#counters.failedCount += 1;
      throw error;
    } finally {
      // From here to the end of the transfer nothing waits, so nobody finds the tensor halfway.
      if (!early.isGivenUp) this.#core.unpin(slot, generation);
      if (record.isFreed) this.#freeBlock(record, "for-good");
      else if (typeof result === "object") finish(result);
      endProgress();
      end();
    }
    return result;
  }

  async #writeCopy(
    record: TensorRecord,
    slot: number,
    options: CopyOptions,
    named: TensorRecord,
    early: EarlyCopy,
  ): Promise<ColdCopy | "no-space" | "vetoed"> {
    const { version } = record;
    const namedVersion = named.version;
    const { isSaved, expiresMs, durable: isDurable } = options;
    const isStale = () => early.isGivenUp || record.version !== version || record.writePinCount > 0;
    if (isStale()) return "vetoed";
    const startMs = this.#clock.monotonicMs();
    const asItIs = { codecId: CODEC_RAW, storedBytes: record.byteLength };
    const copy = { generation: this.#generations.next(named), isDurable, isSaved, expiresMs };
    const header = headerOf(this.#engine.namespace, named, { ...copy, ...asItIs });
    const coding = codingOf(this.#codecRules, named, isSaved);
    // Of a block that may be another's by now nothing is read; what is written is vetoed at its end.
    const source: BytesAt = (offset, byteLength) =>
      early.isGivenUp
        ? new Uint8Array(byteLength)
        : this.#bytesOf(slot, record).subarray(offset, offset + byteLength);
    const before = named.cold;
    // A failure may come after the new record has replaced the old one.
    const distrust = () => {
      if (before?.isSaved === isSaved) named.cold = { ...before, version: NO_VERSION };
    };
    if (!isSaved) named.hasSwapCopy = true;
    try {
      const write = (each: Coding | null) =>
        this.#writeOrSweep(named, header, source, isStale, each);
      const shares = isSaved || named !== record ? null : this.#shares;
      const written = await (shares?.write(record, coding, write) ?? write(coding));
      if (written === "no-space") this.#counters.noSpaceCount += 1;
      if (written === "vetoed") this.#counters.vetoCount += 1;
      if (typeof written === "string") return written;
      const { codecId, storedBytes, isDurable } = written;
      const place = { ...copy, isDurable, codecId, storedBytes, version: namedVersion };
      const cold: ColdCopy = { ...place, isInexact: mayComeBackInexact(coding, codecId) };
      // Freed meanwhile: nobody will ask for it.
      if (named.isFreed) return cold;
      distrust();
      if (!(await this.#engine.readsBack(written)) && !named.isFreed) {
        throw new TierError("io", this.#engine.tier.name, "what was written does not read back");
      }
      named.cold = cold;
      if (isSaved) named.hasSavedRecord = true;
      if (isSaved && named.hasSwapCopy && !named.isFreed) this.#deleteSwapCopy(named);
      this.#counters.rawBytesOut += record.byteLength;
      this.#sink.time("swap.store", this.#clock.monotonicMs() - startMs);
      return cold;
    } catch (error) {
      distrust();
      throw error;
    }
  }

  /** Writes; when the tier is full, makes room in it and tries once more. */
  async #writeOrSweep(
    record: TensorRecord,
    header: RecordHeader,
    source: BytesAt,
    isStale: () => boolean,
    coding: Coding | null,
  ): Promise<WriteOutcome> {
    const written = await this.#engine.write(header, source, isStale, coding);
    if (written !== "no-space") return written;
    const hasRoom = await this.#engine.sweep((other) => {
      const owner = this.#engine.isOurs(other) ? this.#directory.named(other.id) : undefined;
      return isNeeded(other, owner, this.#clock.wallMs());
    });
    // Freed meanwhile: what is written now would outlive its deletion.
    return hasRoom && !record.isFreed
      ? this.#engine.write(header, source, isStale, coding)
      : written;
  }

  async #read(record: TensorRecord, slot: number): Promise<boolean> {
    const startMs = this.#clock.monotonicMs();
    const bytes = this.#bytesOf(slot, record);
    if (record.isOnlyOnDevice) return (await record.device?.readInto(bytes)) === "intact";
    const header = headerOf(this.#engine.namespace, record, record.cold as ColdCopy);
    const outcome = await this.#engine.read(header, (offset, byteLength) =>
      bytes.subarray(offset, offset + byteLength),
    );
    const durationMs = this.#clock.monotonicMs() - startMs;
    this.speed.note(header.storedBytes, durationMs);
    this.#sink.time("swap.load", durationMs);
    return outcome === "intact";
  }

  /** @throws {CorruptionError} Always. */
  async #lose(record: TensorRecord): Promise<never> {
    const tier = this.#engine.tier.name;
    const copy = { id: nameOf(record), isSaved: record.cold?.isSaved === true };
    record.isLost = true;
    record.cold = null;
    this.#counters.failedCount += 1;
    const reason = "the only copy is damaged or gone";
    this.#events.emit({ type: "corruption", id: copy.id, tier, reason, lost: true });
    await this.#engine.quarantine(copy).catch(this.#noteTierError);
    throw new CorruptionError(tier, reason);
  }

  #freeBlock(record: TensorRecord, until: "for-good" | "loaded"): void {
    const { slot, generation, pool } = record;
    if (until === "for-good" && this.#guards !== null) this.#guards.retire(record);
    else {
      if (this.#core.pinCountOf(slot) === 0) this.#guards?.poison(record);
      pool.free(slot, generation);
    }
    record.bind(0, 0);
  }

  #track(record: TensorRecord): void {
    const { index, byteLength: bytes } = record;
    this.#policy.track({ index, bytes, restoreMs: expectedRestoreMs(record, this.speed) });
  }

  /** The tensor no longer counts as resident. */
  #forget(record: TensorRecord): void {
    this.#counters.hotBytes -= record.byteLength;
    this.#counters.hotCount -= 1;
    if (record.id === null) return;
    this.#policy.untrack(record.index);
    this.#onLeaving(record);
  }

  /** Marks a tensor as freed, and gives up what it owns in the tier. */
  #end(record: TensorRecord): void {
    record.isFreed = true;
    record.device?.drop();
    // Behind whatever the transfer does to it, and before whatever a new tensor of this id will do. A
    // killed process may have left one that this tensor has never seen.
    if (record.hasSwapCopy || (record.id !== null && this.#engine.mayHaveOrphans)) {
      this.#deleteSwapCopy(record);
    }
  }

  /** Deletes the swapped-out copy in the background; a failure becomes an event. */
  #deleteSwapCopy(record: TensorRecord): void {
    record.hasSwapCopy = false;
    const copy = { id: nameOf(record), isSaved: false };
    this.transfers.watch(this.#engine.delete(copy).then(() => {}, this.#noteTierError));
  }

  readonly #noteTierError = (error: Error): void => {
    this.#events.emit({ type: "tier-error", tier: this.#engine.tier.name, error });
  };

  #bytesOf(slot: number, record: TensorRecord): Uint8Array {
    return this.#shelf.arenaOf(slot).bytes(this.#core.offsetOf(slot), record.byteLength);
  }

  #spilled(record: TensorRecord, bytesWritten: number): void {
    const { name: tier } = this.#engine.tier;
    this.#events.emit({ type: "spill", id: nameOf(record), tier, bytesWritten });
  }
}
