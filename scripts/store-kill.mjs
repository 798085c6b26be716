// Kills a process that writes into a store with SIGKILL, again and again, and reads the store after
// each kill.
//
//   node scripts/store-kill.mjs [--cycles 1000] [--seed N] [--json FILE]
//
// Fails when anything that was acknowledged is lost, in either mode, when bytes are wrong, when a
// temporary file is left, and when too few changes were acknowledged or cut.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { seededRandom } from "tierheap/testing";
import { writeFigures } from "../bench/support.mjs";
import { KEY_COUNT, readAcks, readStore } from "./store-writer.mjs";

const { values } = parseArgs({
  options: { cycles: { type: "string" }, seed: { type: "string" }, json: { type: "string" } },
});
const cycleCount = Number(values.cycles ?? 1000);
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
const random = seededRandom(seed);
const DELAY_MS_MAX = 120;
const acksRoot = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

const root = mkdtempSync(join(tmpdir(), "tierheap-kill-store-"));
const acksDirectory = mkdtempSync(join(acksRoot, "tierheap-acks-"));
const writerPath = fileURLToPath(new URL("store-writer.mjs", import.meta.url));
const counts = { acks: 0, cut: 0, lost: 0, wrong: 0, left: 0 };
const problems = [];
console.log(`seed ${seed}`);
const startMs = performance.now();
const found = { durable: Array(KEY_COUNT).fill(0), cache: Array(KEY_COUNT).fill(0) };
try {
  for (let cycle = 0; cycle < cycleCount; cycle++) {
    const mode = cycle % 2 === 0 ? "durable" : "cache";
    const directory = join(root, mode);
    const acks = join(acksDirectory, `${cycle}`);
    const args = [writerPath, directory, acks, mode, `${1 + cycle * 1_000_000}`];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    const exited = once(child, "exit");
    const ready = await Promise.race([once(child.stdout, "data").then(() => true), exited]);
    if (ready !== true) throw new Error(`cycle ${cycle}: the writer ended before it was killed`);
    await new Promise((resolve) => setTimeout(resolve, random.uint32() % DELAY_MS_MAX));
    child.kill("SIGKILL");
    await exited;
    const { keys, ackCount, openCount } = readAcks(acks, found[mode]);
    counts.acks += ackCount;
    if (openCount > 0) counts.cut += 1;
    found[mode] = await readStore(directory);
    for (const [key, version] of found[mode].entries()) {
      const { allowed, begun } = keys[key];
      if (allowed.includes(version)) continue;
      const kind = version === -1 || !(version === 0 || begun.includes(version)) ? "wrong" : "lost";
      counts[kind] += 1;
      problems.push(
        `cycle ${cycle}, ${mode}: key ${key} is ${version}, not ${allowed.join(" or ")}`,
      );
    }
    counts.left += readdirSync(directory).filter((name) => name.endsWith(".tmp")).length;
    rmSync(acks);
    if ((cycle + 1) % 100 === 0) console.log(`${cycle + 1} cycles, ${JSON.stringify(counts)}`);
  }
} finally {
  rmSync(root, { recursive: true, force: true });
  rmSync(acksDirectory, { recursive: true, force: true });
}
const seconds = (performance.now() - startMs) / 1000;
for (const problem of problems.slice(0, 20)) console.log(`PROBLEM  ${problem}`);
console.log(
  `${cycleCount} kills in ${seconds.toFixed(0)} s: ${counts.acks} acknowledged, ${counts.cut} cut in ` +
    `mid-write, ${counts.lost} lost, ${counts.wrong} wrong, ${counts.left} temporary files left`,
);
const floor = { acks: 5 * cycleCount, cut: 0.3 * cycleCount };
if (values.json !== undefined) {
  const figures = [
    { id: "store/kill-cycles", value: cycleCount, unit: "kills", target: 1000 },
    { id: "store/kill-acks", value: counts.acks, unit: "acknowledged", target: floor.acks },
    { id: "store/kill-cut", value: counts.cut, unit: "kills", target: floor.cut },
    { id: "store/kill-lost", value: counts.lost, unit: "changes", target: 0 },
    { id: "store/kill-wrong", value: counts.wrong, unit: "objects", target: 0 },
    { id: "store/kill-temporary", value: counts.left, unit: "files left", target: 0 },
  ];
  for (const figure of figures) {
    figure.met = figure.target === 0 ? figure.value === 0 : figure.value >= figure.target;
  }
  writeFigures(values.json, figures, seed);
}
const isSound = counts.lost + counts.wrong + counts.left === 0;
const isEnough = counts.acks >= floor.acks && counts.cut >= floor.cut;
if (!isEnough) console.log("too few changes were acknowledged or cut: this proves nothing");
process.exitCode = isSound && isEnough ? 0 : 1;
