// `tierheap replay`: what policies and tiers would have been worth on a trace.
import { writeFile } from "node:fs/promises";
import { systemClock } from "../clock.js";
import { admitAll } from "../policy/admit-all.js";
import { admitReused } from "../policy/admit-reused.js";
import { formatTable } from "../stats/format.js";
import type { Command, CommandIo, CommandOptions } from "./command.js";
import { CommandError, EXIT_USAGE } from "./command.js";
import { linePlot, type PlotLine } from "./line-plot.js";
import { printable } from "./output.js";
import { DEFAULT_POLICY, POLICIES } from "./policies.js";
import { ProgressBar } from "./progress-bar.js";
import { optimum, replay } from "./replay-policy.js";
import { replayTiers } from "./replay-tiers.js";
import { readTrace, type Trace } from "./trace.js";

/** Capacities, as shares of all different blocks. */
const SHARES = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4];
/** Shares of the hot and the cold tier. */
const TIER_SHARES: readonly (readonly [number, number])[] = [
  [0.01, 0.05],
  [0.025, 0.1],
];
const OPTIMUM = "optimum";

interface Replayed {
  readonly trace: string;
  readonly requestCount: number;
  readonly accessCount: number;
  readonly uniqueCount: number;
  /** Hits in percent of accesses. */
  readonly policies: readonly PlotLine[];
  readonly tiers: readonly {
    readonly scheme: string;
    readonly hotCapacity: number;
    readonly coldCapacity: number;
    readonly hitPercent: number;
    readonly writtenCount: number;
  }[];
}

function capacitiesOf(options: CommandOptions, uniqueCount: number): number[] {
  const asked = options["capacity"] as readonly string[] | undefined;
  if (asked === undefined) {
    return [...new Set(SHARES.map((share) => Math.max(1, Math.round(uniqueCount * share))))];
  }
  const capacities = asked.map((text) => {
    const capacity = Number(text);
    if (Number.isSafeInteger(capacity) && capacity > 0) return capacity;
    throw new CommandError(EXIT_USAGE, `--capacity ${printable(text)} is no count of blocks`);
  });
  return [...new Set(capacities)].sort((left, right) => left - right);
}

function policiesOf(options: CommandOptions): string[] {
  const asked = options["policy"] as readonly string[] | undefined;
  const unknown = asked?.find((name) => !POLICIES.has(name));
  if (unknown !== undefined) {
    const known = [...POLICIES.keys()].join(", ");
    throw new CommandError(
      EXIT_USAGE,
      `there is no policy ${printable(unknown)}; there are ${known}`,
    );
  }
  return [...new Set(asked ?? POLICIES.keys())];
}

/** What is done with what leaves the hot tier. */
function schemesOf(coldCapacity: number) {
  const learnt = POLICIES.get(DEFAULT_POLICY);
  const makeHot = POLICIES.get("lru");
  if (learnt === undefined || makeHot === undefined) throw new RangeError("a policy is missing");
  const reused = () => admitReused({ capacityBytes: coldCapacity });
  return [
    ["write every victim", { makeHot, admission: admitAll, rewritesClean: true }],
    ["clean copies stay", { makeHot, admission: admitAll }],
    ["admission decides", { makeHot, admission: reused() }],
    [`admission, ${DEFAULT_POLICY}`, { makeHot: learnt, admission: reused() }],
  ] as const;
}

/** Replays, and lets the terminal draw between two replays. */
async function replayAll(
  trace: Trace,
  names: readonly string[],
  capacities: readonly number[],
  progress: ProgressBar,
): Promise<Replayed> {
  const tierShares = trace.isChained ? TIER_SHARES : [];
  const schemeCount = tierShares.length * schemesOf(1).length;
  const total = capacities.length * (names.length + 1) + schemeCount;
  let done = 0;
  const step = async (label: string) => {
    progress.show(done++ / total, label);
    await systemClock.sleep(0);
  };
  const percentOf = (count: number) => (100 * count) / trace.accessCount;
  const policies: PlotLine[] = [];
  for (const name of [...names, OPTIMUM]) {
    const make = POLICIES.get(name);
    const points: [number, number][] = [];
    for (const capacity of capacities) {
      await step(`${name}, ${capacity} blocks`);
      const hitCount =
        make === undefined ? optimum(trace, capacity) : replay(trace, capacity, make).hitCount;
      points.push([capacity, percentOf(hitCount)]);
    }
    policies.push({ label: name, points });
  }
  const tiers: Replayed["tiers"][number][] = [];
  for (const [hotShare, coldShare] of tierShares) {
    const hotCapacity = Math.max(1, Math.round(trace.uniqueCount * hotShare));
    const coldCapacity = Math.max(1, Math.round(trace.uniqueCount * coldShare));
    for (const [scheme, options] of schemesOf(coldCapacity)) {
      await step(`two tiers, ${scheme}`);
      const found = replayTiers(trace, hotCapacity, coldCapacity, options);
      const { hitPercent, writtenCount } = found;
      tiers.push({ scheme, hotCapacity, coldCapacity, hitPercent, writtenCount });
    }
  }
  progress.end();
  const { name, requests, accessCount, uniqueCount } = trace;
  return { trace: name, requestCount: requests.length, accessCount, uniqueCount, policies, tiers };
}

function describeReplay(replayed: Replayed, unit: string): string {
  const { trace, requestCount, accessCount, uniqueCount, policies, tiers } = replayed;
  const capacities = policies[0]?.points.map(([capacity]) => `${capacity}`) ?? [];
  const lines = [
    `${printable(trace)}: ${requestCount} requests, ${accessCount} accesses, ${uniqueCount} ${unit}s`,
    "",
    `hits in % of accesses, by ${unit}s held`,
    formatTable([
      ["policy", ...capacities],
      ...policies.map(({ label, points }) => [
        label === DEFAULT_POLICY ? `${label} (default)` : label,
        ...points.map(([, percent]) => percent.toFixed(2)),
      ]),
    ]),
  ];
  if (tiers.length > 0) {
    const rows = tiers.map(({ scheme, hotCapacity, coldCapacity, hitPercent, writtenCount }) => [
      `${hotCapacity}`,
      `${coldCapacity}`,
      scheme,
      hitPercent.toFixed(2),
      `${writtenCount}`,
    ]);
    const head = ["hot", "cold", "what leaves the hot tier", "hits in %", "blocks written"];
    lines.push("", "two tiers", formatTable([head, ...rows]));
  }
  return `${lines.join("\n")}\n`;
}

async function run(path: string, options: CommandOptions, io: CommandIo): Promise<number> {
  const names = policiesOf(options);
  const svgPath = options["svg"] as string | undefined;
  const trace = await readTrace(path);
  const unit = trace.isChained ? "block" : "object";
  const capacities = capacitiesOf(options, trace.uniqueCount);
  const replayed = await replayAll(trace, names, capacities, new ProgressBar(io.err));
  const isJson = options["json"] === true;
  io.out.write(isJson ? `${JSON.stringify(replayed, null, 2)}\n` : describeReplay(replayed, unit));
  if (svgPath !== undefined) {
    const title = `Hits on ${printable(trace.name)}, over ${unit}s held`;
    await writeFile(svgPath, linePlot(title, replayed.policies));
  }
  return 0;
}

export const REPLAY: Command = {
  synopsis: "replay TRACE",
  summary: "Replays a trace through policies and tiers, beside the optimum.",
  help: `  --policy NAME      replay only this one; may be repeated
  --capacity BLOCKS  hold so many blocks; may be repeated
  --svg FILE         plot hits over capacities
  --json             print JSON

The ending of the file's name says its format: docs/traces.md. Policies:
${[...POLICIES.keys()].join(", ")}.
`,
  options: {
    policy: { type: "string", multiple: true },
    capacity: { type: "string", multiple: true },
    svg: { type: "string" },
    json: { type: "boolean" },
  },
  run,
};
