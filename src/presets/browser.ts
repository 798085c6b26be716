// The parts that browsers use.
import { detectHardware } from "../hardware/detect-browser.js";
import type { TensorMemoryOptions } from "../memory/options.js";
import type { TensorMemory } from "../tensor-memory.js";
import { firstWorkingTier } from "../tier/first-working.js";
import { nullTier } from "../tier/null.js";
import type { Tier } from "../tier/tier.js";
import { composeTensorMemory } from "./compose.js";
import type { Platform } from "./platform.js";
import type { StorePlace } from "./tiers.js";

function createStore({ browser, onUnavailable, ...parts }: StorePlace): Tier {
  const { name, directory, capacityBytes, bufferBytes, clock } = parts;
  const { store = "auto", createWorker, persist, waitMs } = browser;
  const candidates = async () => {
    if (persist === true) askToPersist(onUnavailable);
    const opfs = async () => {
      const { opfsTier } = await import("../tier/opfs.js");
      const place = { name, directory, capacityBytes, bufferBytes, clock, createWorker, waitMs };
      return opfsTier({ ...place, onLost: onUnavailable });
    };
    const indexedDb = async () => {
      const { indexedDbTier } = await import("../tier/indexed-db.js");
      const place = { name, database: directory, capacityBytes, clock, waitMs };
      return indexedDbTier({ ...place, onLost: onUnavailable });
    };
    if (store === "opfs") return [opfs];
    if (store === "indexeddb") return [indexedDb];
    const { hasDatabase } = await import("../tier/has-database.js");
    // What was stored before is not left behind.
    if (await hasDatabase(directory)) return [indexedDb];
    return [opfs, indexedDb, () => nullTier(name)];
  };
  return firstWorkingTier(name, candidates, onUnavailable);
}

/** Not waited for: there are browsers that never answer. */
function askToPersist(onUnavailable: (error: Error) => void): void {
  const refused = () =>
    onUnavailable(new Error("the browser may evict the origin's data by itself"));
  const asked = (navigator as Partial<Navigator>).storage?.persist?.();
  if (asked === undefined) refused();
  else asked.then((isPersisted) => isPersisted || refused(), refused);
}

const browserPlatform: Platform = {
  detectHardware,
  residentBytes: null,
  hasHdd: false,
  // Bundlers know this form.
  startCodecWorker: () =>
    new Worker(new URL("../codec/codec-worker-browser.js", import.meta.url), { type: "module" }),
  createSsdTier: createStore,
  calibrationPlace: async (store) =>
    (await import("../hardware/calibration-browser.js")).browserCalibrationPlace(
      store,
      createStore,
    ),
};

/** What the package exports under this name loads it. */
export function createTensorMemory(options?: TensorMemoryOptions): Promise<TensorMemory> {
  return composeTensorMemory(browserPlatform, options);
}
