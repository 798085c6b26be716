// The main job as a user runs it, in small: the built program with the real ONNX runtime.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const program = fileURLToPath(new URL("../../build/examples/chat/main.js", import.meta.url));
const SMALL = ["--chats", "4", "--visits", "8", "--ram", "10MiB"];

interface Run {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** For a machine that has much else to do. */
const TIMEOUT_MS = 240_000;

const running = new Set<ChildProcess>();
let directory = "";
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tierheap-chat-"));
});
afterEach(() => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
});

/** Runs the program; `onProgress` sees what it prints and may signal it. */
function chat(args: readonly string[], onProgress?: (child: ChildProcess, text: string) => void) {
  const child = spawn(process.execPath, [program, "--directory", directory, ...args]);
  running.add(child);
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
  });
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
    onProgress?.(child, stderr);
  });
  return new Promise<Run>((resolve) => {
    child.on("close", (code, signal) => {
      running.delete(child);
      resolve({ code, signal, stdout, stderr });
    });
  });
}

/** Sends a signal once, at the first progress line after `visits` visits. */
function signalAfter(visits: number, signal: NodeJS.Signals) {
  let isSent = false;
  return (child: ChildProcess, text: string) => {
    const done = [...text.matchAll(/visit\s+(\d+)\//g)].at(-1)?.[1] ?? "0";
    if (isSent || Number(done) < visits) return;
    isSent = true;
    child.kill(signal);
  };
}

const records = () => readdirSync(directory).filter((name) => /\.(tensor|segment)$/.test(name));

describe("the chat example", { timeout: TIMEOUT_MS }, () => {
  test("gives equal tokens inside the budget, lets no second process in, and cleans up", async () => {
    let second: Promise<Run> | null = null;
    const { code, stdout } = await chat([...SMALL, "--json"], (_child, text) => {
      if (text.includes("visit")) second ??= chat(SMALL);
    });
    const refused = await (second as Promise<Run> | null);
    expect(refused?.code).toBe(1);
    expect(refused?.stderr).toMatch(
      /^the directory .* is in use by another memory or process.*\n$/,
    );
    const { run, figures } = JSON.parse(stdout);
    expect(code).toBe(0);
    expect(run.turnsWrong).toBe(0);
    expect(run.turnsCompared).toBe(20);
    expect(run.stats.transfers.swapOutCount).toBeGreaterThan(20);
    expect(run.stats.transfers.swapInCount).toBeGreaterThan(20);
    expect(run.stats.budget.usedBytesPeak).toBeLessThanOrEqual(run.stats.budget.limitBytes);
    const { planCount, replayedCount } = run.stepInputs;
    expect(planCount).toBeGreaterThan(0);
    expect(replayedCount).toBeGreaterThan(20);
    // The share may grow when arenas are given back: less is free.
    const scatteredBytes = ({ externalFragmentation, freeBytes }: Record<string, number>) =>
      (externalFragmentation as number) * (freeBytes as number);
    expect(scatteredBytes(run.compaction.after)).toBeLessThanOrEqual(
      scatteredBytes(run.compaction.before),
    );
    const { lookups, hits, joins, misses } = run.stats.lookups;
    expect(hits + joins + misses).toBe(lookups);
    const ids = figures.map(({ id }: { id: string }) => id);
    expect(ids).toContain("chat/recompute-over-restore");
    expect(ids).toContain("chat/feature/compaction-gain");
    expect(run.stats.sharing).toMatchObject({ sharedCount: run.chats, contentCount: 1 });
    expect(records()).toEqual([]);
  });

  test("gives equal tokens over RAM, SSD and HDD, each inside its budget", async () => {
    try {
      const tiers = ["--warm", "2MiB", "--ssd", "2MiB", "--hdd", "1GiB"];
      const { code, stdout } = await chat([...SMALL, "--json", "--ram", "14MiB", ...tiers]);
      const { run } = JSON.parse(stdout);
      expect(code).toBe(0);
      expect(run).toMatchObject({ turnsWrong: 0, turnsCompared: 20, chatsRecomputed: 0 });
      expect(run.stats.tiers.map(({ name }: { name: string }) => name)).toEqual([
        "ram",
        "warm",
        "ssd",
        "hdd",
      ]);
      let loadCount = 0;
      for (const tier of run.stats.tiers.slice(1)) {
        expect(tier.physicalBytes).toBeLessThanOrEqual(tier.capacityBytes);
        expect(tier.loads, tier.name).toBeGreaterThan(0);
        loadCount += tier.loads;
      }
      expect(loadCount).toBe(run.stats.transfers.swapInCount);
    } finally {
      rmSync(`${directory}-hdd`, { recursive: true, force: true });
    }
  });

  test("stops on Ctrl-C with everything saved, and resumes without computing again", async () => {
    const stopped = await chat(SMALL, signalAfter(8, "SIGINT"));
    expect(stopped.code).toBe(130);
    expect(stopped.stdout).toContain("npm start -- --resume");
    const resumed = await chat(["--resume", "--json"]);
    const { run } = JSON.parse(resumed.stdout);
    expect(resumed.code).toBe(0);
    expect(run).toMatchObject({ turnsWrong: 0, turnsCompared: 20, chatsFound: 4 });
    expect(run.chatsRecomputed).toBe(0);
    expect(run.visitsTaken).toBeLessThan(20);
  });

  test("resumes after kill -9, and after a record was damaged", async () => {
    const killed = await chat(SMALL, signalAfter(10, "SIGKILL"));
    expect(killed.signal).toBe("SIGKILL");
    // The largest file holds KV; every record in the middle of it loses some bits.
    const files = records().map((name) => join(directory, name));
    const [victim] = files.sort(
      (left, right) => readFileSync(right).length - readFileSync(left).length,
    );
    const bytes = readFileSync(victim as string);
    for (let offset = bytes.length >> 2; offset < 3 * (bytes.length >> 2); offset += 1024) {
      bytes[offset] = (bytes[offset] as number) ^ 4;
    }
    writeFileSync(victim as string, bytes);
    const { code, stdout } = await chat(["--resume", "--json"]);
    const { run } = JSON.parse(stdout);
    expect(code).toBe(0);
    expect(run).toMatchObject({ turnsWrong: 0, turnsCompared: 20 });
    expect(run.chatsFound).toBeGreaterThanOrEqual(4);
    expect(run.chatsRecomputed).toBeGreaterThanOrEqual(1);
  });

  const complaints: [string, readonly string[], RegExp][] = [
    ["a missing model", ["--model", "/nowhere/model.onnx"], /^There is no model at \/nowhere/],
    ["an unwritable directory", ["--directory", "/dev/null/x"], /^cannot open the directory/],
    ["nothing to resume", ["--resume"], /^there is no stopped run in/],
    ["an unknown option", ["--quantum"], /^Unknown option '--quantum'/],
    ["a number out of range", ["--chats", "1"], /^--chats is a whole number from 2/],
    ["a budget too small", ["--ram", "1MiB"], /^budgets\.ram is at least/],
  ];
  test.each(complaints)("%s is one clear line", async (_name, args, pattern) => {
    const { code, stdout, stderr } = await chat(args);
    expect(stderr).toMatch(pattern);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(stdout).toBe("");
    expect(code).toBe(1);
  });

  test("a full disk is said, and what was committed can be resumed", async () => {
    const full = await chat([...SMALL, "--ssd", "2MiB"]);
    expect(full.code).toBe(1);
    expect(full.stderr).toMatch(/The ssd tier is full .* --ssd/);
    const { run } = JSON.parse((await chat(["--resume", "--json"])).stdout);
    expect(run).toMatchObject({ turnsWrong: 0, turnsCompared: 20 });
    expect(run.chatsFound).toBeGreaterThanOrEqual(1);
  });
});
