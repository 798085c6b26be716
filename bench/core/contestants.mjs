// Who takes part where. The floor and our own row are in both groups, as a link between them.
import { floor } from "./contestants/floor.mjs";
import { npmAlloc, npmMalloc, thingMalloc } from "./contestants/npm.mjs";
import { buffer, mapPool, typedArray, typedArrayPool } from "./contestants/pools.mjs";
import { buddy, core, plane } from "./contestants/tierheap.mjs";
import { tlsf } from "./contestants/tlsf.mjs";

export const GROUPS = {
  heaps: [floor, core, plane, buddy, tlsf, thingMalloc, npmMalloc, npmAlloc],
  pools: [floor, plane, mapPool, typedArrayPool, typedArray, buffer],
};

/**
 * Opens the contestants' heaps.
 *
 * @param capacities Bytes of each arena wanted.
 * @returns `entries` of those that came, and `absent` ones with the reason.
 */
export async function openAll(contestants, capacities) {
  const entries = [];
  const absent = [];
  for (const contestant of contestants) {
    try {
      entries.push({ contestant, heaps: await contestant.open(capacities) });
    } catch (error) {
      absent.push(absence(contestant, error));
    }
  }
  return { entries, absent };
}

/** One line on why a contestant has no figure. */
export function absence({ id, title }, error) {
  const isMissing = error?.code === "MODULE_NOT_FOUND" || error?.code === "ERR_MODULE_NOT_FOUND";
  const reason = isMissing ? "not installed: run npm install" : String(error?.message ?? error);
  return { title, reason: reason.split("\n")[0], isOurs: id.startsWith("tierheap") };
}
