// Where a browser keeps a calibration: in the origin's cache storage, by the store's name.
import type { Clock } from "../clock.js";
import { randomName, systemRandom } from "../random.js";
import { hasDatabase } from "../tier/has-database.js";
import type { Tier } from "../tier/tier.js";
import type { CalibrationPlace } from "./calibration.js";

const CACHE = "tierheap-calibration";
const REMOVAL_COUNT_MAX = 50;
const REMOVAL_PAUSE_MS = 100;
const LENGTHS = { capacityBytes: 64 * 2 ** 20, bufferBytes: 4 * 2 ** 20 };

/** A store as the options have it; `W` is the platform's worker. */
interface MeasuredStore<W> {
  /** As the options name it. */
  readonly directory: string;
  readonly browser: {
    readonly store?: "auto" | "opfs" | "indexeddb" | undefined;
    readonly createWorker?: (() => W) | undefined;
  };
  readonly clock: Clock;
}

export async function browserCalibrationPlace<W>(
  { directory, browser, clock }: MeasuredStore<W>,
  createStore: (
    place: typeof LENGTHS &
      MeasuredStore<W> & { readonly name: string; readonly onUnavailable: () => void },
  ) => Tier,
): Promise<CalibrationPlace> {
  // A cache wants addresses; this one is never fetched.
  const address = `https://calibration.invalid/${encodeURIComponent(directory)}`;
  const measured = `${directory}-calibrating-${randomName(systemRandom)}`;
  // As it is chosen for the store itself; but nobody is asked to keep what is measured.
  const store = browser.store ?? ((await hasDatabase(directory)) ? "indexeddb" : "auto");
  const { createWorker } = browser;
  const { userAgent, hardwareConcurrency } = navigator;
  return {
    machine: `${userAgent} x ${hardwareConcurrency}`,
    read: async () => {
      const found = await (await caches.open(CACHE)).match(address);
      return (await found?.text()) ?? null;
    },
    write: async (text) => (await caches.open(CACHE)).put(address, new Response(text)),
    makeTier: () =>
      createStore({
        ...{ ...LENGTHS, name: "calibration", directory: measured, clock },
        browser: { store, createWorker },
        onUnavailable: () => {},
      }),
    removeTier: async () => {
      if (await hasDatabase(measured)) indexedDB.deleteDatabase(measured);
      const names = measured.split("/").filter((name) => name !== "");
      const own = names.pop() as string;
      let folder = await navigator.storage.getDirectory();
      for (const name of names) folder = await folder.getDirectoryHandle(name);
      // A worker that has ended holds its files a little longer.
      for (let attempt = 1; ; attempt++) {
        try {
          return await folder.removeEntry(own, { recursive: true });
        } catch (error) {
          const isHeld = (error as Error).name === "NoModificationAllowedError";
          if (!isHeld || attempt === REMOVAL_COUNT_MAX) throw error;
          await clock.sleep(REMOVAL_PAUSE_MS);
        }
      }
    },
  };
}
