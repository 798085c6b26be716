// What collecting by lifetime saves: allocation traces replayed by a user who frees by scope, by one who
// forgets some of it, and by the forgetful one with the collector. The traces are made when this is run.
//
//   node bench/lifetimes/run.mjs [--json FILE] [--quick] [--only chat|llm]… [--trace FILE] [--seed N]
//
// Never fails on a target. Fails when there is nothing to measure, or bytes are lost.
import { parseArgs } from "node:util";
import { printFigures, writeFigures } from "../support.mjs";
import { ramFor, replay } from "./replay.mjs";
import { captureChat, forget, freeByScope, makeLlm, measure, readChat } from "./traces.mjs";

const { values: options } = parseArgs({
  options: {
    json: { type: "string" },
    quick: { type: "boolean" },
    only: { type: "string", multiple: true },
    // Written by `npm start -- --trace FILE` before; otherwise the chats are run now.
    trace: { type: "string" },
    seed: { type: "string" },
  },
});
const isQuick = options.quick === true;
const MIB = 2 ** 20;
const FORGOTTEN_SHARE = 0.05;
/** For those who may take what they want. */
const AMPLE_BYTES = 512 * MIB;
/** RAM over what the scoped one has live: the first with which it need not load anything is the collector's too. */
const RAM_OVER_LIVE = [1.06, 1.12, 1.2, 1.28];
const RAM_OVER_FORGETFUL_MAX = 0.8;
const REGRET_SHARE_MAX = 0.02;
const STEPS = { whole: 300, quick: 40 };
/** Of the whole trace of steps, as its description says: otherwise it is another one. */
const LLM_CHECK = { operationCount: 298_272, liveBytesPeak: 30_345_216 };
const QUICK_CHAT = ["--chats", "6", "--visits", "100"];

const SECTIONS = {
  chat: () =>
    options.trace === undefined ? captureChat(isQuick ? QUICK_CHAT : []) : readChat(options.trace),
  llm: () => {
    const { operationCount, liveBytesPeak } = measure(makeLlm(STEPS.whole));
    const isSame =
      operationCount === LLM_CHECK.operationCount && liveBytesPeak === LLM_CHECK.liveBytesPeak;
    if (!isSame) throw new Error("the trace of steps is not the one that was described");
    return makeLlm(isQuick ? STEPS.quick : STEPS.whole);
  },
};

function xorshift(seed) {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

const atMost = (id, value, unit, target, beside) => ({
  ...{ id, value, unit, target, met: value <= target },
  ...(beside && { beside }),
});

function printContestants(rows) {
  console.table(
    rows.map(
      ([user, { liveBytesPeak, arenaBytesPeak, lookups, misses, waits, lost, ...rest }]) => ({
        user,
        "live peak MiB": Number((liveBytesPeak / MIB).toFixed(1)),
        "RAM peak MiB": Number((arenaBytesPeak / MIB).toFixed(1)),
        lookups,
        misses,
        waits,
        lost,
        "written MiB": Number((rest.bytesWritten / MIB).toFixed(0)),
        collected: rest.lifetimes?.collectedCount ?? "",
        regret: rest.lifetimes?.regretCount ?? "",
      }),
    ),
  );
}

function printSites({ sites }) {
  console.log("lifetimes predicted at the allocation, and actual ones, of what was freed");
  console.table(
    sites.slice(0, 12).map((site) => ({
      kind: site.kind,
      site: site.site,
      freed: site.freedCount,
      "before the first": site.freedBeforeCount ?? "",
      predicted: site.predictedCount,
      "expected ms": Number(site.expectedMs.toFixed(1)),
      "lived ms": Number(site.livedMs.toFixed(1)),
      "within twice":
        site.predictedCount && Number((site.withinTwiceCount / site.predictedCount).toFixed(2)),
    })),
  );
}

/**
 * The RAM to compare in: the least of a few with which the one who frees by scope has no misses, so that those of
 * another are its own. What is learnt in the forgetful trace has no part in the choice.
 */
async function chooseRam(freed, scoped) {
  const { liveBytesPeak } = measure(freed);
  for (const overLive of RAM_OVER_LIVE) {
    if (overLive * liveBytesPeak >= scoped.arenaBytesPeak) break;
    const ram = await ramFor(overLive * liveBytesPeak);
    const tried = await replay(freed, { ram, lifetimes: false });
    console.log(`frees by scope in ${overLive} of what is live: ${tried.misses} misses`);
    if (tried.misses === 0) return ram;
  }
  return ramFor(scoped.arenaBytesPeak);
}

async function compare(name, trace, seed) {
  const freed = freeByScope(trace);
  const { forgetful: forgetting, forgottenCount } = forget(freed, FORGOTTEN_SHARE, xorshift(seed));
  if (forgottenCount < 10)
    throw new Error(`only ${forgottenCount} tensors are forgotten in ${name}`);
  const scoped = await replay(freed, { ram: AMPLE_BYTES, lifetimes: false });
  const forgetful = await replay(forgetting, { ram: AMPLE_BYTES, lifetimes: false });
  const ram = await chooseRam(freed, scoped);
  const collecting = await replay(forgetting, { ram });
  const policy = await replay(forgetting, { ram, lifetimes: false });
  const rows = [
    ["frees by scope", scoped],
    [`forgets ${forgottenCount} of ${trace.tensors.length}`, forgetful],
    ["forgets, with the collector", collecting],
    ["forgets, same RAM, policy alone", policy],
  ];
  console.log(`\n${name}: ${trace.codes.length} operations, seed ${seed}`);
  printContestants(rows);
  printSites(collecting.lifetimes);
  for (const { lost, isSound, lookups } of [scoped, forgetful, collecting, policy]) {
    if (lost > 0 || !isSound) throw new Error(`${name}: ${lost} tensors are lost`);
    if (lookups === 0) throw new Error(`${name}: nothing was used`);
  }
  const { collectedCount, regretCount, registeredCount } = collecting.lifetimes;
  if (registeredCount === 0) throw new Error(`${name}: nothing is registered`);
  const id = (figure) => `lifetimes/${name}-${figure}`;
  const missShare = ({ misses, lookups }) => misses / lookups;
  const ramRatio = (other) => collecting.arenaBytesPeak / other.arenaBytesPeak;
  const ramText = ({ arenaBytesPeak }) => `${(arenaBytesPeak / MIB).toFixed(1)} MiB`;
  return [
    { id: id("ram-scoped"), value: scoped.arenaBytesPeak, unit: "bytes" },
    { id: id("ram-forgetful"), value: forgetful.arenaBytesPeak, unit: "bytes" },
    { id: id("ram-collected"), value: collecting.arenaBytesPeak, unit: "bytes" },
    atMost(
      id("ram-over-forgetful"),
      ramRatio(forgetful),
      "ratio",
      RAM_OVER_FORGETFUL_MAX,
      ramText(forgetful),
    ),
    atMost(id("ram-over-scoped"), ramRatio(scoped), "ratio", 1, ramText(scoped)),
    atMost(
      id("live-over-scoped"),
      collecting.liveBytesPeak / scoped.liveBytesPeak,
      "ratio",
      1,
      "both to half a MiB",
    ),
    atMost(
      id("miss-share-above-forgetful"),
      missShare(collecting) - missShare(forgetful),
      "ratio",
      0,
      `${collecting.misses} of ${collecting.lookups}; policy alone ${policy.misses}`,
    ),
    atMost(id("lost"), collecting.lost, "tensors", 0),
    atMost(
      id("regret-share"),
      regretCount / Math.max(1, collectedCount),
      "ratio",
      REGRET_SHARE_MAX,
      `${regretCount} of ${collectedCount}`,
    ),
    {
      id: id("collected-share"),
      value: collectedCount / forgottenCount,
      unit: "ratio",
      target: 0.1,
      met: collectedCount >= 0.1 * forgottenCount,
      beside: `${forgottenCount} were forgotten`,
    },
  ];
}

const names = options.only ?? Object.keys(SECTIONS);
const seed = Number(options.seed ?? 5);
const figures = [];
for (const name of names) {
  if (SECTIONS[name] === undefined) throw new Error(`there is no section ${name}`);
  figures.push(...(await compare(name, SECTIONS[name](), seed)));
}
printFigures(figures);
if (options.json !== undefined) writeFigures(options.json, figures, seed);
