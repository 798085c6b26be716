// What a memory does after its core was interrupted in the middle of a change.
import type { ControlPlane } from "../core/control-plane.js";
import { MisuseError } from "../errors.js";
import { CONTENT_PREFIX } from "../limits.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { Compactor } from "../memory/compactor.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { TensorKind } from "../types.js";
import type { Directory } from "./directory.js";
import type { HeldBlocks } from "./held-blocks.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { Reclaimer } from "./reclaimer.js";
import type { SharedTensors } from "./shared-tensors.js";
import type { TensorRecord } from "./tensor-record.js";

/**
 * Rebuilds the core's books and brings the host's in step with them.
 *
 * @param forget Called for each tensor that is gone.
 * @returns How many those are.
 * @throws {PoisonedError} As `ControlPlane.recover`. @throws {MisuseError} `re-entrant`.
 */
export function recoverMemory(
  parts: {
    readonly core: ControlPlane;
    readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
    readonly shelf: ArenaShelf;
    readonly directory: Directory;
    readonly swapper: MemorySwapper;
    readonly reclaimer: Reclaimer;
    readonly held: HeldBlocks;
    readonly compactor: Compactor;
    readonly sharing: SharedTensors;
  },
  forget: (record: TensorRecord) => void,
): number {
  const { core, pools, shelf, directory, swapper, reclaimer, held, compactor, sharing } = parts;
  if (reclaimer.reservedCount > 0) {
    throw new MisuseError("re-entrant", "a reservation is under way: await it first");
  }
  core.recover();
  compactor.reset();
  for (const pool of pools.values()) pool.reconcile();
  const gone = sharing.withHolders(swapper.reconcile(held.slots()));
  for (const record of gone) {
    directory.remove(record);
    forget(record);
  }
  shelf.reconcile();
  return gone.filter(({ id }) => id?.startsWith(CONTENT_PREFIX) !== true).length;
}
