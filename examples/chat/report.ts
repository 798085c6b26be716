/** The report of a run, for people and as JSON. */
import { cpus, loadavg } from "node:os";
import { formatBytes, formatPercent, formatTable, type LifetimeStats } from "tierheap";
import type { Foresight, Foretold } from "./foresight.js";
import type { RunResult } from "./run.js";

function milliseconds(value: number): string {
  return `${value.toFixed(1)} ms`;
}

export function formatRun(result: RunResult): string {
  const { restore, stats } = result;
  const kvRatio = result.kvBytes / stats.budget.limitBytes;
  const rows: string[][] = [
    ["model", `${result.model}, run by ${result.runtime}`],
    ["hardware profile", stats.profile],
    ["chats", `${result.chats}, ${result.visitsTaken} of ${result.visitsTotal} turns in this run`],
    [
      "KV of all chats",
      `${formatBytes(result.kvBytes)} = ${kvRatio.toFixed(1)} × the RAM budget of ${formatBytes(stats.budget.limitBytes)}`,
    ],
    [
      "chats brought back",
      `${result.chatSwapIns} visits found their KV in a cold tier, in whole or in part`,
    ],
  ];
  const cold = stats.tiers.slice(1);
  if (cold.length > 1) {
    const found = cold.map(({ name, loads }) => `${loads} in ${name}`);
    rows.push(["tensors found", found.join(", ")]);
    const moved = cold.map(
      ({ name, promotions, demotions }) => `${name} ${promotions}, ${demotions}`,
    );
    rows.push(["moved up to it, down from it", moved.join("; ")]);
  }
  if (result.isResumed) {
    rows.push([
      "resumed",
      `${result.chatsFound} chats found, ${result.chatsRecomputed} recomputed`,
    ]);
  }
  const { rawBytes, storedBytes } = codedBytes(result);
  if (storedBytes > 0) {
    const ratio = (rawBytes / storedBytes).toFixed(2);
    const jobCount = stats.codecWorkers?.jobCount ?? 0;
    const byWorkers = jobCount === 0 ? "" : `; ${jobCount} jobs by workers`;
    const codecs = stats.codecs.filter((each) => each.storedBytes > 0).map(({ codec }) => codec);
    rows.push([
      "written to disk",
      `${formatBytes(rawBytes)} as ${formatBytes(storedBytes)}: ${ratio} × fewer bytes, in ${codecs.join(" and ")}${byWorkers}`,
    ]);
  }
  if (restore !== null) {
    rows.push(
      [
        "restore of a chat",
        `${milliseconds(restore.restoreMs)}, median of ${restore.sampleCount}, making room included`,
      ],
      [
        "restore cost foretold",
        restore.expectedMs === null
          ? "nothing was measured before"
          : `${milliseconds(restore.expectedMs)} for its tensors one after the other, median`,
      ],
      ["computing it again", `${milliseconds(restore.recomputeMs)}, median`],
      ["restore is faster by", `${restore.speedup.toFixed(1)} ×`],
    );
  }
  rows.push(["KV out of the runtime", kvOut(result)]);
  const { chatCount, tokens } = result.prefixes;
  rows.push([
    "prompts that begin alike",
    `${chatCount} chats took ${tokens} tokens from pages of others`,
  ]);
  const { issuedCount, usedCount, lateCount, wastedCount } = stats.prefetch;
  rows.push([
    "prefetched for who is next",
    `${issuedCount} tensors: ${usedCount} used, ${lateCount} late, ${wastedCount} wasted; ${result.prefetched.visitCount} visits waited ${milliseconds(result.prefetched.waitMs)} for them, median`,
  ]);
  const { earlyCopyCount, cleanEvictionCount } = stats.transfers;
  rows.push([
    "copied before they had to go",
    `${earlyCopyCount} tensors; ${cleanEvictionCount} left without a write`,
  ]);
  if (stats.lifetimes !== null) rows.push(["lifetimes", lifetimeText(stats.lifetimes)]);
  const { steps, planCount, replayedCount, planBytes, planBytesLeast } = result.stepInputs;
  const { fixedCount, reuseCount, scopedCount } = result.stepInputs;
  rows.push(
    [
      "steps from a plan",
      `${replayedCount} of ${steps}, replayed from ${planCount} plans of ${formatBytes(planBytes)} (least possible ${formatBytes(planBytesLeast)})`,
    ],
    [
      "inputs of the prompts",
      `${fixedCount} of a fixed shape, ${reuseCount} used again; ${scopedCount} freed with scopes`,
    ],
    ["compaction of the KV", compactionText(result)],
  );
  if (result.foresight !== null)
    rows.push(["planned beside what happened", foretold(result.foresight)]);
  const { sharedCount, contentCount, savedBytes } = stats.sharing;
  rows.push([
    "shared by the chats",
    `${sharedCount} system prompts in ${contentCount} contents: ${formatBytes(savedBytes)} saved`,
  ]);
  rows.push([
    "resident memory",
    `${formatBytes(result.rssBareBytes)} bare runtime, grew by at most ${formatBytes(result.rssGrowthBytesPeak)}`,
  ]);
  return `${result.report}\n\n${formatTable(rows)}\n\n${verdict(result)}`;
}

/** What was given up because it seemed over, and how well lifetimes were predicted. */
function lifetimeText(lifetimes: LifetimeStats): string {
  const { registeredCount, collectedCount, regretCount, sites } = lifetimes;
  const [most] = sites;
  const predicted =
    most === undefined || most.predictedCount === 0
      ? "none predicted"
      : `${most.site} predicted ${milliseconds(most.expectedMs)}, lived ${milliseconds(most.livedMs)}, ${most.withinTwiceCount} of ${most.predictedCount} within twice`;
  return `${collectedCount} of ${registeredCount} tensors collected, ${regretCount} wanted again; ${predicted}`;
}

/** What was moved during the run, and what moving everything at its end did. */
function compactionText({ compaction }: RunResult): string {
  if (compaction === null) return "nothing was kept";
  const { totals, before, after } = compaction;
  const moved = `${totals.moveCount} moves, ${formatBytes(totals.movedBytes)}, ${totals.evacuatedCount} arenas emptied`;
  const states = [before, after].map(
    (state) =>
      `${formatPercent(state.externalFragmentation)} fragmented, ${state.arenaCount} arenas`,
  );
  return `${moved}; at the end ${states.join(" → ")}`;
}

/** What the plan said, and what was. */
function foretold({ ramBytes, coldBytes, restoreMs }: Foresight): string {
  const bytes = ({ planned, actual }: Foretold) =>
    `${formatBytes(planned)} for ${formatBytes(actual)}`;
  const times =
    restoreMs === null
      ? ""
      : `, a chat back in ${milliseconds(restoreMs.planned)} for ${milliseconds(restoreMs.actual)}`;
  return `RAM ${bytes(ramBytes)}, colder tiers ${bytes(coldBytes)}${times}`;
}

/** What all records were, and became. */
function codedBytes({ stats }: RunResult): { rawBytes: number; storedBytes: number } {
  let rawBytes = 0;
  let storedBytes = 0;
  for (const each of stats.codecs) {
    rawBytes += each.rawBytes;
    storedBytes += each.storedBytes;
  }
  return { rawBytes, storedBytes };
}

/** How much KV the steps moved, and why it was not less. */
function kvOut({ decoder, presentBytesAvoided }: RunResult): string {
  if (decoder === null) return "all of it at each step: the model cannot be patched";
  if (decoder.mode === "plain") return `all of it at each step: ${decoder.reason}`;
  const instead = formatBytes(presentBytesAvoided);
  return `new rows only, ${formatBytes(decoder.rowBytes)} in place of ${instead}`;
}

function verdict(result: RunResult): string {
  if (result.isInterrupted) {
    return `stopped: ${result.chatsSaved} chats are saved. Continue them with: npm start -- --resume`;
  }
  const { turnsCompared, turnsWrong } = result;
  const { limitBytes, usedBytesPeak, changeCount } = result.stats.budget;
  const budget = `the budget held: peak ${formatBytes(usedBytesPeak)} of ${formatBytes(limitBytes)} over ${changeCount} changes`;
  return turnsWrong === 0
    ? `every token is equal to the run without tierheap (${turnsCompared} turns); ${budget}`
    : `WRONG: ${turnsWrong} of ${turnsCompared} turns differ from the run without tierheap; ${budget}`;
}

interface Figure {
  readonly id: string;
  readonly value: number;
  readonly unit: string;
  readonly target?: number;
  readonly met?: boolean;
}

/** The figures of this command, in the form that every bench of the project uses. */
export function figuresOf(result: RunResult): Figure[] {
  const { budget, transfers } = result.stats;
  const atLeast = (id: string, value: number, unit: string, target: number): Figure => ({
    id,
    value,
    unit,
    target,
    met: value >= target,
  });
  const atMost = (id: string, value: number, unit: string, target: number): Figure => ({
    id,
    value,
    unit,
    target,
    met: value <= target,
  });
  const figures = [
    atMost("chat/turns-wrong", result.turnsWrong, "turns", 0),
    atLeast("chat/turns-compared", result.turnsCompared, "turns", 1),
    atLeast("chat/kv-over-budget", result.kvBytes / budget.limitBytes, "ratio", 4),
    atMost("chat/budget-peak-over-limit", budget.usedBytesPeak / budget.limitBytes, "ratio", 1),
    atLeast("chat/swap-outs", transfers.swapOutCount, "tensors", 100),
    atLeast("chat/swap-ins", transfers.swapInCount, "tensors", 100),
    atLeast("chat/chats-brought-back", result.chatSwapIns, "chats", 100),
    {
      id: "chat/fixed-shape-reuse",
      value: result.stepInputs.reuseCount / Math.max(1, result.stepInputs.fixedCount),
      unit: "ratio",
    },
    {
      id: "chat/steps-replayed",
      value: result.stepInputs.replayedCount / Math.max(1, result.stepInputs.steps),
      unit: "ratio",
    },
    {
      id: "chat/stored-over-raw",
      value: codedBytes(result).storedBytes / Math.max(1, codedBytes(result).rawBytes),
      unit: "ratio",
    },
    { id: "chat/prefetch-issued", value: result.stats.prefetch.issuedCount, unit: "tensors" },
    { id: "chat/prefetch-used", value: result.stats.prefetch.usedCount, unit: "tensors" },
    { id: "chat/prefetch-late", value: result.stats.prefetch.lateCount, unit: "tensors" },
    { id: "chat/prefetch-wasted", value: result.stats.prefetch.wastedCount, unit: "tensors" },
    { id: "chat/prefetched-wait", value: result.prefetched.waitMs, unit: "ms" },
    atLeast(
      "chat/present-over-rows",
      result.presentBytesAvoided / Math.max(1, result.decoder?.rowBytes ?? 0),
      "ratio",
      2,
    ),
    { id: "chat/collected", value: result.stats.lifetimes?.collectedCount ?? 0, unit: "tensors" },
    {
      id: "chat/collected-in-vain",
      value: result.stats.lifetimes?.regretCount ?? 0,
      unit: "tensors",
    },
    { id: "chat/prefix-tokens-shared", value: result.prefixes.tokens, unit: "tokens" },
    atLeast("chat/shared-tensors", result.stats.sharing.sharedCount, "tensors", 2),
    { id: "chat/shared-saved", value: result.stats.sharing.savedBytes, unit: "bytes" },
    ...result.stats.features.flatMap(({ name, cost, gain, switchedOffCount }) => [
      { id: `chat/feature/${name}-cost`, value: cost.ns, unit: "ns" },
      { id: `chat/feature/${name}-gain`, value: gain.ns, unit: "ns" },
      { id: `chat/feature/${name}-switched-off`, value: switchedOffCount, unit: "times" },
    ]),
    { id: "chat/rss-growth", value: result.rssGrowthBytesPeak, unit: "bytes" },
  ];
  if (result.compaction !== null) {
    const { totals, before, after } = result.compaction;
    const ratio = (when: string, value: number) => ({
      id: `chat/fragmentation-${when}-compaction`,
      value,
      unit: "ratio",
    });
    figures.push(
      { id: "chat/compaction-moved", value: totals.movedBytes, unit: "bytes" },
      { id: "chat/compaction-arenas-emptied", value: totals.evacuatedCount, unit: "arenas" },
      ratio("before", before.externalFragmentation),
      ratio("after", after.externalFragmentation),
    );
  }
  if (result.restore !== null) {
    figures.push(
      { id: "chat/restore", value: result.restore.restoreMs, unit: "ms" },
      { id: "chat/recompute", value: result.restore.recomputeMs, unit: "ms" },
      atLeast("chat/recompute-over-restore", result.restore.speedup, "ratio", 1),
    );
  }
  return figures;
}

export function jsonOf(result: RunResult): string {
  const { report: _report, ...rest } = result;
  const environment = {
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    cpu: cpus()[0]?.model ?? "unknown",
    cpuCount: cpus().length,
    load: loadavg()[0],
  };
  return JSON.stringify({ environment, figures: figuresOf(result), run: rest }, null, 2);
}
