// The command `tierheap replay`: what it prints, and the traces that it refuses.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { ProgressBar } from "../../src/cli/progress-bar.js";
import { manualClock } from "../../src/testing/index.js";
import { runHere, tierheap } from "../support/command.js";
import { temporaryDirectory } from "../support/directories.js";

const ROWS = [
  [0, -1, 0, 4, 10, 0],
  [1, 0, 4, 2, 10, 1],
  [2, -1, 0, 6, 10, 0],
  [3, 1, 6, 1, 10, 0],
];
const chains = (rows: readonly unknown[]) => rows.map((row) => JSON.stringify(row)).join("\n");

describe("tierheap replay", () => {
  it("prints policies and tiers beside the optimum, and plots them", async () => {
    const directory = await temporaryDirectory();
    const path = join(directory, "small.kvp.jsonl.gz");
    await writeFile(path, gzipSync(chains(ROWS)));
    const svg = join(directory, "hits.svg");
    const options = ["--policy", "lru", "--capacity", "6", "--capacity", "100", "--svg", svg];
    const { status, stdout, stderr } = tierheap("replay", path, ...options);
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout).toContain("small: 4 requests, 23 accesses, 13 blocks");
    // With room for all, what was there before hits: 4 of the second and 6 of the fourth request.
    expect(stdout).toMatch(new RegExp(`lru +\\d+\\.\\d\\d +${((100 * 10) / 23).toFixed(2)}\n`));
    expect(stdout).toMatch(/optimum +\d+\.\d\d +43\.48\n/);
    expect(stdout).toContain("two tiers");
    const text = await readFile(svg, "utf8");
    expect(text).toMatch(/^<svg [\s\S]*<polyline[\s\S]*<\/svg>\n$/);
    const found = JSON.parse(tierheap("replay", path, ...options.slice(0, 6), "--json").stdout);
    expect(found.policies.map(({ label }: { label: string }) => label)).toEqual(["lru", "optimum"]);
    expect(found.tiers).toHaveLength(8);
  });

  it("reads objects too", async () => {
    const path = join(await temporaryDirectory(), "loop.trace");
    await writeFile(path, Array.from({ length: 100 }, (_, at) => `${at % 5}\n`).join(""));
    const { stdout, status } = tierheap("replay", path, "--capacity", "5", "--policy", "fifo");
    expect(status).toBe(0);
    expect(stdout).toContain("100 accesses, 5 objects");
    expect(stdout).toMatch(/fifo +95\.00\n/);
  });

  const names = (rows: readonly unknown[]) => ["a.kvp.jsonl", chains(rows)] as const;
  it.each([
    ["no JSON", "a.kvp.jsonl", "[1,"],
    ["nothing", "a.kvp.jsonl", ""],
    ["an unknown ending", "a.txt", "1\n"],
    ["a text instead of numbers", ...names([["0", -1, 0, 1, 1, 0]])],
    ["too few numbers", ...names([[0, -1, 0, 1]])],
    ["an object", ...names([{ length: 6 }])],
    ["a parent that comes later", ...names([[0, 0, 0, 1, 1, 0]])],
    ["more shared blocks than there are", ...names([ROWS[0], [1, 0, 5, 0, 0, 0]])],
    ["shared blocks without a parent", ...names([[0, -1, 1, 1, 1, 0]])],
    ["a bomb of blocks", ...names([[0, -1, 0, 1e15, 1, 0]])],
    ["a bomb of many blocks", ...names(Array(2000).fill([0, -1, 0, 2 ** 20, 1, 0]))],
    ["a bomb of a range", "a.lis", "0 1000000000000\n"],
    ["time that goes back", ...names([ROWS[1]?.with(1, -1).with(2, 0), ROWS[0]])],
    ["no gzip", "a.trace.gz", "x"],
  ])("refuses %s in one line", async (_what, name, text) => {
    const path = join(await temporaryDirectory(), name);
    await writeFile(path, text);
    const { status, stderr, stdout } = await runHere("replay", path);
    expect(status).toBe(3);
    expect(stdout).toBe("");
    expect(stderr).toMatch(/^tierheap: [^\n]+\n$/);
  });

  it("refuses an archive that unpacks to too much", async () => {
    const path = join(await temporaryDirectory(), "bomb.trace.gz");
    const member = gzipSync(Buffer.alloc(2 ** 26));
    await writeFile(path, Buffer.concat(Array(10).fill(member)));
    const { status, stderr } = await runHere("replay", path);
    expect(status).toBe(3);
    expect(stderr).toContain("cannot be unpacked");
  });

  it("draws its progress on a terminal only, and takes it away", () => {
    const clock = manualClock();
    const draw = (isTTY: boolean) => {
      let text = "";
      const bar = new ProgressBar({ isTTY, write: (part) => (text += part) }, clock);
      bar.show(0, "first");
      bar.show(0.1, "too soon");
      clock.advance(200);
      bar.show(0.5, "half\u001b[2J");
      bar.end();
      return text;
    };
    expect(draw(false)).toBe("");
    const text = draw(true);
    expect(text).not.toContain("too soon");
    expect(text).toContain(`${"█".repeat(12)}${"░".repeat(12)}  50 %  half\\u{1b}`);
    expect(text.endsWith("\r\u001b[K")).toBe(true);
  });
});
