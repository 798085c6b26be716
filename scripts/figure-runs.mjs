// The runs that the documents' figures come from. One list, for figures.mjs and for bench/run.mjs.
import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { root } from "./steps.mjs";

const CHAT = "build/examples/chat/main.js";
const [CODECS, KV] = ["bench/codecs/run.mjs", "bench/kv/run.mjs"];

/** Programs with their arguments, by the groups in which they run. */
const GROUPS = {
  // Best on a machine that does nothing else; first what matters most.
  timing: {
    chat: [CHAT, "--json"],
    "kv-restore": [KV, "--only", "restore"],
    "kv-steps": [KV, "--only", "step"],
    store: ["bench/store.mjs", "--quick"],
    core: ["bench/core/run.mjs", "--quick"],
    profiles: ["bench/profiles.mjs", "--quick"],
    plan: ["bench/plan.mjs"],
    "codecs-speed": [CODECS, "--quick", "--only", "layout,kernels,attend,svd,plane,spill,workers"],
    browser: ["bench/browser/run.mjs", "--rounds", "7"],
    "kv-growing": [KV, "--only", "growing"],
    demo: ["bench/demo.mjs"],
  },
  // The same on any machine.
  counts: {
    size: ["scripts/size.mjs"],
    leak: ["bench/leak.mjs"],
    ram: ["bench/ram.mjs"],
    lifetimes: ["bench/lifetimes/run.mjs"],
    "kv-counts": [
      KV,
      ...["prefixes", "names", "layouts", "webgpu"].flatMap((each) => ["--only", each]),
    ],
    cache: ["bench/cache/run.mjs", "--quick"],
    "codecs-errors": [CODECS, "--only", "exact,quality,adaptive"],
  },
  // By number: long, the longest last.
  proofs: {
    fixtures: ["scripts/fixtures.mjs"],
    flips: ["scripts/store-flips.mjs"],
    deaths: ["scripts/worker-deaths.mjs"],
    kill: ["scripts/kill-resume.mjs"],
    schedules: ["scripts/explore-schedules.mjs"],
    proof: ["scripts/proof.mjs"],
    mutants: ["scripts/proof.mjs", "--only", "mutants"],
    "codec-fuzz": ["scripts/codec-fuzz.mjs"],
    consumers: ["scripts/consumers.mjs", "--download"],
    histories: ["scripts/histories.mjs"],
    soak: ["scripts/soak.mjs", "--minutes", "10"],
    power: ["scripts/store-power.mjs"],
    crashes: ["scripts/store-crashes.mjs"],
    "store-kill": ["scripts/store-kill.mjs"],
    remote: ["scripts/remote-faults.mjs"],
    "browser-kill": ["scripts/browser-kill.mjs"],
  },
};
/** Those that take `--trace FILE`. */
const TRACED = ["kv-counts", "cache"];

/** All of them, each with its group and its name. */
export const RUNS = Object.entries(GROUPS).flatMap(([group, runs]) =>
  Object.entries(runs).map(([name, [program, ...args]]) => ({ group, name, program, args })),
);

/** What each run writes; not kept in the repository. */
const FOLDER = join(root, "build", "figures");

/**
 * Runs one of them, with what it prints.
 *
 * @param traces Files for those that take traces.
 * @returns Exit code, seconds, the command as users type it, and the file with its figures, or null: it wrote none.
 */
export async function runFigures({ name, program, args }, traces = []) {
  mkdirSync(FOLDER, { recursive: true });
  const file = join(FOLDER, `${name}.json`);
  // What an earlier run wrote is none of this one.
  rmSync(file, { force: true });
  const flags = program.startsWith("bench/") ? ["--expose-gc"] : [];
  const own = TRACED.includes(name) ? traces.flatMap((path) => ["--trace", resolve(path)]) : [];
  // The example prints its JSON.
  const isPrinted = program === CHAT;
  const output = isPrinted ? openSync(file, "w") : "inherit";
  const line = [...flags, program, ...args, ...own, ...(isPrinted ? [] : ["--json", file])];
  const startMs = performance.now();
  const child = spawn(process.execPath, line, { cwd: root, stdio: ["ignore", output, "inherit"] });
  const code = await new Promise((settle) => {
    child.on("error", () => settle(1));
    child.on("close", settle);
  });
  if (isPrinted) closeSync(output);
  const seconds = (performance.now() - startMs) / 1000;
  return { code, seconds, file: existsSync(file) ? file : null };
}

/** The command of a run as users type it: for reports that do not say it themselves. */
export function commandOf({ program, args }) {
  if (program === CHAT) return `npm start -- ${args.join(" ")}`;
  return ["node", program, ...args].join(" ");
}
