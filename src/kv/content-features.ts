// Outputs of encoders, kept by what they were computed from: features of an image, embeddings of a text.
// They do not depend on where in a chat the image is, so all chats have one copy.
import { MisuseError } from "../errors.js";
import type { Pin } from "../memory/pin.js";
import type { Dtype } from "../types.js";
import type { KvHeap } from "./kv-heap.js";

/** What {@link ContentFeatures.getOrCompute} finds or makes. */
export interface FeatureRequest {
  readonly kind: "IMAGE_FEATURES" | "TEXT_EMBEDDINGS";
  /** Of the input, and of all options of its preparation: SHA-256, in whatever digits. */
  readonly hash: string;
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  /** Writes all elements. Called when no tier has them. */
  readonly compute: (view: Pin["view"]) => void | Promise<void>;
  /** What computing takes, in milliseconds. Default: unknown. Kept for the order of leaving. */
  readonly recomputeMs?: number | undefined;
}

export interface FeatureStats {
  /** Found in some tier, so far. */
  readonly hitCount: number;
  /** Computed, so far. */
  readonly computedCount: number;
}

/** Encoder outputs of one model. Made by `KvCaches`. */
export class ContentFeatures {
  readonly #heap: KvHeap;
  readonly #prefix: string;
  readonly #computing = new Map<string, Promise<void>>();
  #hitCount = 0;
  #computedCount = 0;

  /** @internal @param prefix Of ids, the model's. */
  constructor(heap: KvHeap, prefix: string) {
    this.#heap = heap;
    this.#prefix = prefix;
  }

  /** The id of the tensor: for `memory.save`, which lets it outlive the process, or `memory.delete`. */
  idOf({ kind, hash, shape, dtype }: Omit<FeatureRequest, "compute">): string {
    return this.#prefix + JSON.stringify([kind, hash, dtype, shape]);
  }

  /**
   * @returns A lease for reading. The tensor stays until the memory needs its room: it is disposable.
   * @throws {MisuseError} `bad-option`, `bad-*`.
   * @throws {OutOfMemoryError} There is no room for it.
   * @throws What `compute` throws; nothing is kept then.
   * @throws As `TensorMemory.acquire`.
   * @remarks Whoever asks while it is computed waits for that.
   */
  async getOrCompute(request: FeatureRequest): Promise<Pin> {
    const { kind, hash } = request;
    if (kind !== "IMAGE_FEATURES" && kind !== "TEXT_EMBEDDINGS") {
      throw new MisuseError("bad-option", "kind is IMAGE_FEATURES or TEXT_EMBEDDINGS");
    }
    if (typeof hash !== "string" || hash === "") {
      throw new MisuseError("bad-option", "hash is text that names the content");
    }
    const id = this.idOf(request);
    for (;;) {
      const computing = this.#computing.get(id);
      if (computing === undefined) {
        const lease = await this.#heap.acquire(id, { access: "read" });
        if (lease !== null) {
          this.#hitCount += 1;
          return lease;
        }
        if (this.#computing.has(id)) continue;
        const work = this.#compute(id, request).finally(() => this.#computing.delete(id));
        this.#computing.set(id, work);
        await work;
        const made = await this.#heap.acquire(id, { access: "read" });
        if (made !== null) return made;
      } else {
        // Its failure is for whoever began it; here it is tried again.
        await computing.catch(() => {});
      }
    }
  }

  stats(): FeatureStats {
    return { hitCount: this.#hitCount, computedCount: this.#computedCount };
  }

  async #compute(id: string, request: FeatureRequest): Promise<void> {
    const { kind, shape, dtype, recomputeMs, compute } = request;
    const options = { kind, id, shape, dtype, recomputeMs, disposable: true };
    let tensor = this.#heap.tryAllocate(options);
    if (tensor === null) {
      const bytes = shape.reduce((product, length) => product * length, 8);
      await this.#heap.reserve({ kind, bytes });
      tensor = this.#heap.allocate(options);
    }
    const pin = tensor.pin();
    try {
      await compute(pin.view);
    } catch (error) {
      pin[Symbol.dispose]();
      tensor.free();
      throw error;
    }
    pin[Symbol.dispose]();
    this.#computedCount += 1;
  }
}
