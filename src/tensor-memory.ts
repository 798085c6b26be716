// What users hold: every public operation, checked, over the parts that presets/ has composed. Start
// reading here; it names no implementation.
import { leaseAll } from "./cache/chain-leases.js";
import { hasSaved, lossOf } from "./cache/cold-copies.js";
import type { Directory } from "./cache/directory.js";
import type { FixedShapePool } from "./cache/fixed-shape-pool.js";
import type { GpuLevel } from "./cache/gpu-level.js";
import type { HierarchicalCache } from "./cache/hierarchical-cache.js";
import {
  type ListedTensor,
  listTensors,
  type VerifyResult,
  verifyMemory,
} from "./cache/inventory.js";
import type { MemorySwapper } from "./cache/memory-swapper.js";
import type { Prefetcher } from "./cache/prefetcher.js";
import type { Reclaimer } from "./cache/reclaimer.js";
import { recoverMemory } from "./cache/recovery.js";
import type { FixedShapeOptions } from "./cache/repeated-tensors.js";
import { estimateRestore, type RestoreEstimate } from "./cache/restore-estimate.js";
import type { InternOptions } from "./cache/shared-tensors.js";
import { internTensor, tieTensors, withRoomBeside } from "./cache/sharing-calls.js";
import type { PlanRecorder } from "./cache/step-plan.js";
import type { TensorAllocator } from "./cache/tensor-allocator.js";
import type { TensorRecord } from "./cache/tensor-record.js";
import type { TransferEngine } from "./cache/transfer-engine.js";
import { trimMemory } from "./cache/trim.js";
import type { Workers } from "./cache/workers.js";
import type { EndingWorker } from "./core/lane-watch.js";
import { MisuseError, TierError } from "./errors.js";
import type { HardwareProfile } from "./hardware/hardware-profile.js";
import {
  checkCompactionLimits,
  checkHints,
  checkId,
  checkIds,
  checkMs,
  checkObject,
  checkPinOptions,
  checkReservation,
  checkSaveOptions,
  checkSignal,
  checkText,
} from "./memory/checks.js";
import type { CompactionResult } from "./memory/compactor.js";
import type { EventHub, MemoryEvent } from "./memory/events.js";
import type { MemoryPool } from "./memory/memory-pool.js";
import type { TensorOptions } from "./memory/options.js";
import type { Pin, PinAccess } from "./memory/pin.js";
import { Scope } from "./memory/scope.js";
import { Tensor } from "./memory/tensor.js";
import type { MemoryToken, TensorMessage } from "./memory/tokens.js";
import type { MemoryPlan } from "./plan/memory-plan.js";
import type { PlanRequest } from "./plan/plan-request.js";
import type { ChainHints } from "./policy/eviction-policy.js";
import type { MemoryMap } from "./stats/memory-map.js";
import { collectStats, type MemoryStats } from "./stats/memory-stats.js";
import { formatReport } from "./stats/report.js";
import type { TensorMemoryParts } from "./tensor-memory-parts.js";
import { checkBytes, checkKind, type Dtype, describe, type TensorKind } from "./types.js";

/**
 * One heap for tensors over RAM and SSD, inside budgets that hold at every moment.
 *
 * @remarks Made by `createTensorMemory`. Belongs to the thread that made it; workers attach to it.
 */
export class TensorMemory {
  readonly profile: HardwareProfile;
  /** Buffers of the GPU, above RAM. null: the option `gpu` was not given, or no device can be had. */
  readonly gpu: GpuLevel | null;
  readonly #parts: TensorMemoryParts;
  readonly #directory: Directory;
  readonly #engine: TransferEngine;
  readonly #swapper: MemorySwapper;
  readonly #cache: HierarchicalCache;
  readonly #reclaimer: Reclaimer;
  readonly #prefetcher: Prefetcher;
  readonly #events: EventHub;
  readonly #allocator: TensorAllocator;
  readonly #workers: Workers;
  readonly #isDurable: boolean;
  #closing: Promise<void> | null = null;

  /** @internal Memories are made by `createTensorMemory`. */
  constructor(parts: TensorMemoryParts) {
    this.profile = parts.profile;
    this.#parts = parts;
    this.gpu = parts.gpu;
    if (parts.gpu !== null) parts.gpu.leaseInRam = (...request) => this.#lease(...request);
    this.#directory = parts.directory;
    this.#engine = parts.engine;
    this.#swapper = parts.swapper;
    this.#cache = parts.cache;
    this.#reclaimer = parts.reclaimer;
    this.#prefetcher = parts.prefetcher;
    this.#events = parts.events;
    this.#workers = parts.workers;
    this.#isDurable = parts.isDurable;
    this.#allocator = parts.allocator;
  }

  // --- Allocation ----------------------------------------------------------------------------------

  /**
   * Allocates a tensor in RAM.
   *
   * @returns A resident tensor; its bytes are whatever their last owner left, unless `zero` is set.
   * @throws {OutOfMemoryError} It does not fit, and nothing that needs no waiting helps.
   * @throws {MisuseError} `bad-*`; `duplicate-id` — the id is in use in this memory; `closed`.
   * @remarks A record that was saved under this id before stays until this tensor is saved.
   *   Synchronous. One call into the core when an open arena has room.
   */
  allocate<D extends Dtype = "u8">(options: TensorOptions<D>): Tensor<D> {
    return this.#allocator.allocate(options) as Tensor<D>;
  }

  /** As {@link allocate}, but null in place of an `OutOfMemoryError`. */
  tryAllocate<D extends Dtype = "u8">(options: TensorOptions<D>): Tensor<D> | null {
    return this.#allocator.tryAllocate(options) as Tensor<D> | null;
  }

  /**
   * Makes room for `count` tensors of `bytes` bytes each, demoting cold ones if need be.
   *
   * @remarks Whoever awaits the promise itself goes on before anybody else can take the room; from then on
   *   nothing is held: allocate before the next await. While others keep taking what it frees, the request gets
   *   its room by a hold: in bounded steps, one such request at a time, in the order in which they ask.
   * @throws {OutOfMemoryError} Everything else is pinned or anonymous, or the SSD tier is full.
   * @throws {MisuseError} `bad-kind`, `bad-size`, `bad-alignment`, `closed`.
   * @throws {TierError} `io`, `busy`, `aborted`.
   */
  reserve(request: {
    readonly kind: TensorKind;
    /** 1 to 2^32 − 1. */
    readonly bytes: number;
    /** Default: 1. */
    readonly count?: number;
    /** Default: 1. */
    readonly alignment?: number;
    readonly signal?: AbortSignal | undefined;
  }): Promise<void> {
    try {
      this.#allocator.checkOpen();
      const { kind, signal, ...room } = checkReservation(request);
      // Not by way of a promise of ours: whoever awaits the reclaimer's own comes next.
      return this.#reclaimer.reserve(this.#poolOf(kind), room, signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Frees a tensor by id; one that was dropped under pressure is forgotten.
   *
   * @throws {MisuseError} `unknown-id`, `pinned`.
   */
  free(id: string): void {
    if (this.#parts.disposables.forgetDropped(checkId(id))) return;
    this.#require(id);
    this.#allocator.free(this.#named(id));
  }

  /** A group of tensors that are freed together. @param name Label for leak reports. */
  scope(name = ""): Scope {
    return new Scope(checkText(name, "name"), this.#allocator);
  }

  /**
   * A pool of tensors of one shape, for what comes again and again: a tensor that was freed is used
   * again with the block and the view that it had. The blocks count in the budget of `kind`; idle ones
   * are given back under pressure, and by {@link trim}.
   *
   * @throws {MisuseError} `bad-*`, `closed`.
   */
  fixedShapePool<D extends Dtype>(options: FixedShapeOptions<D>): FixedShapePool<D> {
    return this.#parts.repeated.fixedShapePool(options);
  }

  /**
   * Records one step, so that the next ones can be replayed from a plan: one block, and constant views
   * at places that were computed once.
   *
   * @throws {MisuseError} `bad-kind`, `bad-option`, `closed`.
   */
  recordPlan(options: { readonly kind: TensorKind }): PlanRecorder {
    return this.#parts.repeated.recordPlan(options);
  }

  /** The tensor of that id, resident or not, or null when this memory does not hold it. */
  tensor(id: string): Tensor | null {
    const record = this.#directory.named(checkId(id));
    return record === undefined ? null : new Tensor(record, this.#allocator);
  }

  // --- Sharing -------------------------------------------------------------------------------------

  /**
   * A tensor of given content. It takes no second block when a tensor of this memory that was made
   * here, or tied, has the same kind, dtype, shape, layout, alignment and bytes: they share one block and
   * one swapped-out copy, and move together. Who writes gets bytes of its own first; see `Tensor.pin`.
   *
   * @returns When the tensor is there. It is resident, unless the content is cold.
   * @throws {OutOfMemoryError} The content is new, and no room can be made for it.
   * @throws {MisuseError} `bad-*`; `duplicate-id`, `closed`.
   * @throws {TierError} `io`, `busy`, `aborted`.
   * @remarks Hashes all bytes with SHA-256. What is swapped out when the process ends is not found by
   *   id later; what was saved is. Freeing one of several is not stopped by its pins.
   */
  async intern<D extends Dtype = "u8">(options: InternOptions<D>): Promise<Tensor<D>> {
    return internTensor(this.#parts, options) as Promise<Tensor<D>>;
  }

  /**
   * A second tensor with the content of another one: weights that two layers have in common. From then
   * on both are as if {@link intern} had made them.
   *
   * @param id Of the new tensor. It has the other one's kind, dtype, shape, layout and tag.
   * @param otherId Any tensor that is not disposable; it is made resident.
   * @throws {MisuseError} `unknown-id`; `duplicate-id`; `unsupported` — it is disposable; `pinned` — it
   *   is written meanwhile, or read while a tensor of the same content is there; `bad-id`, `closed`.
   * @throws As {@link acquire}.
   * @remarks Hashes the other one's bytes unless they are shared already.
   */
  async tie(id: string, otherId: string): Promise<Tensor> {
    const lease = () => this.#lease(otherId, "read", undefined);
    return tieTensors(this.#parts, id, otherId, lease);
  }

  // --- Tiers ---------------------------------------------------------------------------------------

  /**
   * Makes a tensor resident, wherever it is, and pins it.
   *
   * @param options.access Default: `"write"`. `"read"` keeps it clean, so that evicting it again
   *   writes nothing.
   * @param options.stream Who asks: a chat, a layer loop. What came next in a stream the last time is
   *   brought in ahead, into room that nobody needs. Default: none, and nothing is learnt from it.
   * @param options.recomputeMs What computing the tensor again would take, in milliseconds, at least 0.
   *   Kept for the order of leaving. Default: unknown, so it is loaded.
   * @returns A lease, or null when no tier knows the id, or when bringing the tensor back is expected to
   *   take longer than `recomputeMs`; see {@link estimateRestore}.
   * @throws {CorruptionError} Its only copy is damaged.
   * @throws {OutOfMemoryError} No room can be made for it.
   * @throws {TierError} `io`, `busy`, `closed`, `incompatible`, `aborted`.
   */
  async acquire<D extends Dtype = Dtype>(
    id: string,
    options: {
      readonly access?: PinAccess;
      readonly stream?: string;
      readonly recomputeMs?: number | undefined;
      readonly signal?: AbortSignal | undefined;
    } = {},
  ): Promise<Pin<D> | null> {
    this.#allocator.checkOpen();
    checkId(id);
    const known = ["access", "stream", "signal", "recomputeMs"];
    const { access, stream, signal } = checkPinOptions(options, "acquire", known);
    if (options.recomputeMs !== undefined) {
      const recomputeMs = checkMs(options.recomputeMs, "recomputeMs");
      const restoreMs = (await this.estimateRestore(id))?.restoreMs ?? 0;
      this.#allocator.checkOpen();
      const record = this.#directory.get(id);
      if (record !== undefined) record.recomputeMs = recomputeMs;
      if (restoreMs > recomputeMs) {
        this.#cache.noteDeclined();
        return null;
      }
    }
    const predicted = this.#prefetcher.observe(stream, id);
    const lease = this.#lease<D>(id, access, signal);
    // What is wanted now has begun to move; what may be wanted next comes after it.
    this.#prefetcher.guess(predicted);
    return lease;
  }

  /**
   * What bringing a tensor back would take, from the latency and the bandwidth that its tier has shown.
   * It waits for no queue: with many transfers under way it takes longer.
   *
   * @returns null when no tier knows the id.
   * @throws {CorruptionError} Its only copy is damaged.
   * @throws {TierError} `io`, `busy`, `closed`, `incompatible`.
   * @remarks Moves nothing. Reads the header of a record that an earlier process left.
   */
  async estimateRestore(id: string): Promise<RestoreEstimate | null> {
    this.#allocator.checkOpen();
    const record = await this.#cache.find(checkId(id));
    return record === null ? null : estimateRestore(record, this.#parts);
  }

  /**
   * Acquires a chain of tensors, all or nothing, and touches it deepest first: under pressure its
   * tail leaves before its head.
   *
   * @param ids Head first.
   * @param options.stream As in {@link acquire}.
   * @returns Leases in the order of `ids`, or null when one of them is unknown.
   * @throws As {@link acquire}; leases taken until then are given back.
   */
  async acquireChain<D extends Dtype = Dtype>(
    ids: readonly string[],
    options?: {
      readonly access?: PinAccess;
      readonly stream?: string;
      readonly signal?: AbortSignal | undefined;
    },
  ): Promise<Pin<D>[] | null> {
    this.#allocator.checkOpen();
    checkIds(ids);
    const known = ["access", "stream", "signal"];
    const { access, stream, signal } = checkPinOptions(options, "acquireChain", known);
    let predicted: readonly string[] = [];
    for (const id of ids) predicted = this.#prefetcher.observe(stream, id);
    const leasing = leaseAll(
      ids,
      (id) => this.#lease<D>(id, access, signal),
      (id) => this.#cache.promote(id, signal, () => null, { isLookup: false }),
    );
    this.#prefetcher.guess(predicted);
    const leases = await leasing;
    if (leases !== null) this.#cache.touchChain(ids);
    return leases;
  }

  /** A pin if the tensor is resident, else null. Synchronous; counts as a lookup. */
  tryAcquire<D extends Dtype = Dtype>(
    id: string,
    options?: { readonly access?: PinAccess },
  ): Pin<D> | null {
    this.#allocator.checkOpen();
    checkId(id);
    const { access } = checkPinOptions(options, "tryAcquire", ["access"]);
    this.#prefetcher.want("", id);
    const record = this.#cache.tryPromote(id);
    return record === null ? null : (this.#allocator.pin(this.#named(id), access) as Pin<D>);
  }

  /**
   * Marks the resident tensors of a chain as just used together: under pressure its tail leaves before
   * its head.
   *
   * @param ids Head first.
   * @param hints What is known about this use. The default policy learns from it which chains return
   *   soon; none of it is needed.
   */
  touchChain(ids: readonly string[], hints: ChainHints = {}): void {
    this.#allocator.checkOpen();
    this.#cache.touchChain(checkIds(ids), checkHints(hints));
  }

  /**
   * Starts to bring in tensors that will be wanted, without pinning them: the surest way to hide the
   * time of a transfer, for whoever knows what comes. Makes room as {@link acquire} does. Failures show
   * when they are acquired.
   *
   * @param ids Those that are wanted first come first. Unknown ones are looked for in the tier.
   * @param options.signal Ends the waiting; what has begun to move arrives all the same.
   * @returns When all have arrived or failed.
   * @throws {MisuseError} `bad-id`, `bad-option`, `closed`.
   */
  async prefetch(
    ids: readonly string[],
    options: { readonly stream?: string; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    this.#allocator.checkOpen();
    checkIds(ids);
    const { stream, signal } = checkObject(options, "prefetch", ["stream", "signal"]);
    checkText(stream, "stream");
    await this.#prefetcher.declare(ids, checkSignal(signal));
  }

  /**
   * Writes a record that outlives the tensor and the process.
   *
   * @param options.mode `"durable"`: it survives power loss once this resolves. Default: the
   *   memory's `ssd.mode`.
   * @param options.ttlMs Milliseconds after which no tier gives the record back, by the wall clock; at
   *   least 1. A tensor that is resident then stays until it leaves. Default: it does not expire.
   * @returns `"no-space"` when the tier is off, or full of what nobody could make again.
   * @throws {MisuseError} `unknown-id`; `pinned` — a write pin is open; `unsupported` — durable, on a
   *   tier that cannot promise it.
   * @throws {TierError} `io`, `busy` — it was written meanwhile, `closed`.
   */
  async save(
    id: string,
    options: { readonly mode?: "cache" | "durable"; readonly ttlMs?: number } = {},
  ): Promise<"stored" | "no-space"> {
    this.#allocator.checkOpen();
    checkId(id);
    const wanted = checkSaveOptions(options, this.#isDurable, this.#parts.clock);
    if (wanted.durable && !this.#engine.tier.capabilities.hasDurableCommit) {
      throw new MisuseError("unsupported", "this tier cannot promise to survive power loss");
    }
    for (;;) {
      const outcome = await this.#whenIdle(id, async (record) => {
        if (record.writePinCount > 0) {
          throw new MisuseError("pinned", "a tensor is not saved while a write pin is open");
        }
        const named = this.#named(id);
        if (record.isResident) return this.#swapper.save(record, wanted, named);
        if (hasSaved(named, wanted)) return "stored";
        // Saved in the turn in which it arrives, unless somebody else was quicker.
        return this.#cache.promote(id, undefined, (arrived) =>
          arrived.transfer === null ? this.#swapper.save(arrived, wanted, this.#named(id)) : "busy",
        );
      });
      if (outcome === null) throw new MisuseError("unknown-id", `no tensor ${describe(id)}`);
      if (outcome === "no-space" && (await this.#makeColdRoom(id))) continue;
      if (outcome !== "busy") return outcome;
    }
  }

  /**
   * Moves the only copy of a tensor to the SSD tier and gives its block back. Writes nothing when a
   * valid copy is there already.
   *
   * @returns `"no-space"` when the tier is off, or full of what nobody could make again; the tensor
   *   stays resident.
   * @throws {MisuseError} `unknown-id`, `pinned`.
   * @throws {TierError} `io`, `busy` — it was used meanwhile, `closed`; it stays resident.
   */
  async swapOut(id: string): Promise<"stored" | "no-space"> {
    this.#allocator.checkOpen();
    for (;;) {
      const outcome = await this.#whenIdle(checkId(id), async (record) => {
        if (record.isOnlyOnDevice) return this.#cache.promote(id, undefined, () => "arrived");
        if (!record.isResident) return "demoted";
        if (!this.#swapper.canDemote(record))
          throw new MisuseError("pinned", "the tensor is pinned");
        return this.#swapper.demote(record, { durable: this.#isDurable });
      });
      if (outcome === "vetoed") {
        const message = "the tensor was used while it was moved";
        throw new TierError("busy", this.#engine.tier.name, message);
      }
      if (outcome === "demoted") return "stored";
      if (outcome === "no-space" && !(await this.#makeColdRoom(id))) return outcome;
    }
  }

  /**
   * Deletes a tensor and its record from every tier.
   *
   * @returns Whether any tier held it.
   * @throws {MisuseError} `pinned`.
   * @throws {TierError} `io`, `closed`.
   */
  async delete(id: string): Promise<boolean> {
    this.#allocator.checkOpen();
    const adoption = this.#cache.adoptionOf(checkId(id));
    // Its outcome is for those who asked for it; here only the record in the directory counts.
    if (adoption !== null) await adoption.catch(() => {});
    this.#parts.disposables.forgetDropped(id);
    const record = this.#directory.named(id);
    if (record !== undefined) this.#allocator.free(record);
    const existed = await Promise.all([
      this.#engine.delete({ id, isSaved: true }),
      this.#engine.delete({ id, isSaved: false }),
    ]);
    return existed.includes(true) || record !== undefined;
  }

  /** Tensors of this memory, and records of its namespace in the tier, whose id has the prefix. */
  list(options: { readonly prefix?: string } = {}): AsyncGenerator<ListedTensor> {
    this.#allocator.checkOpen();
    const { prefix } = checkObject(options, "list", ["prefix"]);
    const nowMs = this.#parts.clock.wallMs();
    return listTensors(this.#directory, this.#engine, checkText(prefix, "prefix"), nowMs);
  }

  // --- Workers -------------------------------------------------------------------------------------

  /**
   * A token with which one worker can work on this memory: post it there, and there call
   * `attachTensorMemory`. What the worker allocates belongs to the pool of `kind`, lies in the arenas
   * that the pool has now, and counts in its budget and statistics.
   *
   * @throws {MisuseError} `unsupported` — not created with `shared: true`; `bad-kind`, `closed`.
   * @throws {OutOfMemoryError} The pool has no arena, and there is no room for one.
   * @throws {TierError} `busy` — as many workers as there can be have a token.
   * @remarks The arenas stay open from now on. Call {@link watch} as well, or `releaseLane` when the
   *   worker has ended.
   */
  share(options: { readonly kind: TensorKind }): MemoryToken {
    this.#allocator.checkOpen();
    const { kind } = checkObject(options, "share", ["kind"]);
    return this.#workers.share(this.#poolOf(checkKind(kind)));
  }

  /**
   * Makes a tensor that a worker has handed over one of this memory: anonymous and resident.
   *
   * @throws {MisuseError} `not-owner` — somebody else has adopted it; `stale-handle`,
   *   `foreign-handle`, `bad-*` — not a message of this memory; `closed`.
   */
  adopt<D extends Dtype = Dtype>(message: TensorMessage): Tensor<D> {
    this.#allocator.checkOpen();
    return this.#allocator.adopt(this.#workers.adopt(message), message.slot) as Tensor<D>;
  }

  /**
   * Takes back what a worker had, as soon as it has ended: its tensors are freed, and a change that it
   * was in the middle of is undone or done.
   *
   * @param worker A worker of Node, or any worker of a browser, where a Web Lock tells of its end.
   * @returns When that has been done.
   * @throws {PoisonedError} It left damage that cannot be repaired.
   */
  async watch(worker: Partial<EndingWorker>, token: MemoryToken): Promise<void> {
    await this.#workers.watch(worker, token);
  }

  /**
   * What {@link watch} does when the worker has ended, at once. The worker must have ended.
   *
   * @returns false when another worker is changing the memory at this moment: try again.
   * @throws {MisuseError} `bad-option` — no such lane. @throws {PoisonedError} As {@link watch}.
   */
  releaseLane(lane: number): boolean {
    return this.#workers.releaseLane(checkBytes(lane, "lane"));
  }

  // --- Upkeep --------------------------------------------------------------------------------------

  /**
   * Moves unpinned blocks out of arenas that their kind can do without, and then together, so that the
   * free space of each arena becomes one piece. Handles stay valid. Arenas that became empty are kept for
   * other kinds until {@link trim}. Where the limits end a call, the next one goes on, whatever was allocated meanwhile.
   *
   * @param options.bytesMovedMax Bytes to copy at most; a longer tensor moves alone, in a call of its
   *   own. Default: no limit.
   * @param options.durationMsMax Milliseconds after which no further tensor is begun. Default: no limit.
   * @throws {MisuseError} `closed`, `bad-option`, `bad-size`.
   * @remarks Synchronous. Begins each arena with a look at every tensor in it.
   */
  compact(
    options: { readonly bytesMovedMax?: number; readonly durationMsMax?: number } = {},
  ): CompactionResult {
    this.#allocator.checkOpen();
    return this.#parts.compactor.step(checkCompactionLimits(options));
  }

  /**
   * Gives back what pools of fixed shapes and plans hold idle, empties arenas whose tensors fit into
   * others of their kind, and drops every empty arena. The engine gives their RAM back at its next
   * collection; until then they count against the budget.
   *
   * @returns Bytes dropped.
   * @remarks Synchronous. Copies what it moves: less than an arena for each one that it empties.
   */
  trim(): number {
    this.#allocator.checkOpen();
    return trimMemory(this.#parts);
  }

  /**
   * Everything that is counted.
   *
   * @remarks Reads counters that are kept anyway: the cost is a bounded number of looks at each arena,
   *   however many tensors there are. Nothing is allocated in the core.
   */
  stats(): MemoryStats {
    const watches = [this.#allocator.leaks, this.#parts.repeated.leaks];
    return collectStats({ ...this.#parts, tier: this.#engine.tier, leaks: watches });
  }

  /**
   * Rebuilds the books after a `PoisonedError`, which a call raises that finds an earlier one cut off
   * in the middle: by a stack overflow in it, for example. Tensors are where they were; the call that
   * was cut off has happened or has not.
   *
   * @returns How many tensors are gone, because the call had freed them.
   * @throws {PoisonedError} The table of blocks itself is damaged. What was saved can be read by
   *   another memory, and this one answers nothing but `stats` and reads of open pins.
   * @throws {MisuseError} `closed`; `re-entrant` — a reservation is under way.
   * @remarks Synchronous. Cost: as {@link verify}, and the whole metadata is written anew.
   */
  recover(): number {
    this.#allocator.checkOpen();
    return recoverMemory(this.#parts, (record) => {
      this.#parts.policy.forget(record.index);
      this.#allocator.leaks.unwatch(record);
    });
  }

  /**
   * What some chats of a model would take: bytes by kind and tier, what fits, what would have to leave RAM
   * and how soon it would be back, and what to do about it. With the budgets of this memory and the speeds that its
   * tiers have shown, unless the request has others.
   *
   * @throws {MisuseError} `bad-option`, `bad-shape`, `bad-dtype`, `bad-size`, `bad-kind`; `closed`.
   * @remarks Arithmetic over shapes: allocates nothing. `formatPlan` of `tierheap/plan` makes it text.
   */
  async plan(request: PlanRequest): Promise<MemoryPlan> {
    this.#allocator.checkOpen();
    const { planFor } = await import("./plan/plan-memory.js");
    return planFor(this.#parts, this.stats(), request);
  }

  /** {@link stats} as text for people. */
  report(): string {
    return formatReport(this.stats());
  }

  /**
   * Where every block lies, for maps that people look at.
   *
   * @returns Plain data of one moment: that in which this resolves.
   * @throws {MisuseError} `closed`.
   * @remarks Cost: a look at every tensor and every slot ever used, and a sort. Loads its code at the first call.
   */
  async map(): Promise<MemoryMap> {
    this.#allocator.checkOpen();
    const { collectMap } = await import("./stats/memory-map.js");
    return collectMap(this.#parts);
  }

  /** Walks every invariant of the core and of the residency records. Slow: for tests and doubts. */
  verify(): VerifyResult {
    return verifyMemory({
      ...this.#parts,
      heldCount: this.#reclaimer.reservedCount + this.#parts.held.count,
    });
  }

  /** What happens from now on. Ends at the signal or when the memory closes. */
  events(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<MemoryEvent, void, void> {
    const { signal } = checkObject(options, "events", ["signal"]);
    return this.#events.subscribe(checkSignal(signal));
  }

  /**
   * Waits for transfers, then closes the tier. Resident tensors are gone unless they were saved;
   * swapped-out copies stay for a later process until the tier needs their room. May be called again.
   */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#allocator.close();
      this.#parts.autoCompaction?.stop();
      this.#parts.watch.stop();
      this.#parts.collector?.stop();
      try {
        await this.#swapper.transfers.settle();
        await this.gpu?.close();
        await this.#engine.close();
      } finally {
        this.#events.close();
      }
    })();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // --- Inside --------------------------------------------------------------------------------------

  /**
   * Starts `work` on the record once no transfer is under way, and before another can begin.
   *
   * @throws {MisuseError} `unknown-id`. @throws {CorruptionError} Its only copy is lost.
   */
  async #whenIdle<T>(id: string, work: (record: TensorRecord) => Promise<T>): Promise<T> {
    for (;;) {
      const record = this.#require(id);
      if (record.isLost) throw lossOf(record, this.#engine.tier.name);
      if (record.transfer === null) return work(record);
      await record.transfer.settled;
    }
  }

  #require(id: string): TensorRecord {
    const record = this.#directory.get(id);
    if (record === undefined) throw new MisuseError("unknown-id", `no tensor ${describe(id)}`);
    return record;
  }

  /** The own record of a tensor of this memory. */
  #named(id: string): TensorRecord {
    return this.#directory.named(id) as TensorRecord;
  }

  /** Drops disposable tensors in the tier for one that is to be written. @returns Whether that helped. */
  async #makeColdRoom(id: string): Promise<boolean> {
    const bytes = this.#directory.get(id)?.byteLength ?? 0;
    return bytes > 0 && this.#parts.disposables.makeColdRoom(bytes);
  }

  #poolOf(kind: TensorKind): MemoryPool {
    return this.#parts.pools.get(kind) as MemoryPool;
  }

  async #lease<D extends Dtype>(
    id: string,
    access: PinAccess,
    signal: AbortSignal | undefined,
  ): Promise<Pin<D> | null> {
    const use = () => this.#allocator.pin(this.#named(id), access) as Pin<D>;
    const content = this.#directory.named(id)?.shared;
    if (access !== "write" || content == null || content.referenceCount === 1) {
      return this.#cache.promote(id, signal, use);
    }
    const read = () => this.#allocator.pin(this.#named(id), "read");
    const held = await this.#cache.promote(id, signal, read, { isLookup: false });
    const promote = () => this.#cache.promote(id, signal, use);
    return withRoomBeside(this.#reclaimer, content, { held, signal }, promote);
  }
}
