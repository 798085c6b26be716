// What all benches share: options, the environment, the table and the JSON.
import { writeFileSync } from "node:fs";
import { cpus, loadavg, totalmem } from "node:os";
import { basename, dirname, isAbsolute, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { json: { type: "string" } }, strict: false });

export function median(samples) {
  const sorted = [...samples].sort((left, right) => left - right);
  return sorted[Math.floor(sorted.length / 2)];
}

/** The machine, as every report names it. */
export function environment() {
  return {
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    cpu: cpus()[0]?.model ?? "unknown",
    cpuCount: cpus().length,
    memoryBytes: totalmem(),
    // Of the last minute: what else the machine did.
    load: loadavg()[0],
  };
}

/** The command that runs now, as one would type it, without where its figures go. */
function commandLine() {
  const root = dirname(dirname(fileURLToPath(import.meta.url)));
  const [program, ...args] = process.argv.slice(1);
  const at = args.indexOf("--json");
  if (at >= 0) args.splice(at, 2);
  // Files of this machine by their names alone.
  const typed = args.map((arg) => (isAbsolute(arg) ? basename(arg) : arg));
  const quoted = typed.map((arg) => (arg.includes(" ") ? `"${arg}"` : arg));
  return ["node", ...process.execArgv, relative(root, program), ...quoted].join(" ");
}

/**
 * Writes figures in the form of all benches and harnesses.
 *
 * @param figures `{ id, value, unit, target?, met?, beside? }`; `beside` is what the value was compared with, or
 *   how it came about.
 */
export function writeFigures(file, figures, seed) {
  const found = { environment: environment(), command: commandLine(), seed, figures };
  writeFileSync(file, `${JSON.stringify(found, null, 2)}\n`);
}

/** Prints figures as a table. */
export function printFigures(figures) {
  const rows = figures.map(({ id, value, unit, target, met, beside }) => ({
    figure: id,
    value: Number(value.toPrecision(4)),
    unit,
    target: target ?? "",
    met: met === undefined ? "" : met,
    beside: beside ?? "",
  }));
  console.table(rows);
}

/** Prints the figures as a table; with --json FILE also writes them. */
export function report(name, figures) {
  console.log(`\n${name}`);
  printFigures(figures);
  if (typeof values.json === "string") writeFigures(values.json, figures);
}
