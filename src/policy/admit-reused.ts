// Admits to the colder tier only what was used again, as long as that pays: it saves writes, and costs
// the first reuse of most entries. Both sides are measured on indexes alone: what a tier of this
// capacity would hold, write and find if it took every victim, and if it took the reused ones only.
//
// Used again means: used twice while hot, or refused lately and now a victim once more.
import type { AdmissionPolicy } from "./admission-policy.js";
import { IndexLists, NumberColumn } from "./index-list.js";

export interface AdmitReusedOptions {
  /** Capacity of the colder tier, in bytes. */
  readonly capacityBytes: number;
}

/** Bytes of refused candidates that are remembered, as a multiple of the capacity. */
const REFUSED_SHARE = 4;
/** It pays while it saves writes by at least this factor, … */
const SAVING_MIN = 4;
/** … and loses no more finds than this share of all uses lately. */
const LOSS_MAX = 0.04;
/** Capacities' worth of candidates over which both sides are compared. */
const SPAN = 2;

// Lists of the side that refuses: what it holds, and what it refused.
const HELD = 0;
const REFUSED = 1;

export function admitReused({ capacityBytes }: AdmitReusedOptions): AdmissionPolicy {
  const all = new IndexLists();
  const some = new IndexLists(2);
  const sizes = new NumberColumn();
  const uses = new NumberColumn();
  let allBytes = 0;
  let someBytes = 0;
  let refusedBytes = 0;
  // Sums that fade with the bytes of candidates.
  let useCount = 0;
  let lostCount = 0;
  let allWrites = 0;
  let someWrites = 0;
  let isRefusing = false;

  const dropAll = (index: number) => {
    all.remove(index);
    allBytes -= sizes.get(index);
  };
  const dropSome = (index: number) => {
    if (some.listOf(index) === HELD) someBytes -= sizes.get(index);
    else refusedBytes -= sizes.get(index);
    some.remove(index);
  };
  const forget = (index: number) => {
    if (all.has(index)) dropAll(index);
    if (some.has(index)) dropSome(index);
  };
  /** @param bytes Infinity: nothing is learnt before there is something to choose. */
  const fade = (bytes: number) => {
    const kept = Math.max(0, 1 - bytes / (SPAN * capacityBytes));
    useCount *= kept;
    lostCount *= kept;
    allWrites *= kept;
    someWrites *= kept;
  };
  const judge = () => {
    const isSaving = allWrites >= SAVING_MIN * someWrites;
    isRefusing = isSaving && lostCount <= LOSS_MAX * useCount;
  };
  const offerAll = (index: number, bytes: number) => {
    if (all.has(index)) return;
    all.append(index);
    allBytes += bytes;
    allWrites += 1;
    while (allBytes > capacityBytes) dropAll(all.first());
  };
  const offerSome = (index: number, bytes: number, isReused: boolean) => {
    const list = some.listOf(index);
    if (list === HELD) return;
    const isFull = someBytes + bytes > capacityBytes;
    if (list === REFUSED) dropSome(index);
    if (isReused || list === REFUSED || !isFull) {
      some.append(index, HELD);
      someBytes += bytes;
      someWrites += 1;
      while (someBytes > capacityBytes) dropSome(some.first(HELD));
    } else {
      some.append(index, REFUSED);
      refusedBytes += bytes;
      while (refusedBytes > REFUSED_SHARE * capacityBytes) dropSome(some.first(REFUSED));
    }
  };
  return {
    name: "admit-reused",
    admit: ({ index, bytes }) => {
      if (sizes.get(index) !== bytes) forget(index);
      sizes.set(index, bytes);
      const isFull = allBytes + bytes > capacityBytes;
      fade(isFull ? bytes : Number.POSITIVE_INFINITY);
      const isReused = uses.get(index) >= 2;
      uses.set(index, 0);
      offerAll(index, bytes);
      offerSome(index, bytes, isReused);
      judge();
      return !isFull || !isRefusing || some.listOf(index) === HELD;
    },
    touch: (index) => {
      useCount += 1;
      uses.set(index, uses.get(index) + 1);
    },
    want: (index) => {
      useCount += 1;
      uses.set(index, 1);
      if (all.has(index)) {
        lostCount += 1;
        all.move(index);
      }
      if (some.listOf(index) === HELD) {
        lostCount -= 1;
        some.move(index, HELD);
      }
    },
    forget: (index) => {
      forget(index);
      uses.set(index, 0);
    },
  };
}
