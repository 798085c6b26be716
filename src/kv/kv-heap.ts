// What KV caches ask of the memory that holds them; a `TensorMemory` does all of it.
import type { Pin } from "../memory/pin.js";
import type { Tensor } from "../memory/tensor.js";
import type { ChainHints } from "../policy/eviction-policy.js";
import type { Dtype, TensorErrorBudget, TensorKind } from "../types.js";

/** As in `TensorOptions`. */
export interface KvTensorOptions {
  readonly kind: TensorKind;
  readonly id?: string;
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly alignment?: number;
  readonly zero?: boolean;
  readonly disposable?: boolean;
  readonly tag?: string;
  readonly budget?: TensorErrorBudget;
  readonly recomputeMs?: number | undefined;
}

/** The methods of `TensorMemory` of the same names. */
export interface KvHeap {
  allocate(options: KvTensorOptions): Tensor;
  tryAllocate(options: KvTensorOptions): Tensor | null;
  reserve(request: {
    readonly kind: TensorKind;
    readonly bytes: number;
    readonly alignment?: number;
  }): Promise<void>;
  tensor(id: string): Tensor | null;
  acquire(id: string, options: { readonly access: "read" | "write" }): Promise<Pin | null>;
  estimateRestore(id: string): Promise<object | null>;
  prefetch(ids: readonly string[]): Promise<void>;
  touchChain(ids: readonly string[], hints?: ChainHints): void;
  save(id: string): Promise<"stored" | "no-space">;
  delete(id: string): Promise<boolean>;
  list(options: { readonly prefix?: string }): AsyncGenerator<{ readonly id: string }>;
}
