// The plan of a memory that is there: with its budgets, what it keeps for itself, and what it has measured.
// Loaded when it is first asked for. Layer: plan.

import type { LevelStats } from "../cache/tier-level.js";
import { MisuseError } from "../errors.js";
import type { MemoryStats } from "../stats/memory-stats.js";
import type { TensorKind } from "../types.js";
import { adviceOf } from "./advice.js";
import type { KvForm } from "./kv-bytes.js";
import { type MemoryPlan, type PlanMachine, type PlannedSpeed, planOn } from "./memory-plan.js";
import {
  type CheckedPlan,
  COLD_TIERS,
  type ColdTier,
  checkPlanRequest,
  type PlanBudgets,
  type PlanRequest,
} from "./plan-request.js";

/** Records, in bytes, from which on the measured ratio says something. */
const RATIO_BYTES_MIN = 2 ** 20;

function advised(request: CheckedPlan, machine: PlanMachine): MemoryPlan {
  const plan = planOn(request, machine);
  const replan = (form: KvForm) => planOn({ ...request, form }, machine);
  return { ...plan, advice: adviceOf(plan, { request, replan }) };
}

/**
 * What some chats would take, by their shapes alone.
 *
 * @throws {MisuseError} `bad-option` — without budgets; and as `memory.plan`.
 * @remarks Pure. What the memory keeps for itself is estimated for two cores, speeds are guesses unless given:
 *   `memory.plan` knows both.
 */
export function planMemory(request: PlanRequest): MemoryPlan {
  const checked = checkPlanRequest(request);
  const { budgets } = checked;
  if (budgets === null) throw new MisuseError("bad-option", "plan: budgets.ram is missing");
  return advised(checked, {
    ...{ budgets, overheadBytes: null, arenaBytes: null },
    ...{ speeds: {}, storedRatio: 1 },
  });
}

/** What of a memory a plan looks at, besides its statistics. */
export interface PlannedMemory {
  readonly profile: {
    readonly queueDepth: number;
    /** What the profile expects of devices. */
    readonly tiers?: {
      readonly [tier in ColdTier]?: {
        readonly readBytesPerSecond: number;
        readonly latencyMs?: number;
      };
    };
  };
  readonly pools: ReadonlyMap<TensorKind, { readonly arenaBytes: number }>;
}

/** The plan of a memory. @throws {MisuseError} As {@link checkPlanRequest}. */
export function planFor(
  { profile, pools }: PlannedMemory,
  stats: MemoryStats,
  request: PlanRequest,
): MemoryPlan {
  const checked = checkPlanRequest(request);
  const { byCategory } = stats.budget;
  const ownBudgets = budgetsOf(stats);
  const budgets = checked.budgets ?? ownBudgets;
  // With other budgets it would be another memory.
  const isOwn = budgets.ram === ownBudgets.ram && budgets.warm === ownBudgets.warm;
  const machine: PlanMachine = {
    budgets,
    overheadBytes: isOwn ? byCategory.control + byCategory.staging : null,
    arenaBytes: isOwn ? (pools.get("KV_CACHE")?.arenaBytes ?? null) : null,
    speeds: knownSpeeds(stats, profile),
    storedRatio: storedRatioOf(stats),
  };
  return advised(checked, machine);
}

const levelsOf = (stats: MemoryStats) =>
  new Map(stats.tiers.map((level) => [level.name as ColdTier, level]));

function budgetsOf(stats: MemoryStats): PlanBudgets {
  const levels = levelsOf(stats);
  const bytesOf = (name: ColdTier) => levels.get(name)?.capacityBytes ?? 0;
  return {
    ram: stats.budget.limitBytes,
    warm: stats.budget.byCategory.warm,
    ssd: bytesOf("ssd"),
    hdd: bytesOf("hdd"),
    remote: bytesOf("remote"),
  };
}

function knownSpeeds(stats: MemoryStats, profile: PlannedMemory["profile"]): PlanMachine["speeds"] {
  const speeds: { [tier in ColdTier]?: PlannedSpeed } = {};
  const levels = levelsOf(stats);
  for (const name of COLD_TIERS) {
    const expected = profile.tiers?.[name];
    if (expected !== undefined) {
      const { latencyMs = 0, readBytesPerSecond: bytesPerSecond } = expected;
      speeds[name] = { latencyMs, bytesPerSecond, source: "profile" };
    }
    // The only tier: what comes in comes from there.
    const isLone = stats.tiers.length === 2;
    const burst = isLone ? stats.transfers.burstBytesPerSecond : null;
    const measured = speedOf(levels.get(name), burst, profile.queueDepth);
    if (measured !== null) speeds[name] = measured;
  }
  return speeds;
}

function speedOf(
  level: LevelStats | undefined,
  burst: number | null,
  queueDepth: number,
): PlannedSpeed | null {
  if (level === undefined) return null;
  if (burst !== null) return { latencyMs: 0, bytesPerSecond: burst, source: "measured" };
  if (level.bytesPerSecond === null) return null;
  // That is of one transfer; several are under way at once.
  return {
    latencyMs: (level.latencyMs ?? 0) / queueDepth,
    bytesPerSecond: level.bytesPerSecond * queueDepth,
    source: "measured",
  };
}

function storedRatioOf({ codecs }: MemoryStats): number {
  let rawBytes = 0;
  let storedBytes = 0;
  for (const each of codecs) {
    rawBytes += each.rawBytes;
    storedBytes += each.storedBytes;
  }
  return rawBytes < RATIO_BYTES_MIN ? 1 : storedBytes / rawBytes;
}
