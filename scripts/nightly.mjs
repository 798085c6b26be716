// What is too long for every change: a billion operations against the model, bad uses, mutants,
// malformed units, kills, histories, flips, crash states, power cuts, a soak. Each step prints its seed, has its floors and fails below them.
//
//   node scripts/nightly.mjs [--seed N] [--only TITLE]
//
// The seed changes from day to day, so that the nights differ. Figures are left in build/figures, where
// `node scripts/figures.mjs --take FILE…` finds them.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { root, runNode, runSteps } from "./steps.mjs";

const DAY_MS = 86_400_000;
const { values } = parseArgs({ options: { seed: { type: "string" }, only: { type: "string" } } });
const seed = values.seed ?? String(Math.floor(Date.now() / DAY_MS));

/** A script that prints `ok` or `FAIL` for each of its figures, or fails as a whole. */
function script(title, name, args) {
  return {
    title,
    run: async () => {
      const folder = join(root, "build", "figures");
      mkdirSync(folder, { recursive: true });
      const json = ["--json", join(folder, `nightly-${title.replaceAll(" ", "-")}.json`)];
      const all = [...args, "--seed", seed, ...json];
      const { code, output } = await runNode(join(root, "scripts", name), all);
      const failures = output.match(/^FAIL .*/gm) ?? [];
      const passed = output.match(/^ok\b/gm)?.length ?? (code === 0 ? 1 : 0);
      return { passed, failed: Math.max(failures.length, code === 0 ? 0 : 1), failures };
    },
  };
}

const build = {
  title: "build",
  isRequired: true,
  run: async () => {
    const { code } = await runNode(join(root, "scripts", "build.mjs"), ["--debug"]);
    return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
  },
};

const STEPS = [
  script("model", "proof.mjs", ["--only", "model", "--operations", "1e9"]),
  script("misuse", "proof.mjs", ["--only", "misuse", "--bad-uses", "1e8"]),
  script("mutants", "proof.mjs", ["--only", "mutants", "--mutants", "300"]),
  script("schedules", "explore-schedules.mjs", ["--schedules", "1e7"]),
  script("worker deaths", "worker-deaths.mjs", []),
  script("codecs", "codec-fuzz.mjs", ["--mutants", "10000000"]),
  script("kills", "kill-resume.mjs", ["--kills", "100"]),
  script("histories", "histories.mjs", ["--histories", "100000"]),
  script("remote faults", "remote-faults.mjs", ["--operations", "1000"]),
  script("flips", "store-flips.mjs", ["--flips", "10000"]),
  script("store kills", "store-kill.mjs", ["--cycles", "1000"]),
  script("crash states", "store-crashes.mjs", ["--states", "1000000"]),
  script("power cuts", "store-power.mjs", ["--cycles", "50"]),
  script("soak", "soak.mjs", ["--minutes", "10"]),
  script("consumers", "consumers.mjs", ["--download"]),
];

const wanted = STEPS.filter(({ title }) => values.only === undefined || values.only === title);
if (wanted.length === 0) throw new Error(`there is no step ${values.only}`);
console.log(`seed ${seed}`);
await runSteps("nightly", [build, ...wanted]);
