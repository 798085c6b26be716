// Cuts the power under a store on real file systems: a process writes into a store on a loop-mounted
// image, the file system is shut down without flushing anything, the process is killed, the image is
// mounted again and the store is read.
//
//   node scripts/store-power.mjs [--cycles 50] [--fs ext4,xfs] [--mode durable,cache] [--seed N]
//                                [--json FILE]
//
// Needs Linux, root, losetup, mkfs.ext4, mkfs.xfs and python3 (for one ioctl); says so and does nothing
// without them. Runs so many cycles per file system and mode, then a few with a store that never
// syncs, which must be caught. Fails when anything that was acknowledged as durable is lost, gone back
// or damaged, when cache mode gives wrong bytes, and when too little was acknowledged.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { seededRandom } from "tierheap/testing";
import { writeFigures } from "../bench/support.mjs";
import { KEY_COUNT, readAcks, readStore } from "./store-writer.mjs";

const { values } = parseArgs({
  options: {
    ...{ cycles: { type: "string" }, fs: { type: "string" }, mode: { type: "string" } },
    ...{ seed: { type: "string" }, json: { type: "string" } },
  },
});
const cycleCount = Number(values.cycles ?? 50);
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
const random = seededRandom(seed);
const DELAY_MS_MAX = 400;
const MUTANT_CYCLE_COUNT = 4;
const IMAGE_MIB = 400;
const ACKS_PER_CYCLE_MIN = 5;

/** Shuts a mounted file system down without flushing its log: `_IOR('X', 125, uint32_t)`, 2. */
const SHUT_DOWN = `import fcntl, os, struct, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(descriptor, 0x8004587D, struct.pack("I", 2))`;

function missing() {
  if (process.platform !== "linux" || process.geteuid() !== 0) return "it needs root on Linux";
  const tools = ["losetup", "mkfs.ext4", "mkfs.xfs", "python3", "mount"];
  const absent = tools.filter((tool) => spawnSync("which", [tool]).status !== 0);
  return absent.length === 0 ? null : `not installed: ${absent.join(", ")}`;
}

function must(command, ...args) {
  const { status, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
}

const reason = missing();
if (reason !== null) {
  console.log(`NOT RUN: ${reason}`);
  process.exit(0);
}

const root = mkdtempSync(join(tmpdir(), "tierheap-power-"));
const acksRoot = mkdtempSync(
  join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "tierheap-acks-"),
);
const writerPath = fileURLToPath(new URL("store-writer.mjs", import.meta.url));
const mountPath = join(root, "mount");
mkdirSync(mountPath);

/** Writes, cuts, mounts again and reads. */
async function runCycle(image, acks, mode, before, first, isMutant) {
  const directory = join(mountPath, "store");
  must("mount", "-o", "loop", image, mountPath);
  let found;
  let isMounted = true;
  try {
    const args = [writerPath, directory, acks, mode, `${first}`, isMutant ? "no-sync" : "sync"];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "ignore"] });
    const exited = once(child, "exit");
    const ready = await Promise.race([once(child.stdout, "data").then(() => true), exited]);
    if (ready !== true) throw new Error("the writer ended before the cut");
    await new Promise((resolve) => setTimeout(resolve, random.uint32() % DELAY_MS_MAX));
    appendFileSync(acks, "DOWN\n");
    must("python3", "-c", SHUT_DOWN, mountPath);
    child.kill("SIGKILL");
    await exited;
    must("umount", mountPath);
    isMounted = false;
    must("mount", "-o", "loop", image, mountPath);
    isMounted = true;
    found = await readStore(directory);
  } finally {
    if (isMounted) must("umount", mountPath);
  }
  return { found, ...readAcks(acks, before) };
}

async function runCycles(type, mode, count, isMutant) {
  const image = join(root, `${type}.img`);
  rmSync(image, { force: true });
  must("truncate", "-s", `${IMAGE_MIB}M`, image);
  must(`mkfs.${type}`, "-q", type === "ext4" ? "-F" : "-f", image);
  const counts = { acks: 0, lost: 0, wrong: 0, damaged: 0 };
  let before = Array(KEY_COUNT).fill(0);
  const everBegun = before.map(() => new Set([0]));
  for (let cycle = 0; cycle < count; cycle++) {
    const acks = join(acksRoot, "acks");
    rmSync(acks, { force: true });
    const first = 1 + cycle * 100_000;
    const { found, keys, ackCount } = await runCycle(image, acks, mode, before, first, isMutant);
    counts.acks += ackCount;
    for (const [key, version] of found.entries()) {
      const { allowed, begun } = keys[key];
      for (const each of begun) everBegun[key].add(each);
      if (mode === "durable" && !allowed.includes(version)) {
        if (version === -1) counts.damaged += 1;
        else counts.lost += 1;
      }
      // Damage is found by the digest of a record; what must not be is the bytes of something else.
      if (version !== -1 && !everBegun[key].has(version)) counts.wrong += 1;
    }
    before = found.map((version) => Math.max(0, version));
  }
  return counts;
}

const figures = [];
const add = (id, value, unit, target, met) => {
  figures.push({ id, value, unit, target, met });
  console.log(`${met ? "ok  " : "FAIL"}  ${id}  ${value} ${unit} (target ${target})`);
};
console.log(`seed ${seed}`);
try {
  for (const type of (values.fs ?? "ext4,xfs").split(",")) {
    for (const mode of (values.mode ?? "durable,cache").split(",")) {
      const startMs = performance.now();
      const { acks, lost, wrong, damaged } = await runCycles(type, mode, cycleCount, false);
      const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
      const name = `power/${type}/${mode}`;
      console.log(`${name}: ${cycleCount} cuts in ${seconds} s, ${damaged} objects found damaged`);
      const floor = ACKS_PER_CYCLE_MIN * cycleCount;
      add(`${name}/acknowledged`, acks, "changes", floor, acks >= floor);
      add(`${name}/wrong`, wrong, "objects", 0, wrong === 0);
      if (mode !== "durable") continue;
      add(`${name}/lost-or-stale`, lost, "objects", 0, lost === 0);
      add(`${name}/torn`, damaged, "objects", 0, damaged === 0);
    }
    const mutant = await runCycles(type, "durable", MUTANT_CYCLE_COUNT, true);
    const faultCount = mutant.lost + mutant.damaged + mutant.wrong;
    add(`power/${type}/without-sync-caught`, faultCount, "faults", 1, faultCount > 0);
  }
} finally {
  rmSync(root, { recursive: true, force: true });
  rmSync(acksRoot, { recursive: true, force: true });
}
if (values.json !== undefined) writeFigures(values.json, figures, seed);
process.exitCode = figures.every(({ met }) => met) ? 0 : 1;
