// Lock: the guard word of the control header. Layer 1. It never blocks: whoever does not get the
// guard reports STATUS_BUSY, and the host decides. Not reentrant.
//
// Plain build: a dirty mark. One thread runs at a time, so a guard that is found taken means that
// an earlier call was cut off in the middle of a change and the tables can no longer be trusted.
//
// Shared build: a lock between lanes, which says who holds it, so that the guard of a dead holder can
// be taken over. Each instance belongs to one lane, which it imports.
//
//   bit 0                31        32
//       ┌────────────────┬─────────┐   holder   0 idle, a lane, or GUARD_POISONED
//       │ holder         │ waiting │   waiting  somebody sleeps until the word changes
//       └────────────────┴─────────┘
import * as abi from "./abi";

/** The lane of this instance, 1 to LANE_COUNT_MAX. The plain build has one lane and no such import. */
declare const LANE: u32;

/** Looks at a guard that is held before the shared build gives up. */
const SPIN_COUNT_MAX: u32 = 128;
const GUARD_IDLE: u32 = 0;
/** Holder in a plain build: its only lane. */
const GUARD_HELD: u32 = abi.LANE_FIRST;

/** Lane that the calls of this instance belong to. */
export function lockLane(): u32 {
  if (ASC_FEATURE_THREADS) return LANE;
  else return abi.LANE_FIRST;
}

/** Takes the guard of the control plane at `base`. False if somebody holds it. */
export function lockTryEnter(base: usize): bool {
  if (ASC_FEATURE_THREADS) {
    const guard = base + abi.CONTROL_OFF_GUARD;
    for (let attempt: u32 = 0; attempt < SPIN_COUNT_MAX; attempt++) {
      if (atomic.load<u32>(guard) != GUARD_IDLE) continue;
      if (atomic.cmpxchg<u32>(guard, GUARD_IDLE, LANE) != GUARD_IDLE) continue;
      count(base, abi.CONTROL_OFF_LOCK_ENTERED);
      if (attempt != 0) count(base, abi.CONTROL_OFF_LOCK_CONTENDED);
      return true;
    }
    atomic.add<u32>(base + abi.CONTROL_OFF_LOCK_REFUSED, 1);
    return false;
  } else {
    if (load<u32>(base, abi.CONTROL_OFF_GUARD) != GUARD_IDLE) return false;
    store<u32>(base, GUARD_HELD, abi.CONTROL_OFF_GUARD);
    return true;
  }
}

/** Gives the guard back. Only its holder may call this; not checked. */
export function lockLeave(base: usize): void {
  if (ASC_FEATURE_THREADS) put(base, GUARD_IDLE);
  else store<u32>(base, GUARD_IDLE, abi.CONTROL_OFF_GUARD);
}

/**
 * Takes the guard from `holder`, which is dead or was cut off; not checked. False, and nothing is
 * changed, if somebody else holds it.
 */
export function lockTakeOver(base: usize, holder: u32): bool {
  if (ASC_FEATURE_THREADS) {
    const guard = base + abi.CONTROL_OFF_GUARD;
    const word = atomic.load<u32>(guard);
    if ((word & ~abi.GUARD_WAITING) != holder) return false;
    return atomic.cmpxchg<u32>(guard, word, LANE) == word;
  } else {
    store<u32>(base, GUARD_HELD, abi.CONTROL_OFF_GUARD);
    return true;
  }
}

/** Keeps everybody out for good, in a plane that cannot be trusted. Its holder calls this. */
export function lockPoison(base: usize): void {
  if (ASC_FEATURE_THREADS) put(base, abi.GUARD_POISONED);
}

/** Lane that holds the guard, GUARD_POISONED, or 0. */
export function lockHolder(base: usize): u32 {
  if (ASC_FEATURE_THREADS) {
    return atomic.load<u32>(base + abi.CONTROL_OFF_GUARD) & ~abi.GUARD_WAITING;
  } else {
    return load<u32>(base, abi.CONTROL_OFF_GUARD);
  }
}

function put(base: usize, holder: u32): void {
  const guard = base + abi.CONTROL_OFF_GUARD;
  const word = atomic.xchg<u32>(guard, holder);
  if ((word & abi.GUARD_WAITING) != 0) atomic.notify(guard, -1);
}

/** Counts under the guard. */
function count(base: usize, offset: u32): void {
  store<u32>(base + offset, load<u32>(base + offset) + 1);
}
