// A memory map as a picture and as a table.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { runCli } from "../../src/cli/cli.js";
import { mapSvg } from "../../src/metrics.js";
import type { MemoryMap } from "../../src/stats/memory-map.js";
import { temporaryDirectory } from "../support/directories.js";
import { closeMemory, openMemory } from "../support/oracle.js";

async function run(...args: string[]) {
  let [stdout, stderr] = ["", ""];
  const status = await runCli(args, {
    out: { write: (text: string) => (stdout += text) },
    err: { write: (text: string) => (stderr += text) },
  });
  return { status, stdout, stderr };
}

const countOf = (text: string, part: string) => text.split(part).length - 1;

describe("tierheap map", () => {
  it("draws a box for each block, and says what it is", async () => {
    const memory = await openMemory();
    for (let index = 0; index < 5; index++) {
      memory.allocate({ kind: "KV_CACHE", id: `<${index}>&"\u0001`, byteLength: 200_000 });
    }
    const pin = memory.allocate({ kind: "ACTIVATIONS", byteLength: 500_000 }).pin();
    const file = join(await temporaryDirectory(), "map.json");
    const svg = join(await temporaryDirectory(), "map.svg");
    await writeFile(file, JSON.stringify(await memory.map()));
    expect(await run("map", file, "-o", svg)).toEqual({ status: 0, stdout: "", stderr: "" });
    const picture = await readFile(svg, "utf8");
    expect(countOf(picture, 'class="arena"')).toBe(2);
    expect(countOf(picture, 'class="block')).toBe(6);
    expect(countOf(picture, 'class="block pinned"')).toBe(1);
    expect(picture).toContain("&lt;3&gt;&amp;&quot;?: 195 KiB in 196 KiB");
    expect(countOf(picture, "<title>")).toBe(countOf(picture, "</title>"));
    expect(countOf(picture, "<3>")).toBe(0);
    expect((await run("map", file)).stdout).toBe(picture);
    const table = await run("map", file, "--table");
    expect(table.stdout).toMatch(/KV_CACHE +2\.0 MiB +5 +0 +977 KiB/);
    pin[Symbol.dispose]();
    await closeMemory(memory);
  });

  it("stays small when there are many blocks", () => {
    const blocks = Array.from({ length: 50_000 }, (_, index) => ({
      ...{ offset: index * 64, byteLength: 64, requestedBytes: 60 },
      ...({ kind: "KV_CACHE", id: null, isPinned: false } as const),
    }));
    const arena = { id: 1, kind: "KV_CACHE", byteLength: 64 * 50_000, blocks } as const;
    const picture = mapSvg({ arenas: [arena] });
    expect(picture.length).toBeLessThan(400_000);
    expect(countOf(picture, 'class="block"')).toBeGreaterThan(300);
    expect(mapSvg({ arenas: [] })).toContain("0 arenas");
  });

  it("refuses what is no map, in one line", async () => {
    const file = join(await temporaryDirectory(), "map.json");
    const block = {
      ...{ offset: 0, byteLength: 64, requestedBytes: 60, kind: "KV_CACHE" },
      ...{ id: null, isPinned: false },
    };
    const mapOf = (...blocks: object[]) => ({
      arenas: [{ id: 1, kind: "KV_CACHE", byteLength: 1000, blocks }],
    });
    await writeFile(file, JSON.stringify(mapOf(block) satisfies object as MemoryMap));
    expect((await run("map", file)).status).toBe(0);
    for (const wrong of [
      "{",
      "null",
      "{}",
      JSON.stringify({ arenas: [null] }),
      JSON.stringify(mapOf({ ...block, offset: -1 })),
      JSON.stringify(mapOf({ ...block, byteLength: 1001 })),
      JSON.stringify(mapOf(block, block)),
      JSON.stringify(mapOf({ ...block, kind: "<script>" })),
      JSON.stringify(mapOf({ ...block, id: 3 })),
      JSON.stringify(mapOf({ ...block, isPinned: "no" })),
    ]) {
      await writeFile(file, wrong);
      const { status, stdout, stderr } = await run("map", file);
      expect([wrong, status, stdout]).toEqual([wrong, 3, ""]);
      expect(stderr.trim().split("\n")).toHaveLength(1);
    }
    expect((await run("map", join(file, "none"))).status).toBe(3);
  });
});
