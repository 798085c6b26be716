// The composition root: builds every part, wires them through their seams, and is what users hold.
// Only this file and presets/ name implementations.
import { linearArenas } from "./arena/linear-arena.js";
import { Directory } from "./cache/directory.js";
import { HierarchicalCache, type LookupStats } from "./cache/hierarchical-cache.js";
import { MemorySwapper, type SwapperStats } from "./cache/memory-swapper.js";
import { Staging } from "./cache/staging.js";
import type { TensorRecord } from "./cache/tensor-record.js";
import { CHUNK_BYTES_MIN, TransferEngine } from "./cache/transfer-engine.js";
import { type Clock, systemClock } from "./clock.js";
import { rawCodec } from "./codec/raw.js";
import { arenaMetadataBytesMax, ControlPlane, invariantName } from "./core/control-plane.js";
import { Hasher } from "./core/hash-stream.js";
import { createUnsharedMemory } from "./core/linear-memory.js";
import { CorruptionError, MisuseError, TierError, throwIfAborted } from "./errors.js";
import { HARDWARE_PROFILES, type HardwareProfile } from "./hardware/hardware-profile.js";
import type { LifetimePredictor } from "./lifetime/lifetime-predictor.js";
import { unknownLifetime } from "./lifetime/unknown-lifetime.js";
import { ArenaShelf, type ArenaShelfStats } from "./memory/arena-shelf.js";
import { Budget, type BudgetStats } from "./memory/budget.js";
import { EventHub, type MemoryEvent } from "./memory/events.js";
import { type LeakStats, LeakWatch } from "./memory/leak-watch.js";
import { MemoryPool, type PoolStats } from "./memory/memory-pool.js";
import {
  type CheckedOptions,
  checkAlignment,
  checkId,
  checkMemoryOptions,
  checkObject,
  checkTensorOptions,
  type Seams,
  TENSOR_BYTES_MAX,
  type TensorMemoryOptions,
  type TensorOptions,
} from "./memory/options.js";
import { Pin, type PinAccess } from "./memory/pin.js";
import { Scope } from "./memory/scope.js";
import { Tensor, type TensorOwner } from "./memory/tensor.js";
import { admitAll } from "./policy/admit-all.js";
import { lruPolicy } from "./policy/lru.js";
import { noPredictor } from "./predictor/none.js";
import type { Predictor } from "./predictor/predictor.js";
import { nullSink } from "./stats/null-sink.js";
import { formatReport } from "./stats/report.js";
import { nullTier } from "./tier/null.js";
import type { Tier, TierStats } from "./tier/tier.js";
import {
  checkBytes,
  checkKind,
  type Dtype,
  describe,
  type Layout,
  TENSOR_KINDS,
  type TensorKind,
} from "./types.js";

/** What differs between Node and browsers. */
export interface Platform {
  detectHardware(): HardwareProfile;
  createSsdTier(
    options: { readonly directory: string; readonly capacityBytes: number },
    seams: Partial<Seams>,
  ): Tier;
}

export interface MemoryStats {
  readonly profile: string;
  readonly budget: BudgetStats;
  readonly arenas: ArenaShelfStats & { readonly arenaBytes: number };
  /** Kinds that have ever had an arena. */
  readonly pools: readonly PoolStats[];
  readonly tensors: {
    readonly count: number;
    readonly hotCount: number;
    readonly hotBytes: number;
  };
  readonly lookups: LookupStats;
  readonly transfers: SwapperStats;
  readonly tier: TierStats & { readonly name: string };
  readonly policy: string;
  readonly leaks: LeakStats;
  readonly droppedEventCount: number;
}

/** A tensor or a record, as {@link TensorMemory.list} gives it. */
export interface ListedTensor {
  readonly id: string;
  readonly kind: TensorKind;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly layout: Layout;
  readonly byteLength: number;
  readonly isResident: boolean;
  /** A record of it outlives the process. */
  readonly isSaved: boolean;
}

export interface VerifyResult {
  readonly isSound: boolean;
  /** The first invariant of the core that is broken, such as `"INV-TREE-2"`. */
  readonly brokenInvariant: string | null;
  readonly problems: readonly string[];
}

const RAM_BYTES_MIN = 4 * 2 ** 20;
const ARENA_BYTES_MIN = 2 ** 20;

function floorPowerOfTwo(value: number): number {
  return 2 ** Math.floor(Math.log2(value));
}

function chooseProfile(asked: TensorMemoryOptions["profile"], platform: Platform): HardwareProfile {
  if (asked === undefined || asked === "auto") return platform.detectHardware();
  if (typeof asked === "object" && asked !== null) return asked;
  const preset = HARDWARE_PROFILES.get(asked);
  if (preset === undefined) {
    throw new MisuseError("bad-option", `unknown profile ${describe(asked)}`);
  }
  return preset;
}

/** Lengths of everything that is fixed at the start. */
function planSizes(profile: HardwareProfile, checked: CheckedOptions) {
  const ramBytes = checked.ramBytes ?? profile.ramBudgetBytes;
  if (ramBytes < RAM_BYTES_MIN) {
    throw new MisuseError("bad-size", `budgets.ram is at least ${RAM_BYTES_MIN} bytes`);
  }
  const chunkBytes = Math.max(
    CHUNK_BYTES_MIN,
    Math.min(profile.chunkBytes, floorPowerOfTwo(ramBytes / 32)),
  );
  // About a sixteenth goes to staging and metadata; arenas get at most a quarter of the rest, or of
  // the smallest pool.
  const share = Math.min(ramBytes * (15 / 16), ...checked.poolBytes.values());
  if (share < ARENA_BYTES_MIN) {
    throw new MisuseError("bad-size", `a pool's budget is at least ${ARENA_BYTES_MIN} bytes`);
  }
  const arenaBytes = Math.max(
    ARENA_BYTES_MIN,
    Math.min(profile.arenaBytesMax, floorPowerOfTwo(share / 4)),
  );
  const arenaCapacity = Math.min(4096, 2 * Math.ceil(ramBytes / arenaBytes) + 16);
  return {
    ramBytes,
    chunkBytes,
    arenaBytes,
    arenaCapacity,
    granuleShift: Math.log2(profile.granuleBytes),
    slotCapacity: Math.min(2 ** 21 - 1, Math.max(4096, Math.floor(ramBytes / 4096))),
    metadataBytes: arenaMetadataBytesMax(ramBytes / profile.granuleBytes) + arenaCapacity * 2560,
  };
}

/**
 * One heap for tensors over RAM and SSD, inside budgets that hold at every moment.
 *
 * @remarks Made by `createTensorMemory`. Not for several threads: one memory per worker.
 */
export class TensorMemory {
  readonly profile: HardwareProfile;
  readonly #core: ControlPlane;
  readonly #budget: Budget;
  readonly #shelf: ArenaShelf;
  readonly #pools: Map<TensorKind, MemoryPool>;
  readonly #directory = new Directory();
  readonly #engine: TransferEngine;
  readonly #swapper: MemorySwapper;
  readonly #cache: HierarchicalCache;
  readonly #policyName: string;
  readonly #policy: { touch(index: number): void };
  readonly #predictor: Predictor;
  readonly #lifetimes: LifetimePredictor;
  readonly #clock: Clock;
  readonly #events = new EventHub();
  readonly #leaks: LeakWatch;
  readonly #owner: TensorOwner;
  readonly #isDurable: boolean;
  #closing: Promise<void> | null = null;

  /** @internal Opens everything; on failure everything opened is closed again. */
  static async open(platform: Platform, options: TensorMemoryOptions = {}): Promise<TensorMemory> {
    const checked = checkMemoryOptions(options);
    const seams = options.seams ?? {};
    throwIfAborted(options.signal, "memory");
    const profile = chooseProfile(options.profile, platform);
    const sizes = planSizes(profile, checked);
    const createMemory = seams.createMemory ?? createUnsharedMemory;
    const core = await ControlPlane.create({ ...sizes, createMemory, wasm: options.wasm?.core });
    const hasher = await Hasher.create(profile.queueDepth, createMemory, options.wasm?.kernels);
    const budget = new Budget(sizes.ramBytes);
    const stagingBytes = profile.queueDepth * sizes.chunkBytes;
    if (
      !budget.tryCharge("control", core.byteLength + hasher.byteLength) ||
      !budget.tryCharge("staging", stagingBytes)
    ) {
      throw new MisuseError("bad-size", "budgets.ram is too small for its own bookkeeping");
    }
    const tier = seams.tier ?? TensorMemory.#createTier(platform, checked, seams);
    await tier.open();
    try {
      throwIfAborted(options.signal, tier.name);
      const staging = new Staging(profile.queueDepth, sizes.chunkBytes);
      const { tenant, fingerprint } = checked;
      const namespace = { tenant, fingerprint };
      const engine = new TransferEngine({ tier, codec: rawCodec, hasher, staging, namespace });
      return new TensorMemory(profile, core, budget, engine, checked, sizes, options);
    } catch (error) {
      await tier.close();
      throw error;
    }
  }

  static #createTier(platform: Platform, checked: CheckedOptions, seams: Partial<Seams>): Tier {
    if (checked.ssdBytes === 0) return nullTier("ssd");
    const { directory, ssdBytes } = checked;
    return platform.createSsdTier({ directory, capacityBytes: ssdBytes }, seams);
  }

  private constructor(
    profile: HardwareProfile,
    core: ControlPlane,
    budget: Budget,
    engine: TransferEngine,
    checked: CheckedOptions,
    sizes: ReturnType<typeof planSizes>,
    options: TensorMemoryOptions,
  ) {
    const seams = options.seams ?? {};
    const { arenaBytes, granuleShift } = sizes;
    const createArena = linearArenas(seams.createMemory ?? createUnsharedMemory);
    const policy = seams.evictionPolicy ?? lruPolicy();
    const sink = seams.statsSink ?? nullSink;
    const isDebug = options.debug === true;
    this.profile = profile;
    this.#core = core;
    this.#budget = budget;
    this.#engine = engine;
    this.#isDurable = checked.isDurable;
    this.#policy = policy;
    this.#policyName = policy.name;
    this.#predictor = seams.predictor ?? noPredictor;
    this.#lifetimes = seams.lifetimePredictor ?? unknownLifetime;
    this.#clock = seams.clock ?? systemClock;
    const shelf = new ArenaShelf({ core, budget, createArena, arenaBytes, granuleShift });
    this.#shelf = shelf;
    this.#pools = new Map(
      TENSOR_KINDS.map((kind, index) => {
        const budgetBytes = checked.poolBytes.get(kind) ?? Number.POSITIVE_INFINITY;
        return [kind, new MemoryPool({ kind, index, budgetBytes, core, shelf })];
      }),
    );
    const events = this.#events;
    const clock = this.#clock;
    this.#swapper = new MemorySwapper({
      core,
      shelf,
      engine,
      policy,
      events,
      clock,
      sink,
      isDebug,
    });
    this.#cache = new HierarchicalCache({
      core,
      budget,
      shelf,
      pools: this.#pools,
      directory: this.#directory,
      engine,
      swapper: this.#swapper,
      policy,
      admission: seams.admissionPolicy ?? admitAll,
      events,
      clock,
      isDurable: checked.isDurable,
    });
    this.#leaks = new LeakWatch(isDebug, events, (record) => this.#release(record));
    this.#owner = {
      pin: (record, access) => this.#pin(record, access),
      free: (record) => this.#free(record),
    };
  }

  // --- Allocation ----------------------------------------------------------------------------------

  /**
   * Allocates a tensor in RAM.
   *
   * @returns A resident tensor; its bytes are whatever their last owner left, unless `zero` is set.
   * @throws {OutOfMemoryError} It does not fit, and nothing that needs no waiting helps.
   * @throws {MisuseError} `bad-*`; `duplicate-id` — the id is in use in this memory; `closed`.
   * @remarks Synchronous. One call into the core when an open arena has room.
   */
  allocate<D extends Dtype = "u8">(options: TensorOptions<D>): Tensor<D> {
    return this.#allocate(options, (pool, bytes, alignment) =>
      this.#cache.place(pool, bytes, alignment),
    ) as Tensor<D>;
  }

  /** As {@link allocate}, but null in place of an `OutOfMemoryError`. */
  tryAllocate<D extends Dtype = "u8">(options: TensorOptions<D>): Tensor<D> | null {
    return this.#allocate(options, (pool, bytes, alignment) =>
      this.#cache.tryPlace(pool, bytes, alignment),
    ) as Tensor<D> | null;
  }

  /**
   * Makes room for `count` tensors of `bytes` bytes each, demoting cold ones if need be.
   *
   * @remarks Holds nothing: allocate before the next await.
   * @throws {OutOfMemoryError} Everything else is pinned or anonymous, or the SSD tier is full.
   * @throws {MisuseError} `bad-kind`, `bad-size`, `bad-alignment`, `closed`.
   * @throws {TierError} `io`, `busy`, `aborted`.
   */
  async reserve(request: {
    readonly kind: TensorKind;
    /** 1 to 2^32 − 1. */
    readonly bytes: number;
    /** Default: 1. */
    readonly count?: number;
    /** Default: 1. */
    readonly alignment?: number;
    readonly signal?: AbortSignal | undefined;
  }): Promise<void> {
    this.#checkOpen();
    checkObject(request, "reserve", ["kind", "bytes", "count", "alignment", "signal"]);
    const pool = this.#poolOf(checkKind(request.kind));
    const bytes = checkBytes(request.bytes, "bytes", TENSOR_BYTES_MAX);
    const count = checkBytes(request.count ?? 1, "count");
    const alignment = checkAlignment(request.alignment ?? 1);
    await this.#cache.reserve(pool, { bytes, count, alignment }, request.signal);
  }

  /** Frees a tensor by id. @throws {MisuseError} `unknown-id`, `pinned`. */
  free(id: string): void {
    this.#free(this.#require(checkId(id)));
  }

  /** A group of tensors that are freed together. @param name Label for leak reports. */
  scope(name = ""): Scope {
    return new Scope(name, this);
  }

  /** The tensor of that id, resident or not, or null when this memory does not hold it. */
  tensor(id: string): Tensor | null {
    const record = this.#directory.get(checkId(id));
    return record === undefined ? null : new Tensor(record, this.#owner);
  }

  // --- Tiers ---------------------------------------------------------------------------------------

  /**
   * Makes a tensor resident, wherever it is, and pins it.
   *
   * @param options.access Default: `"write"`. `"read"` keeps it clean, so that evicting it again
   *   writes nothing.
   * @param options.stream Tag for the predictor. Default: empty.
   * @returns A lease, or null when no tier knows the id.
   * @throws {CorruptionError} Its only copy is damaged.
   * @throws {OutOfMemoryError} No room can be made for it.
   * @throws {TierError} `io`, `busy`, `closed`, `incompatible`, `aborted`.
   */
  async acquire<D extends Dtype = Dtype>(
    id: string,
    options: {
      readonly access?: PinAccess;
      readonly stream?: string;
      readonly signal?: AbortSignal | undefined;
    } = {},
  ): Promise<Pin<D> | null> {
    this.#checkOpen();
    const record = await this.#cache.promote(checkId(id), options.signal);
    if (record === null) return null;
    const lease = this.#pin(record, options.access ?? "write");
    for (const next of this.#predictor.observe(options.stream ?? "", id)) this.#prefetchOne(next);
    return lease as Pin<D>;
  }

  /**
   * Acquires a chain of tensors, all or nothing, and touches it deepest first: under pressure its
   * tail leaves before its head.
   *
   * @param ids Head first.
   * @returns Leases in the order of `ids`, or null when one of them is unknown.
   * @throws As {@link acquire}; leases taken until then are given back.
   */
  async acquireChain<D extends Dtype = Dtype>(
    ids: readonly string[],
    options: { readonly access?: PinAccess; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Pin<D>[] | null> {
    const results = await Promise.allSettled(ids.map((id) => this.acquire<D>(id, options)));
    const leases = results.map((result) => (result.status === "fulfilled" ? result.value : null));
    if (leases.every((lease) => lease !== null)) {
      this.#cache.touchChain(ids);
      return leases;
    }
    for (const lease of leases) lease?.[Symbol.dispose]();
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    return null;
  }

  /** A pin if the tensor is resident, else null. Synchronous; counts as a lookup. */
  tryAcquire<D extends Dtype = Dtype>(
    id: string,
    options: { readonly access?: PinAccess } = {},
  ): Pin<D> | null {
    this.#checkOpen();
    const record = this.#cache.tryPromote(checkId(id));
    return record === null ? null : (this.#pin(record, options.access ?? "write") as Pin<D>);
  }

  /** Marks the resident tensors of a chain as just used, deepest first. @param ids Head first. */
  touchChain(ids: readonly string[]): void {
    this.#cache.touchChain(ids);
  }

  /**
   * Starts to bring tensors in, without pinning them. Failures show when they are acquired.
   *
   * @returns When all have arrived or failed.
   */
  async prefetch(
    ids: readonly string[],
    options: { readonly stream?: string; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    this.#checkOpen();
    for (const id of ids) checkId(id);
    await Promise.allSettled(ids.map((id) => this.#cache.promote(id, options.signal)));
  }

  /**
   * Writes a record that outlives the tensor and the process.
   *
   * @param options.mode `"durable"`: it survives power loss once this resolves. Default: the
   *   memory's `ssd.mode`.
   * @returns `"no-space"` when the tier is full or off.
   * @throws {MisuseError} `unknown-id`, `pinned` — a write pin is open.
   * @throws {TierError} `io`, `busy` — it was written meanwhile, `closed`.
   */
  async save(
    id: string,
    options: { readonly mode?: "cache" | "durable" } = {},
  ): Promise<"stored" | "no-space"> {
    this.#checkOpen();
    const durable = options.mode === undefined ? this.#isDurable : options.mode === "durable";
    const record = await this.#idle(checkId(id));
    if (record.writePinCount > 0) {
      throw new MisuseError("pinned", "a tensor is not saved while a write pin is open");
    }
    if (record.isResident) return this.#swapper.save(record, { durable });
    // A swapped-out copy is a record already; it only has to be kept, and made durable if asked.
    if (record.cold !== null && (record.cold.isDurable || !durable)) {
      record.cold = { ...record.cold, isSaved: true };
      return "stored";
    }
    const lease = await this.acquire(id, { access: "read" });
    try {
      return await this.#swapper.save(record, { durable });
    } finally {
      lease?.[Symbol.dispose]();
    }
  }

  /**
   * Moves the only copy of a tensor to the SSD tier and gives its block back. Writes nothing when a
   * valid copy is there already.
   *
   * @returns `"no-space"` when the tier is full or off; the tensor stays resident.
   * @throws {MisuseError} `unknown-id`, `pinned`.
   * @throws {TierError} `io`, `busy` — it was used meanwhile, `closed`; it stays resident.
   */
  async swapOut(id: string): Promise<"stored" | "no-space"> {
    this.#checkOpen();
    const record = await this.#idle(checkId(id));
    if (!record.isResident) return "stored";
    if (!this.#swapper.canDemote(record)) throw new MisuseError("pinned", "the tensor is pinned");
    const outcome = await this.#swapper.demote(record, { durable: this.#isDurable });
    if (outcome === "vetoed") {
      throw new TierError("busy", this.#engine.tier.name, "the tensor was used while it was moved");
    }
    return outcome === "demoted" ? "stored" : "no-space";
  }

  /**
   * Deletes a tensor and its record from every tier.
   *
   * @returns Whether any tier held it.
   * @throws {MisuseError} `pinned`.
   * @throws {TierError} `io`, `closed`.
   */
  async delete(id: string): Promise<boolean> {
    this.#checkOpen();
    const record = this.#directory.get(checkId(id));
    if (record !== undefined) this.#free(record);
    return (await this.#engine.delete(id)) || record !== undefined;
  }

  /** Tensors of this memory, and records of its namespace in the tier, whose id has the prefix. */
  async *list(options: { readonly prefix?: string } = {}): AsyncGenerator<ListedTensor> {
    this.#checkOpen();
    const prefix = options.prefix ?? "";
    for (const record of [...this.#directory]) {
      if (!record.isNamed || !record.id.startsWith(prefix)) continue;
      const { id, kind, dtype, shape, layout, byteLength, isResident, cold } = record;
      const isSaved = cold?.isSaved === true;
      yield { id, kind, dtype, shape, layout, byteLength, isResident, isSaved };
    }
    const { tenant, fingerprint } = this.#engine.namespace;
    for await (const key of this.#engine.tier.list()) {
      const peeked = await this.#engine.peekKey(key);
      if (peeked.verdict !== "found") continue;
      const { header } = peeked;
      if (header.tenant !== tenant || header.fingerprint !== fingerprint) continue;
      const { id, kind, dtype, shape, layout, rawBytes } = header;
      if (!id.startsWith(prefix) || this.#directory.get(id) !== undefined) continue;
      const known = { id, kind, dtype, shape, layout, byteLength: rawBytes };
      yield { ...known, isResident: false, isSaved: true };
    }
  }

  // --- Upkeep --------------------------------------------------------------------------------------

  /**
   * Moves unpinned blocks together so that free blocks coalesce. Handles stay valid.
   *
   * @returns Bytes moved.
   */
  compact(options: { readonly bytesMovedMax?: number } = {}): number {
    this.#checkOpen();
    let movedBytes = 0;
    const bytesMovedMax =
      options.bytesMovedMax === undefined
        ? Number.POSITIVE_INFINITY
        : checkBytes(options.bytesMovedMax, "bytesMovedMax");
    for (const pool of this.#pools.values()) movedBytes += pool.compact(bytesMovedMax - movedBytes);
    return movedBytes;
  }

  /**
   * Drops every empty arena. The engine gives their RAM back at its next collection; until then they
   * count against the budget.
   *
   * @returns Bytes dropped.
   */
  trim(): number {
    this.#checkOpen();
    for (const pool of this.#pools.values()) pool.releaseEmptyArenas();
    return this.#shelf.dropSpares();
  }

  stats(): MemoryStats {
    const transfers = this.#swapper.stats();
    return {
      profile: this.profile.name,
      budget: this.#budget.stats(),
      arenas: { ...this.#shelf.stats(), arenaBytes: this.#shelf.arenaBytes },
      pools: [...this.#pools.values()]
        .map((pool) => pool.stats())
        .filter(({ capacityBytesPeak }) => capacityBytesPeak > 0),
      tensors: {
        count: this.#directory.size,
        hotCount: transfers.hotCount,
        hotBytes: transfers.hotBytes,
      },
      lookups: this.#cache.lookupStats(),
      transfers,
      tier: { name: this.#engine.tier.name, ...this.#engine.tier.stats() },
      policy: this.#policyName,
      leaks: this.#leaks.stats(),
      droppedEventCount: this.#events.droppedCount,
    };
  }

  /** {@link stats} as text for people. */
  report(): string {
    return formatReport(this.stats());
  }

  /** Walks every invariant of the core and of the residency records. Slow: for tests and doubts. */
  verify(): VerifyResult {
    const code = this.#core.check();
    const problems: string[] = [];
    let hotBytes = 0;
    let hotCount = 0;
    for (const record of this.#directory) {
      if (!record.isResident) {
        if (record.cold === null && !record.isLost) problems.push(`${record.id} is nowhere`);
        continue;
      }
      hotBytes += record.byteLength;
      hotCount += 1;
      const { slot, generation } = record;
      if (!this.#core.isLive(slot) || this.#core.generationOf(slot) !== generation) {
        problems.push(`${record.id} has a stale block`);
      }
    }
    const transfers = this.#swapper.stats();
    if (transfers.hotBytes !== hotBytes) problems.push("resident bytes do not add up");
    if (transfers.hotCount !== hotCount) problems.push("resident tensors do not add up");
    const { usedBytes, limitBytes, usedBytesPeak, byCategory } = this.#budget.stats();
    const sum = Object.values(byCategory).reduce((total, bytes) => total + bytes, 0);
    if (sum !== usedBytes) problems.push("the budget does not add up");
    if (usedBytesPeak > limitBytes) problems.push("the budget was exceeded");
    const brokenInvariant = code === 0 ? null : invariantName(code);
    return { isSound: code === 0 && problems.length === 0, brokenInvariant, problems };
  }

  /** What happens from now on. Ends at the signal or when the memory closes. */
  events(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<MemoryEvent, void, void> {
    return this.#events.subscribe(options.signal);
  }

  /**
   * Waits for transfers, then closes the tier. Tensors that were neither saved nor swapped out are
   * gone. May be called again.
   */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.#swapper.settle();
      await this.#engine.tier.close();
      this.#events.close();
    })();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // --- Inside --------------------------------------------------------------------------------------

  #allocate(
    options: TensorOptions,
    place: (pool: MemoryPool, bytes: number, alignment: number) => number,
  ): Tensor | null {
    this.#checkOpen();
    const checked = checkTensorOptions(options);
    const { id, kind, dtype, shape, layout, byteLength, alignment, tag } = checked;
    if (id !== null && this.#directory.get(id) !== undefined) {
      throw new MisuseError("duplicate-id", `the id ${describe(id)} is in use`);
    }
    const pool = this.#poolOf(kind);
    const slot = place(pool, byteLength, alignment);
    if (slot === 0) return null;
    const allocatedMs = this.#clock.monotonicMs();
    const fields = { kind, dtype, shape, layout, byteLength, alignment, tag, pool, allocatedMs };
    const record = this.#directory.add(id, fields);
    this.#swapper.attach(record, slot);
    if (checked.isZeroed) {
      this.#shelf.arenaOf(slot).bytes(this.#core.offsetOf(slot), byteLength).fill(0);
    }
    const tensor = new Tensor(record, this.#owner);
    this.#leaks.watch(tensor, record);
    return tensor;
  }

  #pin(record: TensorRecord, access: PinAccess): Pin {
    this.#checkOpen();
    if (record.isFreed) throw new MisuseError("freed", "the tensor was freed");
    if (!record.isResident) {
      throw new MisuseError("not-resident", "the tensor was moved to a colder tier: use acquire");
    }
    const { slot } = record;
    const epoch = this.#core.pin(slot, record.generation);
    if (record.view === null || record.viewEpoch !== epoch) {
      const arena = this.#shelf.arenaOf(slot);
      record.view = arena.view(record.dtype, this.#core.offsetOf(slot), record.byteLength);
      record.viewEpoch = epoch;
    }
    this.#policy.touch(record.index);
    return new Pin(this.#core, record, access, record.view);
  }

  #free(record: TensorRecord): void {
    this.#checkOpen();
    if (record.isFreed) throw new MisuseError("freed", "the tensor was freed before");
    this.#leaks.unwatch(record);
    this.#release(record);
  }

  #release(record: TensorRecord): void {
    this.#swapper.release(record);
    this.#directory.remove(record);
    const { kind, byteLength: bytes, tag } = record;
    this.#lifetimes.observe({ kind, bytes, tag }, this.#clock.monotonicMs() - record.allocatedMs);
  }

  /** The record once no transfer is under way. @throws {MisuseError} `unknown-id`. */
  async #idle(id: string): Promise<TensorRecord> {
    for (;;) {
      const record = this.#require(id);
      if (record.isLost) {
        throw new CorruptionError(this.#engine.tier.name, "the only copy is damaged or gone");
      }
      if (record.transfer === null) return record;
      await record.transfer.settled;
    }
  }

  #require(id: string): TensorRecord {
    const record = this.#directory.get(id);
    if (record === undefined) throw new MisuseError("unknown-id", `no tensor ${describe(id)}`);
    return record;
  }

  #poolOf(kind: TensorKind): MemoryPool {
    return this.#pools.get(kind) as MemoryPool;
  }

  #prefetchOne(id: string): void {
    this.#cache.promote(id, undefined).catch(() => {
      // A prediction that fails costs nothing; the caller's own acquire will tell.
    });
  }

  #checkOpen(): void {
    if (this.#closing !== null) throw new MisuseError("closed", "the memory is closed");
  }
}
