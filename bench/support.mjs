// What all benches share: options, the environment, the table and the JSON.
import { writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
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
  };
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
  if (typeof values.json === "string") {
    const text = JSON.stringify({ environment: environment(), figures }, null, 2);
    writeFileSync(values.json, `${text}\n`);
  }
}
