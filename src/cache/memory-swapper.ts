// Moves single tensors between hot and cold: writes and verifies a copy, gives the hot block up,
// brings it back. Keeps at most one transfer per tensor; decides nothing about who moves when.

import type { Clock } from "../clock.js";
import type { ControlPlane } from "../core/control-plane.js";
import { CorruptionError, TierError } from "../errors.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { EventHub } from "../memory/events.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import type { RecordHeader } from "../record/record.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { ColdCopy, TensorRecord } from "./tensor-record.js";
import type { BytesAt, TransferEngine, WriteOutcome } from "./transfer-engine.js";

export interface MemorySwapperOptions {
  readonly core: ControlPlane;
  readonly shelf: ArenaShelf;
  readonly engine: TransferEngine;
  readonly policy: EvictionPolicy;
  readonly events: EventHub;
  readonly clock: Clock;
  readonly sink: StatsSink;
  /** Fill bytes that must not be read again, to make misuse visible. */
  readonly isDebug: boolean;
}

export interface SwapperStats {
  /** Demotions that wrote: the cold copy became the only one. */
  readonly swapOutCount: number;
  /** Loads of a tensor whose only copy was cold. */
  readonly swapInCount: number;
  /** Hot blocks given up without a write, because a valid copy was there. */
  readonly cleanEvictionCount: number;
  /** Copies written by `save`. */
  readonly saveCount: number;
  /** Demotions given up because the tensor was pinned or written meanwhile. */
  readonly vetoCount: number;
  readonly noSpaceCount: number;
  readonly failedCount: number;
  readonly rawBytesOut: number;
  readonly rawBytesIn: number;
  readonly hotBytes: number;
  readonly hotCount: number;
}

export type DemoteOutcome = "demoted" | "vetoed" | "no-space";

const DEBUG_FILL = 0xa5;
/** No tensor has this version: a cold copy of it is never clean. */
const NO_VERSION = 0;

export class MemorySwapper {
  readonly #core: ControlPlane;
  readonly #shelf: ArenaShelf;
  readonly #engine: TransferEngine;
  readonly #policy: EvictionPolicy;
  readonly #events: EventHub;
  readonly #clock: Clock;
  readonly #sink: StatsSink;
  readonly #isDebug: boolean;
  /** Stores under way: a request without room may wait for one. */
  readonly #stores = new Set<Promise<void>>();
  readonly #background = new Set<Promise<void>>();
  #lastGeneration = 0;
  #counters = {
    swapOutCount: 0,
    swapInCount: 0,
    cleanEvictionCount: 0,
    saveCount: 0,
    vetoCount: 0,
    noSpaceCount: 0,
    failedCount: 0,
    rawBytesOut: 0,
    rawBytesIn: 0,
    hotBytes: 0,
    hotCount: 0,
  };

  constructor(options: MemorySwapperOptions) {
    this.#core = options.core;
    this.#shelf = options.shelf;
    this.#engine = options.engine;
    this.#policy = options.policy;
    this.#events = options.events;
    this.#clock = options.clock;
    this.#sink = options.sink;
    this.#isDebug = options.isDebug;
  }

  /** Makes a fresh block the hot copy of a tensor. */
  attach(record: TensorRecord, slot: number): void {
    record.bind(slot, this.#core.generationOf(slot));
    if (record.id !== null) this.#policy.track({ index: record.index, bytes: record.byteLength });
    this.#counters.hotBytes += record.byteLength;
    this.#counters.hotCount += 1;
  }

  /**
   * Gives the hot block up. Whether another copy is left is the caller's business.
   *
   * @throws {MisuseError} `pinned` — then nothing has changed.
   */
  detach(record: TensorRecord): void {
    this.#freeBlock(record);
    this.#forget(record);
  }

  /**
   * Gives up everything that a freed tensor owns: its block, and its cold copy unless it was saved.
   * What a transfer still uses goes when that transfer ends.
   *
   * @throws {MisuseError} `pinned` — then nothing has changed.
   */
  release(record: TensorRecord): void {
    const { slot, transfer } = record;
    if (transfer !== null) {
      if (slot !== 0 && this.#core.pinCountOf(slot) > 1) this.#core.free(slot, record.generation);
      record.isFreed = true;
      if (slot !== 0) this.#forget(record);
      // Now and not when the transfer ends: the id may have a new tensor, and a new record, by then.
      if (!transfer.isSaving && record.cold?.isSaved !== true)
        this.deleteInBackground(nameOf(record));
      return;
    }
    if (slot !== 0) this.detach(record);
    record.isFreed = true;
    this.#dropOwned(record);
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
    let isVetoed = false;
    const { durable } = options;
    // Part of the transfer, so that nobody who waits for its end finds the tensor halfway.
    const stored = await this.#store(record, { durable, isSaved: false }, (cold) => {
      isVetoed = !record.isClean || this.#core.pinCountOf(record.slot) > 0;
      if (isVetoed) {
        this.#counters.vetoCount += 1;
        return;
      }
      this.detach(record);
      this.#counters.swapOutCount += 1;
      this.#sink.count("swap.out", 1);
      this.#spilled(record, cold.storedBytes);
    });
    if (stored === "no-space") return stored;
    return isVetoed || stored === "vetoed" ? "vetoed" : "demoted";
  }

  /**
   * Writes a copy that outlives the tensor; the tensor stays where it is.
   *
   * @param record Resident, without a transfer.
   * @throws {TierError} `io`, `busy` — it was written while it was copied, `closed`.
   */
  async save(
    record: TensorRecord,
    options: { readonly durable: boolean },
  ): Promise<"stored" | "no-space"> {
    const { cold } = record;
    if (record.isClean && cold !== null && (cold.isDurable || !options.durable)) {
      record.cold = { ...cold, isSaved: true };
      return "stored";
    }
    const stored = await this.#store(record, { durable: options.durable, isSaved: true });
    if (stored === "vetoed") {
      throw new TierError(
        "busy",
        this.#engine.tier.name,
        "the tensor was written while it was saved",
      );
    }
    if (stored === "no-space") return stored;
    this.#counters.saveCount += 1;
    return "stored";
  }

  /**
   * Brings a cold tensor into a fresh block.
   *
   * @param record Not resident, without a transfer.
   * @param allocate Gives an unpinned slot for it; may demote others, may throw.
   * @throws {CorruptionError} The only copy is damaged or gone.
   * @throws {TierError} `io`, `busy`, `closed`; the tensor stays cold.
   */
  load(record: TensorRecord, allocate: () => Promise<number>): Promise<void> {
    return this.#asTransfer(record, false, async () => {
      const slot = await allocate();
      const generation = this.#core.generationOf(slot);
      this.#core.pin(slot, generation);
      let isIntact = false;
      try {
        isIntact = await this.#read(record, slot);
      } finally {
        this.#core.unpin(slot, generation);
        if (!isIntact || record.isFreed) record.pool.free(slot, generation);
      }
      if (record.isFreed) return;
      if (!isIntact) throw await this.#lose(record);
      this.attach(record, slot);
      this.#counters.swapInCount += 1;
      this.#counters.rawBytesIn += record.byteLength;
      this.#sink.count("swap.in", 1);
    });
  }

  /** Deletes a record in the background; failures become events. Awaited by {@link settle}. */
  deleteInBackground(id: string): void {
    const work = this.#engine
      .delete(id)
      .then(
        () => {},
        (error: Error) => {
          this.#events.emit({ type: "tier-error", tier: this.#engine.tier.name, error });
        },
      )
      .finally(() => this.#background.delete(work));
    this.#background.add(work);
  }

  /** A store under way, or null. */
  get pendingStore(): Promise<void> | null {
    return this.#stores.values().next().value ?? null;
  }

  /** Resolves once nothing is under way in the background. */
  async settle(): Promise<void> {
    while (this.#stores.size + this.#background.size > 0) {
      await Promise.all([...this.#stores, ...this.#background]);
    }
  }

  stats(): SwapperStats {
    return { ...this.#counters };
  }

  headerOf(
    record: TensorRecord,
    { generation, isDurable }: Pick<RecordHeader, "generation" | "isDurable">,
  ): RecordHeader {
    const { codec, namespace } = this.#engine;
    return {
      ...namespace,
      id: nameOf(record),
      kind: record.kind,
      dtype: record.dtype,
      shape: record.shape,
      layout: record.layout,
      codecId: codec.id,
      isDurable,
      generation,
      rawBytes: record.byteLength,
      storedBytes: codec.storedBytes(record.byteLength, record.dtype),
    };
  }

  /**
   * Writes and verifies a copy while the block is pinned; on success the tensor is clean.
   *
   * @param finish Called within the transfer, once the block is unpinned, unless it was freed.
   */
  async #store(
    record: TensorRecord,
    options: { readonly durable: boolean; readonly isSaved: boolean },
    finish: (cold: ColdCopy) => void = () => {},
  ): Promise<ColdCopy | "no-space" | "vetoed"> {
    let result: ColdCopy | "no-space" | "vetoed" = "vetoed";
    const { slot, generation: slotGeneration } = record;
    this.#core.pin(slot, slotGeneration);
    const work = this.#asTransfer(record, options.isSaved, async () => {
      try {
        result = await this.#writeCopy(record, slot, options);
      } catch (error) {
        this.#counters.failedCount += 1;
        throw error;
      } finally {
        this.#core.unpin(slot, slotGeneration);
        if (record.isFreed) this.#freeBlock(record);
      }
      if (typeof result === "object" && !record.isFreed) finish(result);
    });
    const settled = work.then(
      () => {},
      () => {},
    );
    this.#stores.add(settled);
    try {
      await work;
    } finally {
      this.#stores.delete(settled);
    }
    return result;
  }

  async #writeCopy(
    record: TensorRecord,
    slot: number,
    options: { readonly durable: boolean; readonly isSaved: boolean },
  ): Promise<ColdCopy | "no-space" | "vetoed"> {
    const { version } = record;
    const isStale = () => record.version !== version || record.writePinCount > 0;
    if (isStale()) return "vetoed";
    const startMs = this.#clock.monotonicMs();
    const source: BytesAt = (offset, byteLength) =>
      this.#bytesOf(slot, record).subarray(offset, offset + byteLength);
    // A durable record is replaced by nothing less, or a power cut could take both.
    const isDurable = options.durable || record.cold?.isDurable === true;
    const header = this.headerOf(record, { generation: this.#nextGeneration(record), isDurable });
    let outcome: WriteOutcome;
    try {
      outcome = await this.#engine.write(header, source, isStale);
    } catch (error) {
      // It may have failed after the new record had replaced the old one.
      if (record.cold !== null) record.cold = { ...record.cold, version: NO_VERSION };
      throw error;
    }
    if (outcome === "no-space") this.#counters.noSpaceCount += 1;
    if (outcome === "vetoed") this.#counters.vetoCount += 1;
    if (outcome !== "stored") return outcome;
    const cold: ColdCopy = {
      generation: header.generation,
      codecId: header.codecId,
      storedBytes: header.storedBytes,
      isDurable,
      version,
      isSaved: options.isSaved || record.cold?.isSaved === true,
    };
    // The old copy is gone; the new one is not to be relied on before it has been read back.
    record.cold = { ...cold, version: NO_VERSION };
    if (record.isFreed && !cold.isSaved) return cold;
    if ((await this.#engine.read(header, null)) !== "intact") {
      throw new TierError("io", this.#engine.tier.name, "what was written does not read back");
    }
    record.cold = cold;
    this.#counters.rawBytesOut += record.byteLength;
    this.#sink.time("swap.store", this.#clock.monotonicMs() - startMs);
    return cold;
  }

  async #read(record: TensorRecord, slot: number): Promise<boolean> {
    const startMs = this.#clock.monotonicMs();
    const header = this.headerOf(record, record.cold as ColdCopy);
    const bytes = this.#bytesOf(slot, record);
    const outcome = await this.#engine.read(header, (offset, byteLength) =>
      bytes.subarray(offset, offset + byteLength),
    );
    this.#sink.time("swap.load", this.#clock.monotonicMs() - startMs);
    return outcome === "intact";
  }

  async #lose(record: TensorRecord): Promise<CorruptionError> {
    const tier = this.#engine.tier.name;
    record.isLost = true;
    record.cold = null;
    this.#counters.failedCount += 1;
    const reason = "the only copy is damaged or gone";
    this.#events.emit({ type: "corruption", id: nameOf(record), tier, reason, lost: true });
    await this.#engine.quarantine(nameOf(record)).catch((error: Error) => {
      this.#events.emit({ type: "tier-error", tier, error });
    });
    return new CorruptionError(tier, reason);
  }

  #freeBlock(record: TensorRecord): void {
    const { slot, generation, pool } = record;
    if (this.#isDebug && this.#core.pinCountOf(slot) === 0) {
      this.#bytesOf(slot, record).fill(DEBUG_FILL);
    }
    pool.free(slot, generation);
    record.bind(0, 0);
  }

  /** The tensor no longer counts as resident. */
  #forget(record: TensorRecord): void {
    if (record.id !== null) this.#policy.untrack(record.index);
    this.#counters.hotBytes -= record.byteLength;
    this.#counters.hotCount -= 1;
  }

  /** Deletes the cold copy of a freed tensor unless it was saved. */
  #dropOwned(record: TensorRecord): void {
    if (record.cold !== null && !record.cold.isSaved) this.deleteInBackground(nameOf(record));
  }

  #asTransfer(record: TensorRecord, isSaving: boolean, work: () => Promise<void>): Promise<void> {
    const done = work().finally(() => {
      record.transfer = null;
    });
    record.transfer = {
      isSaving,
      settled: done.then(
        () => {},
        () => {},
      ),
    };
    return done;
  }

  #bytesOf(slot: number, record: TensorRecord): Uint8Array {
    return this.#shelf.arenaOf(slot).bytes(this.#core.offsetOf(slot), record.byteLength);
  }

  #spilled(record: TensorRecord, bytesWritten: number): void {
    this.#events.emit({
      type: "spill",
      id: nameOf(record),
      tier: this.#engine.tier.name,
      bytesWritten,
    });
  }

  /** Later than every generation of this process, and of earlier ones unless the clock went back. */
  #nextGeneration(record: TensorRecord): number {
    const least = Math.max(this.#lastGeneration, record.cold?.generation ?? 0) + 1;
    this.#lastGeneration = Math.max(least, Math.floor(this.#clock.wallMs()));
    return this.#lastGeneration;
  }
}

/** Whatever is moved has a name: an anonymous tensor never gets this far. */
function nameOf(record: TensorRecord): string {
  return record.id as string;
}
