// The parts that browsers use.
import { detectHardware } from "../hardware/detect-browser.js";
import type { TensorMemoryOptions } from "../memory/options.js";
import type { TensorMemory } from "../tensor-memory.js";
import { indexedDbTier } from "../tier/indexed-db.js";
import { composeTensorMemory, type Platform } from "./compose.js";

const browserPlatform: Platform = {
  detectHardware,
  residentBytes: null,
  hasHdd: false,
  // Bundlers know this form.
  startCodecWorker: () =>
    new Worker(new URL("../codec/codec-worker-browser.js", import.meta.url), { type: "module" }),
  createSsdTier: ({ directory, capacityBytes }) =>
    indexedDbTier({ database: directory, capacityBytes }),
};

/**
 * Builds a heap for tensors over RAM and, if `budgets.ssd` is given, an IndexedDB database.
 *
 * @throws {MisuseError} `bad-option`, `bad-size`, `unsupported`.
 * @throws {TierError} `busy`, `io`, `aborted`.
 */
export function createTensorMemory(options?: TensorMemoryOptions): Promise<TensorMemory> {
  return composeTensorMemory(browserPlatform, options);
}
