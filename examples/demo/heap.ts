// What the page does with tierheap; nothing here touches the document.
import {
  createTensorMemory,
  type Dtype,
  type ListedTensor,
  type MemoryStats,
  type TensorKind,
  type TensorMemory,
  TierError,
} from "tierheap";
import { type Finding, findPattern, writePattern } from "./pattern.js";

const PREFIX = "demo/";
const OPEN_ATTEMPTS = 5;
const OPEN_RETRY_MS = 200;

/** A shape that is usual for the kind, of about the given number of bytes. */
const SHAPES: Record<TensorKind, (bytes: number) => { dtype: Dtype; shape: number[] }> = {
  KV_CACHE: (bytes) => ({ dtype: "f16", shape: [1, 8, bytes / 1024, 64] }),
  IMAGE_FEATURES: (bytes) => ({ dtype: "f32", shape: [bytes / 4096, 1024] }),
  TEXT_EMBEDDINGS: (bytes) => ({ dtype: "f32", shape: [Math.floor(bytes / 3072), 768] }),
  GRADIENTS: (bytes) => ({ dtype: "f32", shape: [bytes / 1024, 256] }),
  ACTIVATIONS: (bytes) => ({ dtype: "bf16", shape: [bytes / 2048, 1024] }),
  PARAMETERS: (bytes) => ({ dtype: "i8", shape: [bytes / 512, 512] }),
};

export const KINDS = Object.keys(SHAPES) as TensorKind[];

export interface HeapOptions {
  /** Budgets as tierheap takes them, such as `"64MiB"`. */
  readonly ram: string;
  readonly ssd: string;
}

/** Outcomes of an action over several tensors, by what became of each. */
export type Tally = Map<string, number>;

export class DemoHeap {
  readonly #memory: TensorMemory;
  /** Why nothing can be kept, or null. */
  readonly problem: string | null;
  readonly #findings = new Map<string, Finding>();

  private constructor(memory: TensorMemory, problem: string | null) {
    this.#memory = memory;
    this.problem = problem;
  }

  /** Opens the heap over RAM and the browser's storage, or over RAM alone where that is not to be had. */
  static async open({ ram, ssd }: HeapOptions): Promise<DemoHeap> {
    for (let attempt = 1; ; attempt++) {
      try {
        const budgets = { ram, ssd };
        const memory = await createTensorMemory({ budgets, ssd: { directory: "tierheap-demo" } });
        return new DemoHeap(memory, null);
      } catch (error) {
        if (!(error instanceof TierError)) throw error;
        // A page that is being reloaded may hold the database for another moment.
        if (error.code !== "busy" || attempt === OPEN_ATTEMPTS) {
          return new DemoHeap(await createTensorMemory({ budgets: { ram } }), error.message);
        }
        await new Promise((resolve) => setTimeout(resolve, OPEN_RETRY_MS));
      }
    }
  }

  stats(): MemoryStats {
    return this.#memory.stats();
  }

  report(): string {
    return this.#memory.report();
  }

  finding(id: string): Finding | undefined {
    return this.#findings.get(id);
  }

  async list(): Promise<ListedTensor[]> {
    const listed: ListedTensor[] = [];
    for await (const tensor of this.#memory.list({ prefix: PREFIX })) listed.push(tensor);
    return listed.sort((left, right) => (left.id < right.id ? -1 : 1));
  }

  /** Allocates blank tensors; cold ones make room for them. */
  async allocate(kind: TensorKind | "", bytes: number, count: number): Promise<void> {
    const label = Date.now().toString(36);
    for (let number = 0; number < count; number++) {
      const each = kind === "" ? (KINDS[number % KINDS.length] as TensorKind) : kind;
      const { dtype, shape } = SHAPES[each](bytes);
      const id = `${PREFIX}${each.toLowerCase()}/${label}-${number}`;
      await this.#memory.reserve({ kind: each, bytes });
      this.#memory.allocate({ kind: each, id, dtype, shape, zero: true });
      this.#findings.set(id, "blank");
    }
  }

  /** Brings the tensor in if need be, and fills it. */
  async write(id: string): Promise<string> {
    using lease = await this.#memory.acquire(id);
    if (lease === null) return "gone";
    writePattern(id, lease.bytes);
    this.#findings.set(id, "pattern");
    return "written";
  }

  /** Brings the tensor in if need be, and compares every byte. */
  async verify(id: string): Promise<string> {
    using lease = await this.#memory.acquire(id, { access: "read" });
    if (lease === null) return "gone";
    const finding = findPattern(id, lease.bytes);
    this.#findings.set(id, finding);
    return finding;
  }

  async load(id: string): Promise<string> {
    using lease = await this.#memory.acquire(id, { access: "read" });
    return lease === null ? "gone" : "brought in";
  }

  /** Records that an earlier visit left have no tensor yet; acquiring gives them one. */
  async save(id: string): Promise<string> {
    if (this.#memory.tensor(id) === null) return "stored";
    return this.#memory.save(id, { mode: "durable" });
  }

  async swapOut(id: string): Promise<string> {
    if (this.#memory.tensor(id) === null) return "stored";
    return this.#memory.swapOut(id);
  }

  async delete(id: string): Promise<string> {
    this.#findings.delete(id);
    return (await this.#memory.delete(id)) ? "deleted" : "gone";
  }

  compact(): number {
    return this.#memory.compact().movedBytes;
  }

  trim(): number {
    return this.#memory.trim();
  }

  /** Does one thing to every tensor, and counts how each ended. */
  async tally(action: (id: string) => Promise<string>): Promise<Tally> {
    const outcomes: Tally = new Map();
    for (const { id } of await this.list()) {
      const outcome = await action(id);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    return outcomes;
  }
}
