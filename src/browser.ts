// The package as browsers see it. A page that only imports it loads the allocators and the core; what a
// memory is made of comes with the first one.
import "./util/dispose-symbols.js";
import type { TensorMemoryOptions } from "./memory/options.js";
import type { TensorMemory } from "./tensor-memory.js";

export * from "./index.js";

/**
 * Builds a heap for tensors over RAM and, if `budgets.ssd` is given, the origin's private file system or an
 * IndexedDB database.
 *
 * @throws {MisuseError} `bad-option`, `bad-size`, `unsupported`.
 * @throws {TierError} `busy` — another page holds the store; `io`, `aborted`.
 */
export async function createTensorMemory(options?: TensorMemoryOptions): Promise<TensorMemory> {
  const preset = await import("./presets/browser.js");
  return preset.createTensorMemory(options);
}
