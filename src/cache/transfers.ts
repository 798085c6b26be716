// What is under way: at most one transfer per tensor, and deletions in the background.
import { BurstSpeed } from "./burst-speed.js";
import type { TensorRecord } from "./tensor-record.js";

/** A promise and its end, in one. */
function pending(among: Set<Promise<void>>): { readonly settled: Promise<void>; end(): void } {
  let resolve = () => {};
  const settled = new Promise<void>((settle) => {
    resolve = settle;
  });
  among.add(settled);
  return {
    settled,
    end: () => {
      among.delete(settled);
      resolve();
    },
  };
}

export class Transfers {
  /** Of loads. */
  readonly bursts = new BurstSpeed();
  readonly #transfers = new Set<Promise<void>>();
  /** What has all the room it needs and will give some back. */
  readonly #progressing = new Set<Promise<void>>();
  readonly #background = new Set<Promise<void>>();
  readonly #runs = new Set<Promise<void>>();

  get isIdle(): boolean {
    return this.#transfers.size === 0;
  }

  /** Something under way that will end without needing more room, or null. */
  get progressing(): Promise<void> | null {
    return this.#progressing.values().next().value ?? null;
  }

  /** Marks a tensor's transfer as under way. @returns Ends it, at once. */
  begin(record: TensorRecord): () => void {
    const { settled, end } = pending(this.#transfers);
    record.transfer = { settled };
    return () => {
      record.transfer = null;
      end();
    };
  }

  /** Notes that something has all the room it needs. @returns Ends it. */
  noteProgress(): () => void {
    return pending(this.#progressing).end;
  }

  /** Keeps {@link settle} waiting for work that never rejects. */
  watch(work: Promise<void>): void {
    const watched = work.finally(() => this.#background.delete(watched));
    this.#background.add(watched);
  }

  /** As {@link watch}, for work that may itself wait for {@link settleBackground}. */
  watchRun(run: Promise<void>): void {
    const watched = run.finally(() => this.#runs.delete(watched));
    this.#runs.add(watched);
  }

  /** Resolves once the deletions that are under way have ended. */
  async settleBackground(): Promise<void> {
    await Promise.all(this.#background);
  }

  /** Resolves once nothing is under way. */
  async settle(): Promise<void> {
    const all = () => [...this.#transfers, ...this.#background, ...this.#runs];
    while (all().length > 0) await Promise.all(all());
  }
}
