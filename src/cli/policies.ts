// Policies by the names that people give, as they are composed by default.
import { arcPolicy } from "../policy/arc.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import { fifoPolicy } from "../policy/fifo.js";
import { gdsfPolicy } from "../policy/gdsf.js";
import { learntPolicy } from "../policy/learnt.js";
import { lfuPolicy } from "../policy/lfu.js";
import { lirsPolicy } from "../policy/lirs.js";
import { loopPolicy } from "../policy/loop.js";
import { lruPolicy } from "../policy/lru.js";
import { s3FifoPolicy } from "../policy/s3-fifo.js";
import type { PolicyMaker } from "./replay-policy.js";

/** The one that `createTensorMemory` takes. */
export const DEFAULT_POLICY = "learnt";

export const POLICIES: ReadonlyMap<string, PolicyMaker<EvictionPolicy>> = new Map<
  string,
  PolicyMaker<EvictionPolicy>
>([
  [DEFAULT_POLICY, (clock) => learntPolicy({ clock })],
  ["lru", () => lruPolicy()],
  ["arc", () => arcPolicy()],
  ["s3-fifo", () => s3FifoPolicy()],
  ["lirs", () => lirsPolicy()],
  ["lfu", () => lfuPolicy()],
  ["gdsf", () => gdsfPolicy()],
  ["loop", () => loopPolicy()],
  ["fifo", () => fifoPolicy()],
]);
