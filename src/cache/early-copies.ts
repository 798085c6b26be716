// Swapped-out copies of tensors that stay hot, so that they can leave without a write. Each gives way to
// whoever needs its tensor's block unpinned.
import type { ControlPlane } from "../core/control-plane.js";
import type { Tier } from "../tier/tier.js";
import type { CopyOptions } from "./cold-copies.js";
import type { TensorRecord } from "./tensor-record.js";

/** A tier that is fuller than this share takes no copies that nobody needs yet. */
const TIER_SHARE = 0.8;

/** A copy under way. */
export interface EarlyCopy {
  /** The block is not pinned for it any more, and may hold anything. */
  isGivenUp: boolean;
}

type StoreCopy = (record: TensorRecord, options: CopyOptions, early: EarlyCopy) => Promise<unknown>;

export class EarlyCopies {
  readonly #core: ControlPlane;
  readonly #tier: Tier;
  readonly #store: StoreCopy;
  readonly #copies = new Map<TensorRecord, EarlyCopy>();
  /** Copies written so far. */
  count = 0;

  /** @param store Writes a copy with the block pinned. @returns An object when it is there, else why not. */
  constructor(
    parts: { readonly core: ControlPlane; readonly engine: { readonly tier: Tier } },
    store: StoreCopy,
  ) {
    this.#core = parts.core;
    this.#tier = parts.engine.tier;
    this.#store = store;
  }

  /**
   * Writes a copy of a dirty tensor. It is the first thing that a full tier gives up.
   *
   * @param record Demotable.
   * @returns `"no-space"` also where the tier is nearly full.
   * @throws {TierError} `io`, `busy`, `closed`; the tensor is as it was.
   */
  async copy(record: TensorRecord, isDurable: boolean): Promise<"stored" | "no-space" | "vetoed"> {
    const { physicalBytes, capacityBytes } = this.#tier.stats();
    if (physicalBytes + record.byteLength > TIER_SHARE * capacityBytes) return "no-space";
    const early: EarlyCopy = { isGivenUp: false };
    this.#copies.set(record, early);
    try {
      const stored = await this.#store(
        record,
        { durable: isDurable, expiresMs: 0, isSaved: false },
        early,
      );
      if (stored === "no-space" || stored === "vetoed") return stored;
    } finally {
      this.#copies.delete(record);
    }
    this.count += 1;
    return "stored";
  }

  /** The end of a copy under way, or null. */
  get underWay(): Promise<void> | null {
    for (const { transfer } of this.#copies.keys()) if (transfer !== null) return transfer.settled;
    return null;
  }

  /** Gives up the copy of a tensor, so that its block is not pinned for it any more. */
  giveUp(record: TensorRecord): void {
    const early = this.#copies.get(record);
    if (early === undefined || early.isGivenUp || record.slot === 0) return;
    early.isGivenUp = true;
    this.#core.unpin(record.slot, record.generation);
  }
}
