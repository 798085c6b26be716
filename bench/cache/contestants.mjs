// Policies by name, each made by a clock. The default one is the one that `createTensorMemory` takes.
import { arcPolicy } from "../../dist/src/policy/arc.js";
import { fifoPolicy } from "../../dist/src/policy/fifo.js";
import { gdsfPolicy } from "../../dist/src/policy/gdsf.js";
import { learntPolicy } from "../../dist/src/policy/learnt.js";
import { lfuPolicy } from "../../dist/src/policy/lfu.js";
import { lirsPolicy } from "../../dist/src/policy/lirs.js";
import { loopPolicy } from "../../dist/src/policy/loop.js";
import { lruPolicy } from "../../dist/src/policy/lru.js";
import { s3FifoPolicy } from "../../dist/src/policy/s3-fifo.js";
import { clockPolicy, sievePolicy } from "./references.mjs";

export const DEFAULT = "learnt";

export const POLICIES = {
  learnt: (clock) => learntPolicy({ clock }),
  lru: () => lruPolicy(),
  arc: () => arcPolicy(),
  "s3-fifo": () => s3FifoPolicy(),
  lirs: () => lirsPolicy(),
  lfu: () => lfuPolicy(),
  gdsf: () => gdsfPolicy(),
  loop: () => loopPolicy(),
  fifo: () => fifoPolicy(),
  clock: () => clockPolicy(),
  sieve: () => sievePolicy(),
};
