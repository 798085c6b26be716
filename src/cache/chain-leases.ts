// Leases on all tensors of a chain, or on none.
import { OutOfMemoryError } from "../errors.js";

/** How often tensors are brought in one by one before a chain is given up. */
const ATTEMPT_COUNT_MAX = 3;

/**
 * @param lease Of one tensor; null when nobody knows it.
 * @param bringIn Makes a tensor resident, and pins nothing.
 * @returns Leases in the order of `ids`, or null when one of them is unknown.
 * @throws What a lease threw; those taken until then are given back.
 */
export async function leaseAll<L extends Disposable>(
  ids: readonly string[],
  lease: (id: string) => Promise<L | null>,
  bringIn: (id: string) => Promise<unknown>,
): Promise<L[] | null> {
  for (let attempt = 0; ; attempt++) {
    const results = await Promise.allSettled(ids.map(lease));
    const leases = results.map((result) => (result.status === "fulfilled" ? result.value : null));
    if (leases.every((each) => each !== null)) return leases;
    for (const each of leases) each?.[Symbol.dispose]();
    const failed = results.find((result) => result.status === "rejected");
    if (failed === undefined) return null;
    const isFull = failed.reason instanceof OutOfMemoryError;
    if (!isFull || attempt === ATTEMPT_COUNT_MAX) throw failed.reason;
    // Pinned wherever they arrived, they were in each other's way. Those that are not pinned are moved
    // together; once all are there, all are pinned in one turn.
    for (const id of ids) await bringIn(id);
  }
}
