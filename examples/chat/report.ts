/** The report of a run, for people and as JSON. */
import { cpus } from "node:os";
import { formatBytes, formatTable } from "tierheap";
import type { RunResult } from "./run.js";

function milliseconds(value: number): string {
  return `${value.toFixed(1)} ms`;
}

export function formatRun(result: RunResult): string {
  const { restore, stats } = result;
  const kvRatio = result.kvBytes / stats.budget.limitBytes;
  const rows: string[][] = [
    ["model", `${result.model}, run by ${result.runtime}`],
    ["chats", `${result.chats}, ${result.visitsTaken} of ${result.visitsTotal} turns in this run`],
    [
      "KV of all chats",
      `${formatBytes(result.kvBytes)} = ${kvRatio.toFixed(1)} × the RAM budget of ${formatBytes(stats.budget.limitBytes)}`,
    ],
    [
      "chats brought back",
      `${result.chatSwapIns} visits found their KV on the SSD tier, in whole or in part`,
    ],
  ];
  if (result.isResumed) {
    rows.push([
      "resumed",
      `${result.chatsFound} chats found, ${result.chatsRecomputed} recomputed`,
    ]);
  }
  if (restore !== null) {
    rows.push(
      [
        "restore of a chat",
        `${milliseconds(restore.restoreMs)}, median of ${restore.sampleCount}, making room included`,
      ],
      ["computing it again", `${milliseconds(restore.recomputeMs)}, median`],
      ["restore is faster by", `${restore.speedup.toFixed(1)} ×`],
    );
  }
  rows.push(["KV out of the runtime", kvOut(result)]);
  const { steps, fixedCount, reuseCount, scopedCount } = result.stepInputs;
  rows.push([
    "inputs of the steps",
    `${fixedCount} of a fixed shape, ${reuseCount} used again; ${scopedCount} freed with ${steps} scopes`,
  ]);
  rows.push([
    "resident memory",
    `${formatBytes(result.rssBareBytes)} bare runtime, grew by at most ${formatBytes(result.rssGrowthBytesPeak)}`,
  ]);
  return `${result.report}\n\n${formatTable(rows)}\n\n${verdict(result)}`;
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
    atLeast(
      "chat/present-over-rows",
      result.presentBytesAvoided / Math.max(1, result.decoder?.rowBytes ?? 0),
      "ratio",
      2,
    ),
    { id: "chat/rss-growth", value: result.rssGrowthBytesPeak, unit: "bytes" },
  ];
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
  };
  return JSON.stringify({ environment, figures: figuresOf(result), run: rest }, null, 2);
}
