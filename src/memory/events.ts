// What happens inside, as an async stream. Each listener has a bounded queue; when it falls behind,
// its oldest events go and are counted.
import type { GuardError } from "../errors.js";
import type { FeatureChange } from "../stats/feature.js";
import type { TensorKind } from "../types.js";
import type { FragmentationLevel } from "./fragmentation.js";

export type MemoryEvent =
  /** A request did not fit at first; `remedies` are those that were needed. */
  | {
      readonly type: "pressure";
      readonly kind: TensorKind;
      readonly requestedBytes: number;
      readonly remedies: readonly string[];
    }
  /**
   * The free space of a kind is in more pieces than before, or in fewer. Looked at some time after frees,
   * and after compaction by itself; not with `compaction: "on-demand"`.
   */
  | {
      readonly type: "fragmentation";
      readonly kind: TensorKind;
      readonly level: FragmentationLevel;
      readonly previous: FragmentationLevel;
      readonly externalFragmentation: number;
    }
  /** A tensor was demoted, by pressure or by `swapOut`. `bytesWritten` is 0 for a clean one. */
  | {
      readonly type: "spill";
      readonly id: string;
      readonly tier: string;
      readonly bytesWritten: number;
    }
  /** The background has copied what can then leave at once, or has demoted because the process took too much. */
  | {
      readonly type: "watermark";
      readonly cause: "budget" | "rss";
      /** Bytes of resident tensors, or of the process, when it began. */
      readonly usedBytes: number;
      readonly limitBytes: number;
      readonly copiedCount: number;
      readonly demotedCount: number;
    }
  /**
   * An optimisation was switched off, because its last outcomes cost more than they gave; or on again, to be
   * tried. Costs and gains are those of these outcomes.
   */
  | ({ readonly type: "feature" } & FeatureChange)
  /** A disposable tensor was dropped under pressure. */
  | { readonly type: "drop"; readonly id: string; readonly bytes: number }
  /**
   * A tensor became unreachable without having been freed. Its bytes were taken back, unless a pin of
   * it was leaked too: a view may then still be in use.
   */
  | {
      readonly type: "leak";
      readonly kind: TensorKind;
      readonly bytes: number;
      readonly tag: string;
      /** Where it was allocated; only in debug mode. */
      readonly callSite: string | null;
    }
  /** A record failed its verification. `lost` when it was the only copy. */
  | {
      readonly type: "corruption";
      readonly id: string;
      readonly tier: string;
      readonly reason: string;
      readonly lost: boolean;
    }
  /** Debug mode noticed a write where none may be. */
  | { readonly type: "guard"; readonly error: GuardError }
  /**
   * A store does not work here, and the next best is used; `tier` then has no room if there is none. Or a browser's
   * store has gone while it was open, deleted or cleared (`error.code` is `closed`): what only it held is lost, what is in RAM
   * stays, and a new memory begins anew. Every listener is told, however late it comes.
   */
  | { readonly type: "tier-unavailable"; readonly tier: string; readonly error: Error }
  /** A GPU's device is lost. The tensors that have no other copy are lost with it; the others come back. */
  | {
      readonly type: "device-lost";
      readonly tier: string;
      readonly reason: string;
      readonly lostCount: number;
      readonly keptCount: number;
    }
  /** Background work failed; nothing is lost, but bytes may linger in the tier. */
  | { readonly type: "tier-error"; readonly tier: string; readonly error: Error };

const QUEUE_LENGTH_MAX = 1024;

class Listener {
  readonly queue: MemoryEvent[] = [];
  wake: (() => void) | null = null;
  droppedCount = 0;

  push(event: MemoryEvent): void {
    if (this.queue.length === QUEUE_LENGTH_MAX) {
      this.queue.shift();
      this.droppedCount += 1;
    }
    this.queue.push(event);
    this.wake?.();
  }
}

export class EventHub {
  readonly #listeners = new Set<Listener>();
  /** What holds for as long as the memory lives: nobody listens while it is made. */
  readonly #lasting: MemoryEvent[] = [];
  #isClosed = false;
  #droppedCount = 0;

  /** Events dropped because a listener was slow. */
  get droppedCount(): number {
    let count = this.#droppedCount;
    for (const { droppedCount } of this.#listeners) count += droppedCount;
    return count;
  }

  emit(event: MemoryEvent): void {
    for (const listener of this.#listeners) listener.push(event);
  }

  /** Told to everybody who listens now or later. */
  emitLasting(event: MemoryEvent): void {
    this.#lasting.push(event);
    this.emit(event);
  }

  /** Listening starts now; ends at the signal, at close, or when the consumer stops. */
  subscribe(signal?: AbortSignal): AsyncGenerator<MemoryEvent, void, void> {
    const listener = new Listener();
    this.#listeners.add(listener);
    for (const event of this.#lasting) listener.push(event);
    const leave = () => this.#leave(listener);
    signal?.addEventListener("abort", leave, { once: true });
    if (this.#isClosed || signal?.aborted === true) leave();
    const stream = this.#drain(listener);
    // A generator that was never started does not run its `finally`.
    const end = () => {
      signal?.removeEventListener("abort", leave);
      leave();
    };
    const { return: finish, throw: fail } = stream;
    stream.return = (value) => {
      end();
      return finish.call(stream, value);
    };
    stream.throw = (error) => {
      end();
      return fail.call(stream, error);
    };
    return stream;
  }

  close(): void {
    this.#isClosed = true;
    for (const listener of [...this.#listeners]) this.#leave(listener);
  }

  /** No more events for this listener; those it has are still its own. */
  #leave(listener: Listener): void {
    if (!this.#listeners.delete(listener)) return;
    this.#droppedCount += listener.droppedCount;
    listener.wake?.();
  }

  async *#drain(listener: Listener): AsyncGenerator<MemoryEvent, void, void> {
    for (;;) {
      const event = listener.queue.shift();
      if (event !== undefined) {
        yield event;
      } else if (!this.#listeners.has(listener)) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          listener.wake = resolve;
        });
      }
    }
  }
}
