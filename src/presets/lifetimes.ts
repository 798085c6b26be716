// Chooses the predictor of the collector, and composes both: loaded by memories that collect.
import { LifetimeCollector, type LifetimeCollectorOptions } from "../cache/lifetime-collector.js";
import type { Reclaimer } from "../cache/reclaimer.js";
import type { TensorRecord } from "../cache/tensor-record.js";
import type { Victims } from "../cache/victims.js";
import { MisuseError } from "../errors.js";
import { learntLifetime } from "../lifetime/learnt-lifetime.js";
import type { LifetimePredictor } from "../lifetime/lifetime-predictor.js";
import { toldLifetime } from "../lifetime/told-lifetime.js";
import { checkObject } from "../memory/checks.js";
import type { TensorMemoryOptions } from "../memory/options.js";

/** @throws {MisuseError} `bad-option`. */
export function choosePredictor(options: TensorMemoryOptions): LifetimePredictor {
  const given = checkObject(options.lifetimes ?? {}, "lifetimes", ["rule", "regretShare"]);
  const { rule = "learnt", regretShare } = given;
  if (rule !== "learnt" && rule !== "told") {
    throw new MisuseError("bad-option", 'lifetimes.rule is "learnt" or "told"');
  }
  const learnt = learntLifetime({ regretShare: regretShare as number | undefined });
  return options.seams?.lifetimePredictor ?? (rule === "told" ? toldLifetime : learnt);
}

/** Makes the collector, and lets those ask it who need room. */
export function createCollector(
  options: Omit<LifetimeCollectorOptions, "giveUp"> & {
    readonly reclaimer: Reclaimer;
    readonly victims: Victims;
  },
): LifetimeCollector {
  const { victims, reclaimer } = options;
  const giveUp = (record: TensorRecord) => victims.giveUp(record);
  const collector = new LifetimeCollector({ ...options, giveUp });
  victims.preferOver(collector);
  reclaimer.collectOver(collector);
  return collector;
}
