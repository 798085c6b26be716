// Flips every bit of a short store and then bits at random, and counts what comes back wrong.
//
//   node scripts/store-flips.mjs [--flips 10000] [--seed N] [--json FILE]
//
// Fails when anything wrong is read as if it were right, and when no flip was found.
import { parseArgs } from "node:util";
import { exploreFlips, flippableStore, seededRandom } from "tierheap/testing";
import { writeFigures } from "../bench/support.mjs";

const { values } = parseArgs({
  options: { flips: { type: "string" }, seed: { type: "string" }, json: { type: "string" } },
});
const flipCountTarget = Number(values.flips ?? 10_000);
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
console.log(`seed ${seed}`);
const random = seededRandom(seed);
const figures = [];
for (const [name, isClosed] of [
  ["closed", true],
  ["killed", false],
]) {
  const disk = await flippableStore(seed, isClosed);
  for (const [kind, flipCount] of [
    ["all", "all"],
    ["random", flipCountTarget],
  ]) {
    const report = await exploreFlips(disk, { flipCount, random });
    console.log(`${name} store, ${kind} bits: ${JSON.stringify(report)}`);
    const id = `flips/${name}/${kind}`;
    const { silentCount: value, damagedCount } = report;
    const met = value === 0 && damagedCount > 0;
    figures.push({
      id,
      value,
      unit: "silent",
      target: 0,
      met,
      beside: `${report.flipCount} flips`,
    });
  }
}
if (values.json !== undefined) writeFigures(values.json, figures, seed);
process.exitCode = figures.every(({ met }) => met) ? 0 : 1;
