/**
 * Writes down what a run does with its tensors: when each is allocated, pinned and freed, and by whom.
 * Stands in front of a memory and passes everything on; the blocks that pools of fixed shapes and plans
 * hold are not tensors of their own, and are left out.
 */
import type { Pin, Scope, Tensor, TensorMemory, TensorOptions } from "tierheap";

/**
 * A line of a trace, all of them with the milliseconds since its beginning:
 * `["allocate", ms, number, kind, site, bytes]`, `["use", ms, number]`, `["resize", ms, number, bytes]`,
 * `["free", ms, number]`, and `["turn", ms, turn]` where a turn begins.
 */
export type TraceLine = readonly [string, number, ...(string | number)[]];

/** Milliseconds are kept to a thousandth. */
const MS_DIGITS = 1000;

export class TraceRecorder {
  readonly lines: TraceLine[] = [];
  /** What the run uses in place of the memory. */
  readonly memory: TensorMemory;
  readonly #target: TensorMemory;
  readonly #now: () => number;
  readonly #startMs: number;
  /** Numbers of named tensors. */
  readonly #numbers = new Map<string, number>();
  #count = 0;

  constructor(target: TensorMemory, now: () => number) {
    this.#target = target;
    this.#now = now;
    this.#startMs = now();
    const own = this.#ownMethods();
    this.memory = new Proxy(target, {
      get: (_, name) => {
        const method = own[name as keyof typeof own] ?? Reflect.get(target, name, target);
        return typeof method === "function" ? method.bind(target) : method;
      },
    });
  }

  turn(turn: number): void {
    this.#add("turn", turn);
  }

  #ownMethods() {
    const target = this.#target;
    const allocate = (options: TensorOptions) => this.#made(options, target.allocate(options));
    const tryAllocate = (options: TensorOptions) => {
      const tensor = target.tryAllocate(options);
      return tensor && this.#made(options, tensor);
    };
    const free = (id: string) => {
      target.free(id);
      this.#freed(id);
    };
    const remove = async (id: string) => {
      this.#freed(id);
      return target.delete(id);
    };
    const tensor = (id: string) => {
      const found = target.tensor(id);
      const number = this.#numbers.get(id);
      return found !== null && number !== undefined ? this.#watch(found, number) : found;
    };
    const acquire = async (id: string, options?: object) => {
      const lease = await target.acquire(id, options);
      return this.#leased(id, lease);
    };
    const tryAcquire = (id: string, options?: object) =>
      this.#leased(id, target.tryAcquire(id, options));
    const acquireChain = async (ids: readonly string[], options?: object) => {
      const leases = await target.acquireChain(ids, options);
      for (const [index, lease] of (leases ?? []).entries()) this.#leased(ids[index] ?? "", lease);
      return leases;
    };
    const scope = (name = ""): Scope => {
      const made = target.scope(name);
      const allocateInside = made.allocate.bind(made);
      const dispose = made[Symbol.dispose].bind(made);
      const watched = new Map<number, Tensor>();
      made.allocate = ((options: TensorOptions) => {
        const tensor = this.#made({ tag: name, ...options }, allocateInside(options));
        watched.set(this.#count - 1, tensor);
        return tensor;
      }) as Scope["allocate"];
      made[Symbol.dispose] = () => {
        const live = [...watched].filter(([, { isFreed }]) => !isFreed);
        dispose();
        for (const [number, { isFreed, id }] of live) if (isFreed) this.#ended(number, id);
      };
      return made;
    };
    const tensors = { allocate, tryAllocate, free, delete: remove, tensor, scope };
    return { ...tensors, acquire, tryAcquire, acquireChain };
  }

  #made(options: TensorOptions, tensor: Tensor): Tensor {
    const number = this.#count++;
    const { kind, byteLength, id } = tensor;
    this.#add("allocate", number, kind, options.site ?? options.tag ?? "", byteLength);
    if (id !== null) this.#numbers.set(id, number);
    return this.#watch(tensor, number);
  }

  /** Tells of what is done with the tensor itself. */
  #watch(tensor: Tensor, number: number): Tensor {
    const { pin, free, resize } = tensor;
    tensor.pin = (options) => {
      const made = pin.call(tensor, options);
      this.#add("use", number);
      return made;
    };
    tensor.resize = (extent) => {
      resize.call(tensor, extent);
      this.#add("resize", number, tensor.byteLength);
    };
    tensor.free = () => {
      const { isFreed, id } = tensor;
      free.call(tensor);
      if (!isFreed) this.#ended(number, id);
    };
    return tensor;
  }

  #ended(number: number, id: string | null): void {
    if (id === null) this.#add("free", number);
    else this.#freed(id);
  }

  #leased(id: string, lease: Pin | null): Pin | null {
    const number = this.#numbers.get(id);
    if (lease !== null && number !== undefined) this.#add("use", number);
    return lease;
  }

  #freed(id: string): void {
    const number = this.#numbers.get(id);
    if (number === undefined) return;
    this.#numbers.delete(id);
    this.#add("free", number);
  }

  #add(name: string, ...rest: (string | number)[]): void {
    const ms = Math.round((this.#now() - this.#startMs) * MS_DIGITS) / MS_DIGITS;
    this.lines.push([name, ms, ...rest]);
  }
}
