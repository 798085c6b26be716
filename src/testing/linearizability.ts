// Whether a history of one register could have happened one operation after the other: each takes effect
// at one moment between its call and its return, and a read gives what was written last.
//
// Source: Jeannette M. Wing, Chun Gong, "Testing and Verifying Concurrent Objects", JPDC 17, 1993 — the
// search. Source: Gavin Lowe, "Testing for linearizability", CCPE 29, 2017 — remembering configurations.

/** One operation on the register. */
export interface RegisterOperation {
  readonly type: "read" | "write";
  /** What was read or written; null: nothing is there. */
  readonly value: number | null;
  /** When it was called, and when it returned: moments of one counter, each used once. */
  readonly calledAt: number;
  readonly returnedAt: number;
  /** A write that failed: it may have happened, at any moment after its call, or not. */
  readonly isUncertain?: boolean;
}

/** Longest history: its operations are bits of one word. */
export const OPERATION_COUNT_MAX = 31;

/**
 * Searches an order.
 *
 * @param initial What the register holds before.
 * @returns Whether there is one.
 * @throws {RangeError} More than {@link OPERATION_COUNT_MAX} operations.
 * @remarks Time and memory may grow with the number of subsets of operations that overlap.
 */
export function isLinearizable(
  operations: readonly RegisterOperation[],
  initial: number | null = null,
): boolean {
  if (operations.length > OPERATION_COUNT_MAX) throw new RangeError("the history is too long");
  const endOf = ({ isUncertain, returnedAt }: RegisterOperation) =>
    isUncertain === true ? Number.POSITIVE_INFINITY : returnedAt;
  let certain = 0;
  for (const [index, operation] of operations.entries()) {
    if (operation.isUncertain !== true) certain |= 1 << index;
  }
  const seen = new Set<string>();
  const stack: { readonly done: number; readonly value: number | null }[] = [
    { done: 0, value: initial },
  ];
  for (let state = stack.pop(); state !== undefined; state = stack.pop()) {
    const { done, value } = state;
    if ((done & certain) === certain) return true;
    const name = `${done} ${value}`;
    if (seen.has(name)) continue;
    seen.add(name);
    let firstEnd = Number.POSITIVE_INFINITY;
    for (const [index, operation] of operations.entries()) {
      if ((done & (1 << index)) === 0) firstEnd = Math.min(firstEnd, endOf(operation));
    }
    for (const [index, operation] of operations.entries()) {
      // What was called after another one had returned cannot come before it.
      if ((done & (1 << index)) !== 0 || operation.calledAt > firstEnd) continue;
      if (operation.type === "read" && operation.value !== value) continue;
      stack.push({ done: done | (1 << index), value: operation.value });
    }
  }
  return false;
}
