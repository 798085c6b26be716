// Runs named steps one after the other and adds up what they counted. Shared by test.mjs and
// check.mjs.
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";

export const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Path of a command of an installed package, without npx: no look-up, no download, no shell. */
export function binary(packageName, path) {
  return join(root, "node_modules", packageName, path);
}

/**
 * Runs a Node script in the repository's root.
 *
 * @param options.isQuiet Print the output only when the script fails.
 * @param options.isHeld Print the output as one piece when the script has ended.
 * @returns Exit code and output, stdout and stderr together, without colours.
 */
export function runNode(script, args = [], { isQuiet = false, isHeld = false, env = {} } = {}) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script, ...args], {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
    });
    const chunks = [];
    const keep = (chunk) => {
      chunks.push(chunk);
      if (!isQuiet && !isHeld) process.stdout.write(chunk);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    child.on("error", (error) => keep(Buffer.from(`${error.message}\n`)));
    child.on("close", (code) => {
      const raw = Buffer.concat(chunks).toString();
      if (isHeld || (isQuiet && code !== 0)) process.stdout.write(raw);
      resolve({ code: code ?? 1, output: stripVTControlCharacters(raw) });
    });
  });
}

/** Counts of a step that either holds or does not. */
export function gate({ code }) {
  return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}

/**
 * Runs the steps, prints a table, writes it to `build/<name>.json` and sets the exit code. The last
 * line is `N passed, N failed`.
 *
 * @param steps Each `run` gives `{ passed, failed, skipped?, failures? }`, or a text: the reason why
 *   it did not run. A step that counts nothing has failed: a suite that lost its tests must show. Steps follow
 *   one another; one that `isBeside` runs while the steps after it do.
 */
export async function runSteps(name, steps) {
  const rows = [];
  let isBlocked = false;
  for (const step of steps) {
    const { title, isRequired = false, isBeside = false } = step;
    if (isBlocked) {
      rows.push({ title, skip: "an earlier step failed", passed: 0, failed: 1, seconds: 0 });
      continue;
    }
    console.log(`\n--- ${title}${isBeside ? ", beside what follows" : ""}`);
    const row = runStep(step);
    rows.push(isBeside ? row : await row);
    if (isRequired) isBlocked = (await row).failed > 0;
  }
  summarise(name, await Promise.all(rows));
}

async function runStep({ title, run }) {
  const startMs = performance.now();
  const outcome = await attempt(run);
  const seconds = (performance.now() - startMs) / 1000;
  if (typeof outcome === "string") {
    console.log(`${title} skipped: ${outcome}`);
    return { title, skip: outcome, passed: 0, failed: 0, seconds };
  }
  const row = { title, seconds, ...outcome };
  if (row.passed + row.failed === 0) {
    row.failed = 1;
    row.failures = ["it counted nothing"];
  }
  return row;
}

async function attempt(run) {
  try {
    return await run();
  } catch (error) {
    return { passed: 0, failed: 1, failures: [String(error?.stack ?? error)] };
  }
}

function summarise(name, rows) {
  const width = Math.max(...rows.map(({ title }) => title.length));
  console.log("\n--- summary");
  for (const { title, skip, passed, failed, seconds } of rows) {
    const counts = skip === undefined ? `${passed} passed, ${failed} failed` : `NOT RUN: ${skip}`;
    console.log(`${title.padEnd(width)}  ${seconds.toFixed(1).padStart(6)} s  ${counts}`);
  }
  for (const { title, skipped = [], failures = [] } of rows) {
    for (const test of skipped) console.log(`skipped  ${title}: ${test}`);
    for (const test of failures) console.log(`FAILED   ${title}: ${test}`);
  }
  const passed = rows.reduce((sum, row) => sum + row.passed, 0);
  const failed = rows.reduce((sum, row) => sum + row.failed, 0);
  mkdirSync(join(root, "build"), { recursive: true });
  writeFileSync(join(root, "build", `${name}.json`), JSON.stringify({ passed, failed, rows }));
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}
