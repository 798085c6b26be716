// All tests: builds, the gate on the core, as-pect, type tests, vitest in Node, vitest on a browser.
//
//   node scripts/test.mjs [--only core|proof|schedules|types|package|node|browser]...
//   TIERHEAP_NO_BROWSER=1   leaves the browser tests out, and says so
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { ensureChromium } from "./browser.mjs";
import { binary, gate, root, runNode, runSteps } from "./steps.mjs";

const script = (name) => join(root, "scripts", name);

async function runGate() {
  const { code, output } = await runNode(script("check-core.mjs"));
  const passed = output.match(/^ok\b/gm)?.length ?? 0;
  const failures = output.match(/^FAIL (?!\d+ checks).*/gm) ?? [];
  return { passed, failed: Math.max(failures.length, code === 0 ? 0 : 1), failures };
}

/** Random operations by the million against a model, and as many bad uses of handles. */
async function runProof() {
  const { code, output } = await runNode(script("proof.mjs"));
  const passed = output.match(/^ok\b/gm)?.length ?? 0;
  const failures = output.match(/^FAIL .*/gm) ?? [];
  return { passed, failed: Math.max(failures.length, code === 0 ? 0 : 1), failures };
}

/** Schedules of the lanes of the shared core, by the million. */
async function runSchedules() {
  const { code, output } = await runNode(script("explore-schedules.mjs"), ["--schedules", "1e6"]);
  const passed = output.match(/^ok\b/gm)?.length ?? 0;
  const failures = output.match(/^FAIL .*/gm) ?? [];
  return { passed, failed: Math.max(failures.length, code === 0 ? 0 : 1), failures };
}

/** The packed package in empty projects. What is not there is skipped by name. */
async function runConsumers() {
  const { code, output } = await runNode(script("consumers.mjs"));
  const passed = output.match(/^ok\b/gm)?.length ?? 0;
  const failures = output.match(/^FAIL .*/gm) ?? [];
  const skipped = [...output.matchAll(/^skip (.*)/gm)].map((match) => match[1]);
  return { passed, failed: Math.max(failures.length, code === 0 ? 0 : 1), failures, skipped };
}

async function runAsPect() {
  const { code, output } = await runNode(binary("@as-pect/cli", "bin/asp.js"), [], {
    isQuiet: true,
  });
  const specs = [...output.matchAll(/^\S+ (tests\/core\/\S+)\s+Pass: (\d+) \/ (\d+)/gm)];
  for (const [line] of specs) console.log(line);
  const total = (group) => specs.reduce((sum, match) => sum + Number(match[group]), 0);
  const failures = specs.filter((match) => match[2] !== match[3]).map((match) => match[1]);
  // A spec that is not reported, or reports no test, has failed without saying so.
  const ran = new Set(specs.filter((match) => match[3] !== "0").map((match) => match[1]));
  const lost = specFiles().filter((file) => !ran.has(file));
  failures.push(...lost.map((file) => `${file} ran no test`));
  const failed = total(3) - total(2) + lost.length;
  return { passed: total(2), failed: Math.max(failed, code === 0 ? 0 : 1), failures };
}

function specFiles() {
  return readdirSync(join(root, "tests", "core"), { recursive: true })
    .map((file) => `tests/core/${file.replaceAll("\\", "/")}`)
    .filter((file) => file.endsWith(".spec.ts"));
}

async function runVitest(project, args, options) {
  const file = join(root, "build", `test-${project}.json`);
  rmSync(file, { force: true });
  const { code } = await runNode(
    binary("vitest", "vitest.mjs"),
    ["run", "--project", project, "--passWithNoTests=false", ...args],
    { env: { TIERHEAP_TEST_PROJECT: project }, ...options },
  );
  if (!existsSync(file)) return { passed: 0, failed: 1, failures: ["vitest did not finish"] };
  const counts = JSON.parse(readFileSync(file, "utf8"));
  return { ...counts, failed: Math.max(counts.failed, code === 0 ? 0 : 1) };
}

/** One core is left to the browser, whose tests run beside these. */
function runInNode() {
  return runVitest("node", [`--maxWorkers=${Math.max(1, availableParallelism() - 1)}`]);
}

async function runBrowser() {
  if (process.env.TIERHEAP_NO_BROWSER === "1") return "TIERHEAP_NO_BROWSER=1 asks for it";
  if (ensureChromium() === undefined) {
    return { passed: 0, failed: 1, failures: ["no Chromium; TIERHEAP_NO_BROWSER=1 skips"] };
  }
  return runVitest("browser", [], { isHeld: true });
}

const STEPS = [
  {
    group: "build",
    title: "build",
    isRequired: true,
    run: async () => gate(await runNode(script("build.mjs"), ["--debug"])),
  },
  { group: "core", title: "gate on the core", run: runGate },
  // These two take every core there is.
  { group: "proof", title: "model and misuse", run: runProof },
  { group: "schedules", title: "schedules of lanes", run: runSchedules },
  { group: "browser", title: "vitest browser", isBeside: true, run: runBrowser },
  { group: "core", title: "as-pect", run: runAsPect },
  {
    group: "types",
    title: "types",
    run: async () => {
      const project = join(root, "tests", "types", "tsconfig.json");
      if (!existsSync(project)) return "tests/types/tsconfig.json does not exist";
      return gate(await runNode(binary("typescript", "bin/tsc"), ["--project", project]));
    },
  },
  { group: "package", title: "consumers", run: runConsumers },
  { group: "node", title: "vitest node", run: runInNode },
];

const only = process.argv.slice(2).filter((argument) => argument !== "--only");
const unknown = only.find((group) => !STEPS.some((step) => step.group === group));
if (unknown !== undefined) {
  console.error(
    `unknown suite ${unknown}; there are core, proof, schedules, types, package, node and browser`,
  );
  process.exitCode = 2;
} else {
  const isWanted = ({ group }) => only.length === 0 || group === "build" || only.includes(group);
  await runSteps("test", STEPS.filter(isWanted));
}
