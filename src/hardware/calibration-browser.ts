// Where a browser keeps a calibration: in the origin's cache storage, by the store's name.
import { randomName, systemRandom } from "../random.js";
import { hasDatabase } from "../tier/indexed-db.js";
import type { Tier } from "../tier/tier.js";
import type { CalibrationPlace } from "./calibration.js";

const CACHE = "tierheap-calibration";
const LENGTHS = { capacityBytes: 64 * 2 ** 20, bufferBytes: 4 * 2 ** 20 };

/** Lengths of a store to measure, and where it is to be. */
export type MakeStore = (
  lengths: typeof LENGTHS,
  place: { readonly directory: string; readonly store: "auto" | "indexeddb" },
) => Tier;

/** @param directory Of the store, as the options name it. */
export async function browserCalibrationPlace(
  directory: string,
  makeStore: MakeStore,
): Promise<CalibrationPlace> {
  // A cache wants addresses; this one is never fetched.
  const address = `https://calibration.invalid/${encodeURIComponent(directory)}`;
  const measured = `${directory}-calibrating-${randomName(systemRandom)}`;
  const store = (await hasDatabase(directory).catch(() => false)) ? "indexeddb" : "auto";
  const { userAgent, hardwareConcurrency } = navigator;
  return {
    machine: `${userAgent} x ${hardwareConcurrency}`,
    read: async () => {
      const found = await (await caches.open(CACHE)).match(address);
      return (await found?.text()) ?? null;
    },
    write: async (text) => (await caches.open(CACHE)).put(address, new Response(text)),
    makeTier: () => makeStore(LENGTHS, { directory: measured, store }),
    removeTier: async () => {
      if (await hasDatabase(measured)) indexedDB.deleteDatabase(measured);
      const names = measured.split("/").filter((name) => name !== "");
      const own = names.pop() as string;
      let folder = await navigator.storage.getDirectory();
      for (const name of names) folder = await folder.getDirectoryHandle(name);
      await folder.removeEntry(own, { recursive: true });
    },
  };
}
