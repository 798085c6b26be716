// The exports of core.shared.wasm as one lane calls them: a call that finds the guard taken is made
// again until it gets the guard or has waited long enough. Layer: core.
import { LANE_OFF_STATUS, STATUS_BUSY } from "../../assembly/abi.js";
import type { Guard } from "./guard.js";
import type { CoreExports } from "./wasm-modules.js";

type Export = (a: number, b: number, c: number, d: number, e: number) => number;

/** Exports that answer 0 on refusal, with a status beside it; all others answer a status. */
export const ANSWERS_ZERO: ReadonlySet<string> = new Set([
  "arenaOpen",
  "arenaAllocate",
  "arenaAllocateWhole",
  "slotPin",
  "laneReserve",
  "compactBegin",
  "compactEvacuate",
  "compactNext",
]);

/** Exports that answer how many of their handles were refused, with a status beside it. */
export const ANSWERS_COUNT: ReadonlySet<string> = new Set(["slotFreeBatch"]);

/** Exports that never take the guard. */
const UNGUARDED: ReadonlySet<string> = new Set([
  "controlHeapBase",
  "controlBytes",
  "controlInit",
  "controlAttach",
  "arenaMetadataBytes",
  "slotUnits",
  "slotResolve",
  "laneAttach",
]);

/**
 * @param words All words of the control memory.
 * @param laneAddress The lane's row, in bytes.
 */
export function guardedExports(
  core: CoreExports,
  guard: Guard,
  words: Int32Array,
  laneAddress: number,
): CoreExports {
  const statusWord = (laneAddress + LANE_OFF_STATUS) / 4;
  const isBusy = (result: number) => result === STATUS_BUSY;
  const isZeroBusy = (result: number) => result === 0 && words[statusWord] === STATUS_BUSY;
  const isCountBusy = (result: number) => result !== 0 && words[statusWord] === STATUS_BUSY;
  const guarded: Record<string, Export> = {};
  for (const [name, value] of Object.entries(core)) {
    const call = value as Export;
    if (UNGUARDED.has(name)) guarded[name] = call;
    else if (ANSWERS_ZERO.has(name)) guarded[name] = retrying(call, guard, isZeroBusy);
    else if (ANSWERS_COUNT.has(name)) guarded[name] = retrying(call, guard, isCountBusy);
    else guarded[name] = retrying(call, guard, isBusy);
  }
  return guarded as unknown as CoreExports;
}

/** As `call`, which takes five arguments at most; made again while the guard was taken. */
function retrying(call: Export, guard: Guard, isBusy: (result: number) => boolean): Export {
  return (a, b, c, d, e) => {
    let result = call(a, b, c, d, e);
    for (let attempt = 0; isBusy(result) && guard.wait(attempt); attempt++) {
      result = call(a, b, c, d, e);
    }
    return result;
  };
}
