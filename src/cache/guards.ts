// Debug mode's guards: canary bytes behind every tensor, poison in what was freed, and a quarantine
// in which freed blocks wait before they are used again. A program that writes where it may not is
// told which tensor it was. Nothing of this exists without debug mode.
import type { ControlPlane } from "../core/control-plane.js";
import { GuardError, type GuardErrorCode } from "../errors.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { EventHub } from "../memory/events.js";
import type { BlockHolder, HeldBlock, HeldBlocks } from "./held-blocks.js";
import type { TensorRecord } from "./tensor-record.js";

export interface GuardStats {
  /** Writes that were noticed where none may be. */
  readonly violationCount: number;
  readonly quarantinedCount: number;
  readonly quarantinedBytes: number;
}

export interface GuardsOptions {
  readonly core: ControlPlane;
  readonly shelf: ArenaShelf;
  readonly held: HeldBlocks;
  readonly events: EventHub;
}

/** Bytes behind every tensor in debug mode. */
export const CANARY_BYTES = 64;
const CANARY_FILL = 0xc5;
const POISON_FILL = 0xa5;
/** The quarantine holds no more blocks, and no more bytes; a longer block is not kept at all. */
const QUARANTINE_COUNT_MAX = 256;
const QUARANTINE_BYTES_MAX = 2 ** 20;

/** A freed tensor whose block is in quarantine. */
interface Quarantined {
  readonly block: HeldBlock;
  readonly byteLength: number;
  readonly kind: string;
  readonly tag: string;
  readonly callSite: string | null;
}

/** Whose bytes they are. */
export type Suspect = Omit<Quarantined, "block">;

export class Guards implements BlockHolder {
  readonly #core: ControlPlane;
  readonly #shelf: ArenaShelf;
  readonly #held: HeldBlocks;
  readonly #events: EventHub;
  /** First in, first out. */
  readonly #quarantine: Quarantined[] = [];
  /** Armed blocks of fixed shapes and plans. */
  readonly #armed = new Map<HeldBlock, Suspect>();
  #quarantinedBytes = 0;
  #violationCount = 0;
  #overrun: GuardError | null = null;

  constructor(options: GuardsOptions) {
    this.#core = options.core;
    this.#shelf = options.shelf;
    this.#held = options.held;
    this.#events = options.events;
    options.held.addHolder(this);
  }

  /** Writes the canary behind a resident tensor. */
  arm({ slot, byteLength }: TensorRecord): void {
    this.#bytes(slot, byteLength, CANARY_BYTES).fill(CANARY_FILL);
  }

  /** Writes the canary behind a block that belongs to no tensor, and watches it until {@link disarmHeld}. */
  armHeld(block: HeldBlock, suspect: Suspect): void {
    this.#bytes(block.slot, suspect.byteLength, CANARY_BYTES).fill(CANARY_FILL);
    this.#armed.set(block, suspect);
  }

  /**
   * Looks at the canary of a block that belongs to no tensor, and writes it anew.
   *
   * @throws {GuardError} `overrun`.
   */
  checkHeld(block: HeldBlock): void {
    const suspect = this.#armed.get(block) as Suspect;
    if (this.#isArmed({ slot: block.slot, ...suspect })) return;
    this.armHeld(block, suspect);
    throw this.#report("overrun", suspect);
  }

  /** Ends the watch over a block that is given back. An overrun is an event. */
  disarmHeld(block: HeldBlock): void {
    const suspect = this.#armed.get(block) as Suspect;
    if (!this.#isArmed({ slot: block.slot, ...suspect })) this.#report("overrun", suspect);
    this.#armed.delete(block);
  }

  /** Poisons the block of a tensor that leaves it. */
  poison({ slot, byteLength }: TensorRecord): void {
    this.#bytes(slot, 0, byteLength).fill(POISON_FILL);
  }

  /** Takes the block of a freed tensor, poisoned, in place of its pool. */
  retire(record: TensorRecord): void {
    const { slot, pool, byteLength, kind, tag, callSite } = record;
    if (!this.#isArmed(record)) this.#overrun = this.#report("overrun", record);
    this.poison(record);
    const block = this.#held.hold(pool, slot);
    this.#quarantine.push({ block, byteLength, kind, tag, callSite });
    this.#quarantinedBytes += byteLength;
    while (
      this.#quarantine.length > QUARANTINE_COUNT_MAX ||
      this.#quarantinedBytes > QUARANTINE_BYTES_MAX
    ) {
      this.#release(this.#quarantine.shift() as Quarantined);
    }
  }

  /** @throws {GuardError} `overrun` — of the tensor that was freed last. It is freed all the same. */
  throwOverrun(): void {
    const error = this.#overrun;
    this.#overrun = null;
    if (error !== null) throw error;
  }

  /** One line for every tensor, resident or in quarantine, that was written where it may not be. */
  problems(records: Iterable<TensorRecord>): string[] {
    const problems: string[] = [];
    for (const record of records) {
      if (record.isResident && !this.#isArmed(record)) problems.push(messageOf("overrun", record));
    }
    for (const [{ slot }, suspect] of this.#armed) {
      if (!this.#isArmed({ slot, ...suspect })) problems.push(messageOf("overrun", suspect));
    }
    for (const freed of this.#quarantine) {
      if (!this.#isPoisoned(freed)) problems.push(messageOf("write-after-free", freed));
    }
    return problems;
  }

  stats(): GuardStats {
    return {
      violationCount: this.#violationCount,
      quarantinedCount: this.#quarantine.length,
      quarantinedBytes: this.#quarantinedBytes,
    };
  }

  releaseIdle(): boolean {
    const isReleased = this.#quarantine.length > 0;
    for (const freed of this.#quarantine.splice(0)) this.#release(freed);
    return isReleased;
  }

  #release(freed: Quarantined): void {
    if (!this.#isPoisoned(freed)) this.#report("write-after-free", freed);
    this.#quarantinedBytes -= freed.byteLength;
    this.#held.giveBack(freed.block);
  }

  #isArmed({ slot, byteLength }: Pick<TensorRecord, "slot" | "byteLength">): boolean {
    return this.#bytes(slot, byteLength, CANARY_BYTES).every((byte) => byte === CANARY_FILL);
  }

  #isPoisoned({ block, byteLength }: Quarantined): boolean {
    return this.#bytes(block.slot, 0, byteLength).every((byte) => byte === POISON_FILL);
  }

  #report(code: GuardErrorCode, suspect: Suspect): GuardError {
    const { kind, tag, byteLength, callSite } = suspect;
    const error = new GuardError(code, messageOf(code, suspect), {
      kind,
      tag,
      byteLength,
      callSite,
    });
    this.#violationCount += 1;
    this.#events.emit({ type: "guard", error });
    return error;
  }

  #bytes(slot: number, start: number, byteLength: number): Uint8Array {
    return this.#shelf.arenaOf(slot).bytes(this.#core.offsetOf(slot) + start, byteLength);
  }
}

function messageOf(code: GuardErrorCode, { kind, tag, byteLength, callSite }: Suspect): string {
  const what = code === "overrun" ? "written past its end" : "written after it was freed";
  const label = tag === "" ? "" : ` ${JSON.stringify(tag)}`;
  const where = callSite === null ? "" : `; allocated ${callSite.split("\n")[0]}`;
  return `a tensor of ${kind}${label}, ${byteLength} bytes, was ${what}${where}`;
}
