// Notices that the thread of a lane has ended, and takes the lane back. Layer: core.
import type { Clock } from "../clock.js";

/** A worker of Node, as far as it matters here. */
export interface EndingWorker {
  once(event: "exit", listener: () => void): unknown;
}

/** The part of Web Locks that is used; lib.dom has it, Node 20 has none. */
interface WebLocks {
  request(name: string, callback: () => unknown): Promise<unknown>;
}

/** What a lane's end means to the plane that it belongs to. */
export interface LaneOwner {
  /** Whether a thread has attached to the lane. */
  isAttached(lane: number): boolean;
  /** @returns false to be asked again. */
  release(lane: number): boolean;
}

const RETRY_MS = 5;

function webLocks(): WebLocks | undefined {
  return (globalThis.navigator as { locks?: WebLocks } | undefined)?.locks;
}

/** Holds the lane's Web Lock, where there are any, as long as this thread lives. */
export async function holdLaneLock(lockName: string): Promise<void> {
  const locks = webLocks();
  if (locks === undefined) return;
  await new Promise<void>((resolve, reject) => {
    const hold = () => {
      resolve();
      return new Promise(() => {});
    };
    locks.request(lockName, hold).catch(reject);
  });
}

/**
 * Releases the lane once its thread has ended.
 *
 * @param worker A worker of Node, which tells when it exits; in browsers the lane's Web Lock does, and
 *   the worker may be anything.
 * @returns When the lane has been released.
 * @throws What `release` throws.
 */
export async function releaseWhenEnded(
  owner: LaneOwner,
  worker: Partial<EndingWorker>,
  lane: number,
  lockName: string,
  clock: Clock,
): Promise<void> {
  const locks = webLocks();
  if (typeof worker.once === "function") {
    const { once } = worker as EndingWorker;
    await new Promise<void>((resolve) => void once.call(worker, "exit", resolve));
  } else if (locks !== undefined) {
    // Whoever attaches has the lock already; before that, nobody's end would be seen.
    while (!owner.isAttached(lane)) await clock.sleep(RETRY_MS);
    await locks.request(lockName, () => {});
  } else {
    return;
  }
  while (!owner.release(lane)) await clock.sleep(RETRY_MS);
}
