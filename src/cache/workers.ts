// What the maker of a shared memory does for its workers: gives them lanes and arenas, takes
// tensors from them, and notices their end.
import type { Clock } from "../clock.js";
import type { ControlPlane } from "../core/control-plane.js";
import { type EndingWorker, releaseWhenEnded } from "../core/lane-watch.js";
import { requireLanes } from "../core/lanes.js";
import { TierError } from "../errors.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import { checkObject } from "../memory/checks.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { CheckedTensor } from "../memory/options.js";
import {
  adoptMessage,
  type MemoryToken,
  type TensorMessage,
  TOKEN_NAMES,
} from "../memory/tokens.js";
import type { Random } from "../random.js";
import type { Reclaimer } from "./reclaimer.js";

export interface WorkersOptions {
  readonly core: ControlPlane;
  readonly shelf: ArenaShelf;
  readonly reclaimer: Reclaimer;
  readonly clock: Clock;
  /** Names the workers' locks. */
  readonly random: Random;
}

export class Workers {
  readonly #options: WorkersOptions;

  constructor(options: WorkersOptions) {
    this.#options = options;
  }

  /**
   * A token for one worker, with the arenas that the pool has now.
   *
   * @throws {MisuseError} `unsupported`. @throws {OutOfMemoryError} There is no room for an arena.
   * @throws {TierError} `busy` — all lanes are taken.
   */
  share(pool: MemoryPool): MemoryToken {
    const { core, shelf, reclaimer, random } = this.#options;
    const lanes = requireLanes(core.lanes);
    if (pool.arenas.length === 0) {
      // Opens an arena by every remedy that there is; the pool keeps its last one.
      const slot = reclaimer.place(pool, 1, 1);
      pool.free(slot, core.generationOf(slot));
    }
    const token = lanes.reserve();
    if (token === null) throw new TierError("busy", "memory", "all lanes are taken");
    const arenas = pool.arenas.map(({ id }) => shelf.share(id));
    const lockName = `tierheap:${random.uint32()}:${token.lane}`;
    return { ...token, kind: pool.kind, arenas, lockName };
  }

  /** @throws {MisuseError} `bad-option`, `unsupported`. @throws As {@link releaseWhenEnded}. */
  async watch(worker: Partial<EndingWorker>, token: MemoryToken): Promise<void> {
    const { core, clock } = this.#options;
    checkObject(token, "watch", TOKEN_NAMES);
    await releaseWhenEnded(requireLanes(core.lanes), worker, token.lane, token.lockName, clock);
  }

  /** Makes the block of a message one of this memory. @throws As {@link adoptMessage}. */
  adopt(message: TensorMessage): CheckedTensor {
    const { core } = this.#options;
    return adoptMessage(core, requireLanes(core.lanes), message);
  }

  /** @returns false to be asked again. @throws As {@link Lanes.release}. */
  releaseLane(lane: number): boolean {
    return requireLanes(this.#options.core.lanes).release(lane);
  }
}
