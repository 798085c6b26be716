// What may be injected into a memory, and its validation.
import type { Clock } from "../clock.js";
import type { StartCodecWorker } from "../codec/codec.js";
import type { MemoryFactory } from "../core/linear-memory.js";
import { MisuseError } from "../errors.js";
import type { LifetimePredictor } from "../lifetime/lifetime-predictor.js";
import type { AdmissionPolicy } from "../policy/admission-policy.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import type { Predictor } from "../predictor/predictor.js";
import type { TierPredictor } from "../predictor/tier-predictor.js";
import type { Random } from "../random.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { FileSystem } from "../tier/file-system.js";
import type { Tier } from "../tier/tier.js";
import { checkObject } from "./checks.js";

/** Everything that is injected. */
export interface Seams {
  readonly clock: Clock;
  readonly random: Random;
  readonly createMemory: MemoryFactory;
  readonly fileSystem: FileSystem;
  /** Stands in for the platform's SSD tier; opened and closed by the memory. */
  readonly tier: Tier;
  readonly evictionPolicy: EvictionPolicy;
  readonly admissionPolicy: AdmissionPolicy;
  readonly predictor: Predictor;
  readonly tierPredictor: TierPredictor;
  readonly lifetimePredictor: LifetimePredictor;
  readonly statsSink: StatsSink;
  /** Resident bytes of the process. */
  readonly residentBytes: () => number;
  /**
   * Starts a coding worker: in a page whose bundler leaves `new Worker(new URL(…))` in packages alone, a script of its
   * own that imports `tierheap/codec-worker`.
   */
  readonly startCodecWorker: StartCodecWorker;
}

/** What each seam must answer to; empty: it is a function itself. */
const SEAM_METHODS: Readonly<Record<keyof Seams, readonly string[]>> = {
  clock: ["monotonicMs", "wallMs", "sleep", "defer"],
  random: ["uint32"],
  createMemory: [],
  fileSystem: ["join", "list", "create", "openRead", "rename", "remove", "tryLock"],
  tier: ["open", "begin", "openRead", "delete", "quarantine", "list", "stats", "close"],
  evictionPolicy: ["track", "touch", "untrack", "candidates"],
  admissionPolicy: ["admit"],
  predictor: ["observe"],
  tierPredictor: ["observe", "expectedReuseMs"],
  lifetimePredictor: ["expectedMs", "isOver", "observe", "endCensus"],
  statsSink: ["count", "time"],
  residentBytes: [],
  startCodecWorker: [],
};

/** @throws {MisuseError} `bad-option` — unknown, or not whole. */
export function checkSeams(seams: unknown): void {
  const given = checkObject(seams, "seams", Object.keys(SEAM_METHODS));
  for (const [name, methods] of Object.entries(SEAM_METHODS)) {
    const seam = given[name] as Record<string, unknown> | null | undefined;
    if (seam === undefined) continue;
    const isWhole =
      methods.length === 0
        ? typeof seam === "function"
        : methods.every((method) => typeof seam?.[method] === "function");
    if (!isWhole) throw new MisuseError("bad-option", `seams.${name} lacks methods of its seam`);
  }
}
