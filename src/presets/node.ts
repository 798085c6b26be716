// The parts that Node uses.
import { startCodecWorker } from "../codec/start-worker-node.js";
import { nodeCalibrationPlace } from "../hardware/calibration-node.js";
import { detectHardware } from "../hardware/detect-node.js";
import type { TensorMemoryOptions } from "../memory/options.js";
import type { TensorMemory } from "../tensor-memory.js";
import { nodeFileSystem } from "../tier/file-system-node.js";
import { FsTier } from "../tier/fs.js";
import { composeTensorMemory } from "./compose.js";
import type { Platform } from "./platform.js";

const nodePlatform: Platform = {
  detectHardware,
  residentBytes: () => process.memoryUsage.rss(),
  hasHdd: true,
  startCodecWorker,
  calibrationPlace: ({ directory, seams }) => nodeCalibrationPlace({ ...seams, directory }),
  createSsdTier: (
    { name, directory, capacityBytes, bufferBytes },
    { fileSystem = nodeFileSystem, random },
  ) =>
    new FsTier({
      ...{ name, directory, capacityBytes, bufferBytes, fileSystem },
      ...(random && { random }),
    }),
};

/**
 * Builds a heap for tensors over RAM and the tiers that have a budget.
 *
 * @throws {MisuseError} `bad-option`, `bad-size`, `unsupported`.
 * @throws {TierError} `busy` — another process holds the directory; `io`; `aborted`.
 */
export function createTensorMemory(options?: TensorMemoryOptions): Promise<TensorMemory> {
  return composeTensorMemory(nodePlatform, options);
}
