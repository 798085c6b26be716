// The promise behind `budgets.ram`: arenas, staging and the control plane are charged here first, and
// a charge that would exceed the limit is refused. JavaScript objects are not counted: a tensor's
// record is a few hundred bytes of the engine's own heap.

/**
 * What RAM is held for. `warm` is the whole of the warm tier, filled or not. `arenas` includes emptied ones kept as spares; `retired` are dropped arenas
 * that the engine has not collected yet.
 */
export type BudgetCategory = "control" | "staging" | "warm" | "arenas" | "retired";

export interface BudgetStats {
  readonly limitBytes: number;
  readonly usedBytes: number;
  /** Highest `usedBytes` ever, compared at every change. */
  readonly usedBytesPeak: number;
  readonly byCategory: Readonly<Record<BudgetCategory, number>>;
  /** How often the sum was compared with the limit. */
  readonly changeCount: number;
  /** Charges refused because they would have exceeded the limit. */
  readonly refusedCount: number;
}

export class Budget {
  readonly limitBytes: number;
  readonly #used: Record<BudgetCategory, number> = {
    control: 0,
    staging: 0,
    warm: 0,
    arenas: 0,
    retired: 0,
  };
  #usedBytes = 0;
  #usedBytesPeak = 0;
  #changeCount = 0;
  #refusedCount = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Most bytes that arenas can ever have: what is neither metadata nor staging nor the warm tier. */
  get arenaLimitBytes(): number {
    return this.limitBytes - this.#used.control - this.#used.staging - this.#used.warm;
  }

  get retiredBytes(): number {
    return this.#used.retired;
  }

  /** @returns false, and charges nothing, when the limit would be exceeded. */
  tryCharge(category: BudgetCategory, bytes: number): boolean {
    if (this.#usedBytes + bytes > this.limitBytes) {
      this.#refusedCount += 1;
      return false;
    }
    this.#change(category, bytes);
    return true;
  }

  release(category: BudgetCategory, bytes: number): void {
    this.#change(category, -bytes);
  }

  /** Bytes change their purpose; the sum stays. */
  move(from: BudgetCategory, to: BudgetCategory, bytes: number): void {
    this.#used[from] -= bytes;
    this.#used[to] += bytes;
  }

  stats(): BudgetStats {
    return {
      limitBytes: this.limitBytes,
      usedBytes: this.#usedBytes,
      usedBytesPeak: this.#usedBytesPeak,
      byCategory: { ...this.#used },
      changeCount: this.#changeCount,
      refusedCount: this.#refusedCount,
    };
  }

  #change(category: BudgetCategory, bytes: number): void {
    this.#used[category] += bytes;
    this.#usedBytes += bytes;
    this.#changeCount += 1;
    if (this.#usedBytes > this.#usedBytesPeak) this.#usedBytesPeak = this.#usedBytes;
  }
}
