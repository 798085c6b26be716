// Frees a group of tensors together.
import type { TensorRecord } from "../cache/tensor-record.js";
import { MisuseError } from "../errors.js";
import type { Dtype } from "../types.js";
import { checkObject } from "./checks.js";
import { TENSOR_OPTION_NAMES, type TensorOptions } from "./options.js";
import { Tensor, type TensorOwner } from "./tensor.js";

/** What a scope asks of the memory that it belongs to. */
export interface ScopeOwner extends TensorOwner {
  allocate(options: TensorOptions): Tensor;
  /** Frees what is not freed yet. @returns An error for each that is pinned. */
  freeAll(records: readonly TensorRecord[]): Error[];
}

/** Tensors of a scope after which those that were freed singly are forgotten, at the earliest. */
const SWEEP_COUNT_MIN = 256;

export class Scope {
  readonly name: string;
  readonly #owner: ScopeOwner;
  /** The tensors, not their records: what a scope holds has not leaked. */
  #tensors: Tensor[] = [];
  #sweepCount = SWEEP_COUNT_MIN;

  /** @internal Scopes are made by `memory.scope`. */
  constructor(name: string, owner: ScopeOwner) {
    this.name = name;
    this.#owner = owner;
  }

  /** As `memory.allocate`; the tensor is freed with the scope. Its tag defaults to the scope's name. */
  allocate<D extends Dtype = "u8">(options: TensorOptions<D>): Tensor<D> {
    checkObject(options, "allocate", TENSOR_OPTION_NAMES);
    const tensor = this.#owner.allocate({ ...options, tag: options.tag ?? this.name });
    this.#tensors.push(tensor);
    if (this.#tensors.length === this.#sweepCount) this.#sweep();
    return tensor as Tensor<D>;
  }

  /** Takes a tensor out of the scope: it outlives it. @returns The tensor. */
  keep<D extends Dtype>(tensor: Tensor<D>): Tensor<D> {
    const index = this.#tensors.lastIndexOf(tensor as unknown as Tensor);
    if (index >= 0) this.#tensors.splice(index, 1);
    return tensor;
  }

  /**
   * Frees what is left of the scope, in one call into the core. May be called again.
   *
   * @throws {MisuseError} `pinned` — tensors that are still pinned; they stay in the scope, the rest is
   *   freed. The cause has one error for each.
   * @throws {GuardError} Debug mode: a tensor was written past its end.
   */
  [Symbol.dispose](): void {
    if (this.#owner.isClosed) return;
    const failures = this.#owner.freeAll(this.#tensors.map(Tensor.recordOf));
    this.#sweep();
    const pinned = failures.filter((error): boolean => error instanceof MisuseError);
    if (pinned.length < failures.length) throw failures.find((error) => !pinned.includes(error));
    if (failures.length > 0) {
      const message = `${failures.length} tensors of scope ${this.name} are still pinned`;
      throw new MisuseError("pinned", message, { cause: new AggregateError(failures) });
    }
  }

  /** Forgets freed tensors, when there are twice as many as after the last time. */
  #sweep(): void {
    this.#tensors = this.#tensors.filter(({ isFreed }) => !isFreed);
    this.#sweepCount = Math.max(SWEEP_COUNT_MIN, 2 * this.#tensors.length);
  }
}
