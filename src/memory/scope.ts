// Frees a group of tensors together.
import { MisuseError } from "../errors.js";
import type { Dtype } from "../types.js";
import { checkObject } from "./checks.js";
import { TENSOR_OPTION_NAMES, type TensorOptions } from "./options.js";
import type { Tensor } from "./tensor.js";

/** What a scope asks of the memory that it belongs to. */
export interface ScopeOwner {
  allocate<D extends Dtype = "u8">(options: TensorOptions<D>): Tensor<D>;
}

export class Scope {
  readonly name: string;
  readonly #owner: ScopeOwner;
  readonly #tensors = new Set<Tensor>();

  /** @internal Scopes are made by `memory.scope`. */
  constructor(name: string, owner: ScopeOwner) {
    this.name = name;
    this.#owner = owner;
  }

  /** As `memory.allocate`; the tensor is freed with the scope. Its tag defaults to the scope's name. */
  allocate<D extends Dtype = "u8">(options: TensorOptions<D>): Tensor<D> {
    checkObject(options, "allocate", TENSOR_OPTION_NAMES);
    const tensor = this.#owner.allocate<D>({ ...options, tag: options.tag ?? this.name });
    this.#tensors.add(tensor as unknown as Tensor);
    return tensor;
  }

  /** Takes a tensor out of the scope: it outlives it. @returns The tensor. */
  keep<D extends Dtype>(tensor: Tensor<D>): Tensor<D> {
    this.#tensors.delete(tensor as unknown as Tensor);
    return tensor;
  }

  /**
   * Frees what is left of the scope. May be called again.
   *
   * @throws {MisuseError} `pinned` — tensors that are still pinned; they stay in the scope, the rest is
   *   freed. The cause has one error for each.
   */
  [Symbol.dispose](): void {
    const failures: unknown[] = [];
    for (const tensor of this.#tensors) {
      try {
        tensor[Symbol.dispose]();
        this.#tensors.delete(tensor);
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) {
      const message = `${failures.length} tensors of scope ${this.name} are still pinned`;
      throw new MisuseError("pinned", message, { cause: new AggregateError(failures) });
    }
  }
}
