// Kills the chat example with SIGKILL again and again, half the time just as a record is being
// written, resumes it, and lets the last run prove every token. Between the kills every record on
// disk is read and verified.
//
//   node scripts/kill-resume.mjs [--kills 20] [--seed N] [--json FILE]
//
// Fails when a token is wrong, a record is unreadable, or fewer than half of the kills hit a write.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, watch } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { printFigures, writeFigures } from "../bench/support.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const program = join(root, "build", "examples", "chat", "main.js");
const { values } = parseArgs({
  options: { kills: { type: "string" }, seed: { type: "string" }, json: { type: "string" } },
});
const killCountTarget = Number(values.kills ?? 20);
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
if (!existsSync(program)) throw new Error("run npm run build first");

const { CorruptionError, createTensorMemory } = await import("tierheap");

let state = seed | 0;
function random() {
  state = (Math.imul(state, 1664525) + 1013904223) | 0;
  return (state >>> 0) / 2 ** 32;
}

/** Files that grow while a record is being written. */
const WRITTEN_NAME = /\.(tmp|segment)$/;

const baseArgs = (directory) => [program, "--directory", directory, "--visits", "260"];

/** Starts the example and kills it; resolves with whether it died while a record was written. */
async function runAndKill(directory, isResumed, aimsAtWrite) {
  const args = [...baseArgs(directory), ...(isResumed ? ["--resume"] : [])];
  const child = spawn(process.execPath, args, { stdio: "ignore" });
  const exited = new Promise((resolve) =>
    child.on("exit", (code, signal) => resolve({ code, signal })),
  );
  // Writing begins once the model is loaded; the directory exists from the first run on.
  let sightings = 1 + Math.floor(random() * 60);
  const delayMs = 500 + random() * 2500;
  let firstWriteMs = 0;
  let wasWriting = false;
  const kill = () => child.kill("SIGKILL");
  const look = (_event, name) => {
    if (!WRITTEN_NAME.test(name ?? "")) return;
    firstWriteMs ||= performance.now();
    sightings -= 1;
    if (!aimsAtWrite || sightings > 0) return;
    wasWriting = true;
    kill();
  };
  const watcher = watch(directory, look);
  const timer = setInterval(() => {
    if (!aimsAtWrite && firstWriteMs > 0 && performance.now() - firstWriteMs > delayMs) kill();
  }, 5);
  const { signal } = await exited;
  clearInterval(timer);
  watcher.close();
  return { wasKilled: signal === "SIGKILL", wasWriting };
}

/** Reads every record of the directory. */
async function countUnreadable(directory, fingerprint) {
  let unreadable = 0;
  let records = 0;
  const options = {
    budgets: { ram: "16MiB", ssd: "4GiB" },
    ssd: { directory },
    namespace: { fingerprint },
  };
  const memory = await createTensorMemory(options);
  for await (const { id } of memory.list()) {
    records += 1;
    try {
      const lease = await memory.acquire(id, { access: "read" });
      if (lease === null) unreadable += 1;
      lease?.[Symbol.dispose]();
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      unreadable += 1;
    }
  }
  await memory.close();
  return { records, unreadable };
}

function runToEnd(directory) {
  return new Promise((resolve, reject) => {
    const args = [...baseArgs(directory), "--resume", "--json"];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.on("data", (chunk) => {
      text += chunk;
    });
    child.on("exit", (code) => {
      if (text === "") reject(new Error(`the last run ended with ${code}`));
      else resolve(JSON.parse(text));
    });
  });
}

const directory = mkdtempSync(join(tmpdir(), "tierheap-kill-"));
let killCount = 0;
let writingCount = 0;
let unreadableCount = 0;
let recordCount = 0;
console.log(`seed ${seed}`);
try {
  const { openModel } = await import(join(root, "build", "examples", "chat", "open-model.js"));
  const { runtime, fingerprint } = await openModel({ model: undefined, seed: 1 });
  await runtime.close();
  while (killCount < killCountTarget) {
    const { wasKilled, wasWriting } = await runAndKill(
      directory,
      killCount > 0,
      killCount % 4 !== 0,
    );
    if (!wasKilled) throw new Error("the run ended before it could be killed");
    killCount += 1;
    if (wasWriting) writingCount += 1;
    const { records, unreadable } = await countUnreadable(directory, fingerprint);
    recordCount += records;
    unreadableCount += unreadable;
    const where = wasWriting ? "while writing" : "between writes";
    console.log(`kill ${killCount}: ${where}; ${records} records read, ${unreadable} unreadable`);
  }
  const { run } = await runToEnd(directory);
  const figures = [
    {
      id: "kill/turns-wrong",
      value: run.turnsWrong,
      unit: "turns",
      target: 0,
      met: run.turnsWrong === 0,
    },
    {
      id: "kill/unreadable",
      value: unreadableCount,
      unit: "records",
      target: 0,
      met: unreadableCount === 0,
    },
    { id: "kill/kills", value: killCount, unit: "kills", target: killCountTarget, met: true },
    {
      id: "kill/mid-write",
      value: writingCount,
      unit: "kills",
      target: Math.ceil(killCountTarget / 2),
      met: writingCount >= killCountTarget / 2,
    },
    {
      id: "kill/turns-compared",
      value: run.turnsCompared,
      unit: "turns",
      target: 100,
      met: run.turnsCompared >= 100,
    },
    {
      id: "kill/records-read",
      value: recordCount,
      unit: "records",
      target: 1,
      met: recordCount >= 1,
    },
  ];
  printFigures(figures);
  if (values.json !== undefined) writeFigures(values.json, figures, seed);
  process.exitCode = figures.every(({ met }) => met) ? 0 : 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
