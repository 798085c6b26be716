// Lock: the guard word of the control header. Layer 1. It never blocks: whoever does not get the
// guard reports STATUS_BUSY, and the host decides. Not reentrant.
//
// Plain build: a dirty mark. One thread runs at a time, so a guard that is found taken means that
// an earlier call was cut off in the middle of a change and the tables can no longer be trusted.
// Shared build: a lock between threads, taken by compare and exchange.
import * as abi from "./abi";

/** Attempts of the shared build before it gives up. */
const SPIN_COUNT_MAX: u32 = 64;
const GUARD_IDLE: u32 = 0;
const GUARD_HELD: u32 = 1;

/** Takes the guard of the control plane at `base`. False if somebody holds it. */
export function lockTryEnter(base: usize): bool {
  if (ASC_FEATURE_THREADS) {
    const guard = base + abi.CONTROL_OFF_GUARD;
    for (let attempt: u32 = 0; attempt < SPIN_COUNT_MAX; attempt++) {
      if (atomic.cmpxchg<u32>(guard, GUARD_IDLE, GUARD_HELD) == GUARD_IDLE) return true;
    }
    return false;
  } else {
    if (load<u32>(base, abi.CONTROL_OFF_GUARD) != GUARD_IDLE) return false;
    store<u32>(base, GUARD_HELD, abi.CONTROL_OFF_GUARD);
    return true;
  }
}

/** Gives the guard back. Only its holder may call this; not checked. */
export function lockLeave(base: usize): void {
  if (ASC_FEATURE_THREADS) {
    atomic.store<u32>(base + abi.CONTROL_OFF_GUARD, GUARD_IDLE);
  } else {
    store<u32>(base, GUARD_IDLE, abi.CONTROL_OFF_GUARD);
  }
}

/** Takes the guard whoever holds it. Its holder is dead or was cut off; not checked. */
export function lockTakeOver(base: usize): void {
  if (ASC_FEATURE_THREADS) atomic.store<u32>(base + abi.CONTROL_OFF_GUARD, GUARD_HELD);
  else store<u32>(base, GUARD_HELD, abi.CONTROL_OFF_GUARD);
}
