// What threads post to one another: a token to attach with, and a tensor that changes hands.
import type { ControlPlane } from "../core/control-plane.js";
import type { Lanes, LaneToken, SharedArena } from "../core/lanes.js";
import { MisuseError } from "../errors.js";
import type { Dtype, Shape, TensorKind } from "../types.js";
import { checkObject } from "./checks.js";
import { type CheckedTensor, checkTensorOptions } from "./options.js";

/** What one worker needs to work on a shared memory. Post it to that worker. */
export interface MemoryToken extends LaneToken {
  /** Pool that the worker's tensors belong to. */
  readonly kind: TensorKind;
  /** Arenas in which it allocates. */
  readonly arenas: readonly SharedArena[];
  readonly lockName: string;
}

/** A tensor on its way to another thread. Post it there, and there `adopt` it, once. */
export interface TensorMessage {
  readonly kind: TensorKind;
  readonly dtype: Dtype;
  readonly shape: Shape;
  readonly slot: number;
  readonly generation: number;
  readonly arena: SharedArena;
}

export const TOKEN_NAMES = ["memory", "module", "base", "lane", "kind", "arenas", "lockName"];
const MESSAGE_NAMES = ["kind", "dtype", "shape", "slot", "generation", "arena"];

/**
 * Makes the block of a message one of this thread.
 *
 * @throws {MisuseError} `bad-option` — no such message; `bad-*` — its shape, kind or type is none;
 *   `foreign-handle` — it does not fit the block; as {@link Lanes.adopt}.
 */
export function adoptMessage(
  core: ControlPlane,
  lanes: Lanes,
  message: TensorMessage,
): CheckedTensor {
  const { kind, dtype, shape, slot, generation } = checkObject(message, "adopt", MESSAGE_NAMES);
  if (!Number.isSafeInteger(slot) || !Number.isSafeInteger(generation)) {
    throw new MisuseError("bad-option", "adopt: not a message that handOver() gave");
  }
  const checked = checkTensorOptions({ kind, dtype, shape } as never);
  lanes.adopt(slot as number, generation as number);
  const isFitting =
    core.requestedBytesOf(message.slot) === checked.byteLength &&
    core.arenaOf(message.slot) === message.arena.id;
  if (isFitting) return checked;
  lanes.handOver(message.slot, message.generation);
  throw new MisuseError("foreign-handle", "the message does not fit its block");
}
