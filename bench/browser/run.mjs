// The stores of a browser beside plain calls of its private file system, and its GPU beside plain WebGPU calls,
// in a real Chromium:
//
//   npm run bench:browser -- [--only gpu|"64 KiB"|…] [--rounds N] [--json FILE]
//
// Contestants take turns within one page; every ratio is of two figures of one round, and the median of
// the rounds counts. Nobody flushes. tierheap also hashes what it writes and reads; plain calls do not.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { build, preview } from "vite";
import { CHROMIUM_OPTIONS, ensureChromium } from "../../scripts/browser.mjs";
import { median, report } from "../support.mjs";

const { values } = parseArgs({
  options: { rounds: { type: "string" }, json: { type: "string" }, only: { type: "string" } },
});
const roundCount = Number(values.rounds ?? 5);
const MIB = 2 ** 20;
const FETCHED_BYTES = 1024 * MIB;
/** Those that warm up are stored and read besides, and nobody times them. */
const LENGTHS = [
  {
    name: "64 KiB",
    byteLength: 65_536,
    count: 256,
    warmUpCount: 8,
    callerCount: 16,
    hasFileEach: true,
  },
  { name: "1 MiB", byteLength: MIB, count: 32, warmUpCount: 8, callerCount: 4, hasFileEach: false },
  {
    name: "16 MiB",
    byteLength: 16 * MIB,
    count: 4,
    warmUpCount: 2,
    callerCount: 2,
    hasFileEach: false,
  },
];

/**
 * A virtual machine may give memory that is free back to its host; to have it again costs several times what is
 * written into it. It would strike whoever needs new pages first, so each contestant begins with pages that are here.
 */
function fetchMemory() {
  execFileSync(process.execPath, ["-e", `Buffer.alloc(${FETCHED_BYTES}, 1)`]);
}

const executablePath = ensureChromium();
if (executablePath === undefined) throw new Error("no Chromium is here, and none can be had");
const root = fileURLToPath(new URL("page", import.meta.url));
const config = {
  configFile: false,
  root,
  logLevel: "error",
  build: {
    outDir: fileURLToPath(new URL("../../build/bench-page", import.meta.url)),
    emptyOutDir: true,
    target: "es2022",
  },
  worker: { format: "es" },
  preview: { host: "127.0.0.1", port: 0 },
};
await build(config);
const server = await preview(config);
const profile = mkdtempSync(join(tmpdir(), "tierheap-bench-browser-"));
const context = await chromium.launchPersistentContext(profile, {
  ...CHROMIUM_OPTIONS,
  // Where there is no GPU, an adapter in software.
  args: [...CHROMIUM_OPTIONS.args, "--enable-unsafe-webgpu"],
  executablePath,
});
const figures = [];
try {
  const page = await context.newPage();
  await page.exposeFunction("fetchMemory", fetchMemory);
  await page.goto(server.resolvedUrls.local[0]);
  for (const { name, ...length } of LENGTHS) {
    if (values.only !== undefined && values.only !== name) continue;
    const rounds = [];
    for (let round = 0; round <= roundCount; round++) {
      const result = await page.evaluate((given) => window.round(...given), [length, round]);
      // The first one warms everything up.
      if (round > 0) rounds.push(result);
    }
    const ratio = (mine, theirs, what) =>
      median(rounds.map((round) => round[theirs][what] / round[mine][what]));
    const megabytes = (length.byteLength * length.count) / 1e6;
    const speed = (who, what) =>
      Math.round(median(rounds.map((round) => (megabytes / round[who][what]) * 1000)));
    const add = (id, value, target, beside) =>
      figures.push({
        id: `browser/${id}`,
        value,
        unit: "ratio",
        ...(target !== undefined && { target, met: value >= target }),
        beside,
      });
    const slug = name.replace(" ", "-").toLowerCase();
    for (const [what, word] of [
      ["writeMs", "spill"],
      ["readMs", "restore"],
    ]) {
      const beside = `${speed("opfs", what)} against ${speed("plain", what)} MB/s, IndexedDB ${speed("indexeddb", what)}`;
      add(`opfs-${word}-${slug}-over-plain`, ratio("opfs", "plain", what), 0.8, beside);
      add(`opfs-${word}-${slug}-over-indexeddb`, ratio("opfs", "indexeddb", what));
      // Whatever else the machine does, these stay the same.
      const messages = what === "writeMs" ? "writeMessages" : "readMessages";
      const each = median(rounds.map((round) => round.opfs[messages] / length.count));
      figures.push({
        id: `browser/opfs-${word}-${slug}-messages`,
        value: each,
        unit: "per tensor",
      });
      if (!length.hasFileEach) continue;
      const files = `${speed("fileEach", what)} MB/s with a file each`;
      add(`opfs-${word}-${slug}-over-file-each`, ratio("opfs", "fileEach", what), 50, files);
      // What a store could reach that costs nothing itself.
      add(
        `plain-${word}-${slug}-over-file-each`,
        ratio("plain", "fileEach", what),
        undefined,
        "bound",
      );
    }
  }
  const hasGpu = values.only !== "stores" && (await page.evaluate(() => window.hasGpu()));
  if (!hasGpu && values.only !== "stores") console.log("this browser has no WebGPU adapter");
  for (const { name, ...length } of hasGpu ? LENGTHS : []) {
    const rounds = [];
    for (let round = 0; round <= roundCount; round++) {
      const result = await page.evaluate((given) => window.gpuRound(given), length);
      if (round > 0) rounds.push(result);
    }
    const megabytes = (length.byteLength * length.count) / 1e6;
    const slug = name.replace(" ", "-").toLowerCase();
    for (const [what, word] of [
      ["uploadMs", "upload"],
      ["readbackMs", "readback"],
    ]) {
      const speed = (who) =>
        Math.round(median(rounds.map((round) => (megabytes / round[who][what]) * 1000)));
      figures.push({
        id: `browser/gpu-${word}-${slug}-over-plain`,
        value: median(rounds.map(({ plain, tierheap }) => plain[what] / tierheap[what])),
        unit: "ratio",
        beside: `${speed("tierheap")} against ${speed("plain")} MB/s`,
      });
    }
  }
} finally {
  await context.close();
  await server.close();
  rmSync(profile, { recursive: true, force: true });
}
report("stores and GPU in a browser", figures);
