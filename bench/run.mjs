// Runs every bench, each in a process of its own. Never fails on time.
//
//   npm run bench [-- --only NAME,NAME]
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { RUNS } from "../scripts/figure-runs.mjs";
import { root } from "../scripts/steps.mjs";

const { values } = parseArgs({ options: { only: { type: "string" } } });
const benches = RUNS.map(({ program }) => program).filter((path) => path.startsWith("bench/"));
const named = (path) => values.only?.split(",").some((name) => path.includes(name)) ?? true;
const chosen = [...new Set(benches)].filter(named);
if (chosen.length === 0) throw new Error(`there is no bench ${values.only}`);
for (const path of chosen) {
  console.log(`\n--- ${path}`);
  const { status } = spawnSync(process.execPath, ["--expose-gc", join(root, path)], {
    cwd: root,
    stdio: "inherit",
  });
  if (status !== 0) process.exitCode = 1;
}
