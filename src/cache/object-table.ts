// Which objects a stack of tiers knows of, and who uses them. A hint: what lies in a level is asked of
// the level.
import { deletionPageIndex } from "../record/deletion-page.js";
import type { ObjectHints, TierCapabilities, TierKey } from "../tier/tier.js";
import type { StackObject, TierLevel } from "./tier-level.js";

export class ObjectTable {
  readonly #objects = new Map<TierKey, StackObject>();

  get(key: TierKey): StackObject | undefined {
    return this.#objects.get(key);
  }

  /** Objects that at least one level holds. */
  get heldCount(): number {
    let count = 0;
    for (const object of this.#objects.values()) if (isThere(object)) count += 1;
    return count;
  }

  heldKeys(): TierKey[] {
    return [...this.#objects.values()].filter(isThere).map(({ key }) => key);
  }

  /** Objects whose deletion some level has still to carry out. */
  get unburied(): StackObject[] {
    return [...this.#objects.values()].filter(({ buried, isCondemned }) => buried || isCondemned);
  }

  /** The object of a key, of which something has become known. */
  objectOf(key: TierKey): StackObject {
    return this.#objects.get(key) ?? this.#add(key);
  }

  /** The object of that key, once nothing moves it; nothing will until it is released. */
  async use(key: TierKey): Promise<StackObject> {
    for (;;) {
      const known = this.#objects.get(key);
      const work = known?.work ?? null;
      if (work === null) {
        const object = known ?? this.#add(key);
        object.userCount += 1;
        return object;
      }
      await work;
    }
  }

  release(object: StackObject): void {
    object.userCount -= 1;
    this.forget(object);
  }

  /** Forgets an object of which there is nothing to know. */
  forget(object: StackObject): void {
    if (object.held !== 0 || object.stale !== 0) return;
    if (object.userCount === 0 && object.work === null) this.#objects.delete(object.key);
  }

  /** Notes what a level holds that was opened just now. */
  found(level: TierLevel, keys: ReadonlySet<TierKey>, nowMs: number): void {
    for (const key of [...level.staleKeys]) {
      const object = this.#objects.get(key);
      if (object === undefined || keys.has(key)) continue;
      // Of what a log says that it is to be deleted, the log has to be told first.
      if ((object.buried & level.bit) !== 0) continue;
      level.drop(object);
      this.forget(object);
    }
    for (const key of keys) {
      if (deletionPageIndex(key) !== null) continue;
      const object = this.objectOf(key);
      object.lastUseMs = object.useCount === 0 ? nowMs : object.lastUseMs;
      // Below another copy it may be an older object: a crash does not tell.
      // A deletion that is still to come below says nothing about what lies here.
      const below = object.buried & ~((level.bit << 1) - 1);
      if (object.held !== 0 || (object.stale & ~below) !== 0) level.distrust(object);
      else level.hold(object);
    }
  }

  #add(key: TierKey): StackObject {
    const object: StackObject = {
      key,
      byteLength: null,
      kind: null,
      isDurable: null,
      isSaved: null,
      expiresMs: 0,
      recoding: null,
      held: 0,
      stale: 0,
      buried: 0,
      isCondemned: false,
      userCount: 0,
      work: null,
      isDamaged: false,
      useCount: 0,
      lastUseMs: 0,
      intervalMs: null,
      promotion: null,
    };
    this.#objects.set(key, object);
    return object;
  }
}

/** Whether an object can be found. */
export function isThere({ held, isCondemned }: StackObject): boolean {
  return held !== 0 && !isCondemned;
}

/** Whether a level can promise what an object needs, as far as any level of the stack can. */
export function keepsPromise(
  level: TierLevel,
  needs: Partial<Pick<ObjectHints, "isDurable" | "isSaved">> | StackObject,
  stack: TierCapabilities,
): boolean {
  const { isPersistent, hasDurableCommit } = level.tier.capabilities;
  const isDurable = needs.isDurable ?? true;
  const isSaved = (needs.isSaved ?? true) || isDurable;
  if (isDurable && stack.hasDurableCommit && !hasDurableCommit) return false;
  return !isSaved || !stack.isPersistent || isPersistent;
}
