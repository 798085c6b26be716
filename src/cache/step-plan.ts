// Replays a repeated step without an allocator: its tensors are recorded once, their places computed
// once, and from then on every step is one block and constant views.
import { MisuseError } from "../errors.js";
import { checkObject } from "../memory/checks.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { Pin, PinAccess } from "../memory/pin.js";
import { Tensor, type TensorOwner } from "../memory/tensor.js";
import type { TensorMessage } from "../memory/tokens.js";
import type { Dtype, Shape, TensorKind, TensorView } from "../types.js";
import type { Guards } from "./guards.js";
import type { BlockHolder, HeldBlock, HeldBlocks } from "./held-blocks.js";
import { planOffsets } from "./plan-offsets.js";
import type { Reclaimer } from "./reclaimer.js";
import type { TensorAllocator } from "./tensor-allocator.js";
import type { TensorRecord } from "./tensor-record.js";

/** Places of a plan start at multiples of this, as size classes do. */
const PLAN_ALIGNMENT = 64;

/** The memory that a plan belongs to. */
export interface PlanParts {
  readonly pool: MemoryPool;
  readonly allocator: TensorAllocator;
  readonly reclaimer: Reclaimer;
  readonly held: HeldBlocks;
  /** Only in debug mode. */
  readonly guards: Guards | null;
}

interface Recorded {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly start: number;
  end: number;
}

/**
 * Records one step: allocate every tensor of the step from it, and free each when it is no longer
 * needed, as without it. The tensors are ordinary ones.
 */
export class PlanRecorder implements TensorOwner {
  readonly kind: TensorKind;
  readonly #parts: PlanParts;
  readonly #recorded: Recorded[] = [];
  readonly #live = new Map<TensorRecord, Recorded>();
  #time = 0;
  #isFinished = false;

  /** @internal Recorders are made by `memory.recordPlan`. */
  constructor(parts: PlanParts) {
    this.kind = parts.pool.kind;
    this.#parts = parts;
  }

  /** As `memory.allocate`, of the recorder's kind. @throws {MisuseError} `closed` — it is finished. */
  allocate<D extends Dtype>(options: { readonly shape: Shape; readonly dtype: D }): Tensor<D> {
    if (this.#isFinished) throw new MisuseError("closed", "the recording is finished");
    checkObject(options, "allocate", ["shape", "dtype"]);
    const tensor = this.#parts.allocator.allocate({ ...options, kind: this.kind }, this);
    const { shape, dtype, byteLength } = tensor;
    const start = this.#time++;
    const recorded = { shape, dtype, byteLength, start, end: Number.POSITIVE_INFINITY };
    this.#recorded.push(recorded);
    this.#live.set(Tensor.recordOf(tensor), recorded);
    return tensor as Tensor<D>;
  }

  /**
   * Ends the recording and computes the plan. A tensor that is not freed yet is needed to the end of
   * the step; it stays an ordinary tensor, which its holder frees.
   *
   * @throws {MisuseError} `bad-option` — nothing was recorded; `closed` — it was finished before.
   * @remarks Cost: the square of the number of tensors.
   */
  finish(): StepPlan {
    if (this.#isFinished) throw new MisuseError("closed", "the recording is finished");
    if (this.#recorded.length === 0) throw new MisuseError("bad-option", "nothing was recorded");
    this.#isFinished = true;
    this.#live.clear();
    const end = this.#time;
    const tensors = this.#recorded.map((each) => ({ ...each, end: Math.min(each.end, end) }));
    return new StepPlan(tensors, this.#parts);
  }

  /** @internal */
  pin(record: TensorRecord, access: PinAccess): Pin {
    return this.#parts.allocator.pin(record, access);
  }

  /** @internal */
  free(record: TensorRecord): void {
    this.#parts.allocator.free(record);
    const recorded = this.#live.get(record);
    if (recorded === undefined) return;
    recorded.end = this.#time++;
    this.#live.delete(record);
  }

  /** @internal */
  markDisposable(record: TensorRecord, isDisposable: boolean): void {
    this.#parts.allocator.markDisposable(record, isDisposable);
  }

  /** @internal For the plan it is then needed to the end of the step. */
  handOver(record: TensorRecord): TensorMessage {
    const message = this.#parts.allocator.handOver(record);
    this.#live.delete(record);
    return message;
  }

  /** @internal */
  resize(record: TensorRecord, shape: Shape): void {
    if (this.#live.has(record)) {
      throw new MisuseError("unsupported", "a tensor is not resized while a plan is recorded");
    }
    this.#parts.allocator.resize(record, shape);
  }

  /** @internal */
  get isClosed(): boolean {
    return this.#parts.allocator.isClosed;
  }
}

/**
 * The plan of a step. Between {@link begin} and {@link end}, {@link next} gives the views of its
 * tensors in the order in which they were recorded; each may be used until the point at which its
 * tensor was freed in the recording. What a step leaves behind is overwritten by the next one.
 */
export class StepPlan implements BlockHolder {
  readonly kind: TensorKind;
  /** Bytes of the block. */
  readonly byteLength: number;
  /** The most bytes that are needed at one moment: no plan can be shorter. */
  readonly lowerBoundBytes: number;
  readonly #tensors: readonly Recorded[];
  readonly #offsets: readonly number[];
  readonly #parts: PlanParts;
  #block: HeldBlock | null = null;
  #views: TensorView[] = [];
  #cursor = 0;
  #isActive = false;

  /** @internal Plans are made by {@link PlanRecorder.finish}. */
  constructor(tensors: readonly Recorded[], parts: PlanParts) {
    const lifetimes = tensors.map(({ byteLength, start, end }) => ({
      bytes: byteLength,
      start,
      end,
    }));
    const { offsets, byteLength, lowerBoundBytes } = planOffsets(lifetimes, PLAN_ALIGNMENT);
    this.kind = parts.pool.kind;
    this.byteLength = byteLength;
    this.lowerBoundBytes = lowerBoundBytes;
    this.#tensors = tensors;
    this.#offsets = offsets;
    this.#parts = parts;
    parts.held.addHolder(this);
  }

  get tensorCount(): number {
    return this.#tensors.length;
  }

  /**
   * Begins a step, or begins it anew. Takes the block if the plan has none; the views are made then.
   *
   * @throws {OutOfMemoryError} There is no room for the block.
   * @throws {MisuseError} `closed`.
   */
  begin(): void {
    if (this.#parts.allocator.isClosed) throw new MisuseError("closed", "the memory is closed");
    if (this.#block === null) {
      const { kind, byteLength } = this;
      const { pool, reclaimer, held, guards } = this.#parts;
      const block = held.hold(pool, reclaimer.place(pool, byteLength, PLAN_ALIGNMENT));
      guards?.armHeld(block, { kind, byteLength, tag: "step plan", callSite: null });
      this.#block = block;
      this.#views = this.#tensors.map(({ dtype, byteLength }, index) =>
        held.view(block, dtype, this.#offsets[index] as number, byteLength),
      );
    }
    this.#isActive = true;
    this.#cursor = 0;
  }

  /**
   * The view of the step's next tensor: the same object in every step, as long as the block stays.
   *
   * @param shape Of the tensor that the step wants; compared with the recorded one.
   * @throws {MisuseError} `plan-mismatch` — another shape was recorded, or no further tensor. The step
   *   is another one: `end` it, and run it with `memory.allocate`, or record it again.
   * @throws {MisuseError} `closed` — outside of a step.
   * @remarks No call into the core.
   */
  next<D extends Dtype>(shape: Shape, dtype: D): TensorView<D> {
    if (!this.#isActive) throw new MisuseError("closed", "no step has begun");
    const recorded = this.#tensors[this.#cursor];
    if (recorded?.dtype !== dtype || !isEqualShape(recorded.shape, shape)) {
      throw new MisuseError("plan-mismatch", `tensor ${this.#cursor} was not recorded like this`);
    }
    const view = this.#views[this.#cursor] as TensorView<D>;
    this.#cursor += 1;
    return view;
  }

  /**
   * Ends the step. The block stays with the plan, until pressure takes it. May be called again.
   *
   * @throws {GuardError} `overrun` — in debug mode: past the end of the plan's last tensor. The step has
   *   ended all the same.
   */
  end(): void {
    this.#isActive = false;
    if (this.#block !== null) this.#parts.guards?.checkHeld(this.#block);
  }

  /** @internal */
  releaseIdle(): boolean {
    const block = this.#block;
    if (this.#isActive || block === null) return false;
    this.#block = null;
    this.#views = [];
    this.#parts.guards?.disarmHeld(block);
    this.#parts.held.giveBack(block);
    return true;
  }

  /** Ends the plan and gives its block back. */
  [Symbol.dispose](): void {
    if (this.#parts.allocator.isClosed) return;
    this.#isActive = false;
    this.releaseIdle();
    this.#parts.held.removeHolder(this);
  }
}

function isEqualShape(left: readonly number[], right: readonly number[]): boolean {
  if (left.length !== right.length) return false;
  for (let index = 0; index < left.length; index++) if (left[index] !== right[index]) return false;
  return true;
}
