// `tierheap top`: what a running process's memory does, as it does it.
import { connect } from "node:net";
import {
  SNAPSHOT_VERSION,
  type StatsSnapshot,
  statsSocketPath,
} from "../metrics/stats-server-node.js";
import { formatBytes, formatPercent, formatTable } from "../stats/format.js";
import {
  type Command,
  CommandError,
  type CommandIo,
  type CommandOptions,
  EXIT_REFUSED,
} from "./command.js";
import { printable } from "./output.js";

/** A longer line is no snapshot. */
const LINE_LENGTH_MAX = 2 ** 20;
const BAR_LENGTH = 30;
const CLEAR = "\u001b[H\u001b[2J";

const refuse = (message: string) => new CommandError(EXIT_REFUSED, message);

/** The lines of a socket, until it ends. @throws {CommandError} */
async function* linesOf(path: string): AsyncGenerator<string> {
  const socket = connect(path).setEncoding("utf8");
  let text = "";
  try {
    for await (const part of socket as AsyncIterable<string>) {
      text += part;
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        yield text.slice(0, end);
        text = text.slice(end + 1);
      }
      if (text.length > LINE_LENGTH_MAX) throw refuse("what comes from there are no statistics");
    }
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (code !== "ENOENT" && code !== "ECONNREFUSED" && code !== "ENOTSOCK") throw error;
    throw refuse("nobody serves statistics there; see serveStats of tierheap/stats-server");
  } finally {
    socket.destroy();
  }
}

function snapshotOf(line: string): StatsSnapshot {
  let snapshot: Partial<StatsSnapshot> | null = null;
  try {
    snapshot = JSON.parse(line) as Partial<StatsSnapshot>;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  if (snapshot?.version !== SNAPSHOT_VERSION || typeof snapshot.stats !== "object") {
    throw refuse("what comes from there are no statistics of this version");
  }
  return snapshot as StatsSnapshot;
}

function barOf(ratio: number): string {
  const filled = Math.round(Math.max(0, Math.min(1, ratio)) * BAR_LENGTH);
  return "█".repeat(filled) + "░".repeat(BAR_LENGTH - filled);
}

/** A table of one snapshot; rates need the one before. */
function formatTop(now: StatsSnapshot, before: StatsSnapshot | null): string {
  const { stats, pid, title } = now;
  const { budget, tensors, lookups, transfers, pools, tiers } = stats;
  const seconds = before === null ? 0 : (now.timeMs - before.timeMs) / 1000;
  const rate = (pick: (snapshot: StatsSnapshot) => number, format = (n: number) => n.toFixed(0)) =>
    before === null || seconds <= 0 ? "-" : `${format((pick(now) - pick(before)) / seconds)}/s`;
  const share = budget.usedBytes / budget.limitBytes;
  const head = [
    `${printable(title) || "tierheap"}, process ${pid}: ${tensors.count} tensors, ${tensors.hotCount} in RAM`,
    `${barOf(share)} ${formatBytes(budget.usedBytes)} of ${formatBytes(budget.limitBytes)}, peak ${formatBytes(budget.usedBytesPeak)}`,
    `hits ${lookups.hits} (${rate((each) => each.stats.lookups.hits)})  ` +
      `misses ${lookups.misses} (${rate((each) => each.stats.lookups.misses)})  ` +
      `in ${rate((each) => each.stats.transfers.rawBytesIn, formatBytes)}  ` +
      `out ${rate((each) => each.stats.transfers.rawBytesOut, formatBytes)}  ` +
      `swapped in ${transfers.swapInCount}, out ${transfers.swapOutCount}`,
  ];
  const kinds = formatTable([
    ["kind", "live", "peak", "granted", "arenas", "tensors", "pinned", "ext. frag.", "allocated"],
    ...pools.map((pool) => [
      printable(pool.kind),
      formatBytes(pool.requestedBytes),
      formatBytes(pool.requestedBytesPeak),
      formatBytes(pool.grantedBytes),
      `${pool.arenaCount}`,
      `${pool.liveCount}`,
      `${pool.pinnedCount}`,
      formatPercent(pool.externalFragmentation),
      rate((each) => allocationsOf(each, pool.kind)),
    ]),
  ]);
  const levels = formatTable([
    ["tier", "holds", "bytes", "capacity", "read", "written", "state"],
    ...tiers.map((tier) => [
      printable(tier.name),
      `${tier.objectCount}`,
      formatBytes(tier.storedBytes),
      // JSON has no infinity.
      formatBytes(tier.capacityBytes ?? Number.POSITIVE_INFINITY),
      rate((each) => tierOf(each, tier.name)?.bytesRead ?? 0, formatBytes),
      rate((each) => tierOf(each, tier.name)?.bytesWritten ?? 0, formatBytes),
      tier.breaker === "closed" ? "" : printable(tier.breaker),
    ]),
  ]);
  return `${head.join("\n")}\n\n${kinds}\n\n${levels}\n`;
}

function allocationsOf({ stats }: StatsSnapshot, kind: string): number {
  return stats.pools.find((pool) => pool.kind === kind)?.allocationCount ?? 0;
}

function tierOf({ stats }: StatsSnapshot, name: string) {
  return stats.tiers.find((tier) => tier.name === name);
}

async function top(target: string, options: CommandOptions, { out }: CommandIo): Promise<number> {
  const path = /^\d+$/.test(target) ? statsSocketPath(Number(target)) : target;
  const isTerminal = (out as { isTTY?: boolean }).isTTY === true;
  let before: StatsSnapshot | null = null;
  for await (const line of linesOf(path)) {
    const snapshot = snapshotOf(line);
    if (options["json"] === true) out.write(`${line}\n`);
    else {
      const text = drawn(snapshot, before);
      out.write(isTerminal && options["once"] !== true ? CLEAR + text : `${text}\n`);
    }
    if (options["once"] === true) return 0;
    before = snapshot;
  }
  if (before === null) throw refuse("the process has ended, or serves enough others");
  return 0;
}

function drawn(snapshot: StatsSnapshot, before: StatsSnapshot | null): string {
  try {
    // What it says is another process's.
    const lines = formatTop(snapshot, before).split("\n");
    return lines.map((line) => printable(line, Number.POSITIVE_INFINITY)).join("\n");
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw refuse("what comes from there are no statistics of this version");
  }
}

export const TOP: Command = {
  synopsis: "top PID|SOCKET",
  summary: "Shows what a running process's memory does, as it does it.",
  help: `  --once   one look, then the end
  --json   print what comes, a line of JSON for each look

The process serves its statistics to its own user when it calls serveStats(memory) of
tierheap/stats-server. Ends when the process does.
`,
  options: { once: { type: "boolean" }, json: { type: "boolean" } },
  run: top,
};
