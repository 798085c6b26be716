// The documents' tables are what is kept of benches and harnesses, and nobody's typing.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { RUNS } from "../../scripts/figure-runs.mjs";
import { fill, shownIds, take } from "../../scripts/figure-tables.mjs";
import { readFigures } from "../../scripts/figures.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const DOCUMENTS = ["docs/performance.md", "docs/reliability.md"];
const read = (path: string) => readFileSync(join(root, path), "utf8");

const RUN = {
  environment: { node: "v20", load: 1.25 },
  command: "node a.mjs",
  seed: 7,
  figures: [
    { id: "a/speed", value: 2.5, unit: "", target: 2, met: true, beside: "plain 1" },
    { id: "a/size", value: 3 * 2 ** 20, unit: "bytes", target: 2 ** 20, met: false },
    { id: "a/share", value: 0.125, unit: "share" },
    { id: "a/none", value: Number.NaN, unit: "ms" },
  ],
};
const MARKED = "before\n<!-- figures: a/* -->\nold\n<!-- /figures -->\nafter\n";

describe("the documents", () => {
  it.each(DOCUMENTS)("%s has the figures that are kept", (path) => {
    const document = read(path);
    expect(document.match(/<!-- figures:/g)?.length ?? 0).toBeGreaterThanOrEqual(5);
    expect(document.match(/<!-- \/figures -->/g)).toHaveLength(
      document.match(/<!-- figures:/g)?.length ?? 0,
    );
    expect(fill(document, readFigures())).toBe(document);
  });

  it("show all that is kept, with the command that printed it", () => {
    const isShown = shownIds(DOCUMENTS.map(read));
    const kept = readFigures();
    expect(kept.length).toBeGreaterThan(200);
    expect(kept.filter(({ id }) => !isShown(id)).map(({ id }) => id)).toEqual([]);
    expect(kept.filter(({ command }) => command === undefined).map(({ id }) => id)).toEqual([]);
  });

  it("name no place of the machine that filled them", () => {
    for (const { id, command = "" } of readFigures()) {
      expect(`${id}: ${command}`).not.toMatch(/ \/|\.\./);
    }
  });
});

describe("what can be run", () => {
  it("is there, under a name of its own", () => {
    expect(new Set(RUNS.map(({ name }) => name)).size).toBe(RUNS.length);
    for (const { program } of RUNS) {
      // What is built from examples is there after a build.
      const source = program.replace(/^build\/(.*)\.js$/, "$1.ts");
      expect(existsSync(join(root, source)), program).toBe(true);
    }
  });

  it("has every bench of the package's scripts", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    const programs = new Set(RUNS.map(({ program }) => program));
    const benches = Object.entries(scripts).filter(([name]) => name.startsWith("bench:"));
    expect(benches.length).toBeGreaterThan(5);
    for (const [name, line] of benches) {
      expect(programs, name).toContain(/bench\/\S+\.mjs$/.exec(line)?.[0]);
    }
  });
});

describe("a table", () => {
  const kept = take([], RUN);

  it("shows value, unit, target, on which side of it the value should be, and what it missed", () => {
    expect(fill(MARKED, kept)).toBe(
      [
        "before",
        "<!-- figures: a/* -->",
        "| Figure | Seen | Target | Beside |",
        "|---|---:|---:|---|",
        "| `a/speed` | 2.5 | ≥ 2 | plain 1 |",
        "| `a/size` | 3 MiB | ≤ 1 MiB, missed |  |",
        "| `a/share` | 12.5 % |  |  |",
        "",
        "By `node a.mjs` with seed 7 (load 1.3).",
        "<!-- /figures -->",
        "after",
        "",
      ].join("\n"),
    );
  });

  it("shows the words for a figure, in the order that is asked for, and each figure once", () => {
    const asked = ["<!-- figures:", "a/size: what it takes", "a/*", "-->", "<!-- /figures -->"];
    const filled = fill(asked.join("\n"), kept);
    const rows = filled.split("\n").filter((line) => line.startsWith("| ") && line.includes("`a/"));
    expect(rows.map((row) => row.split(" | ")[0])).toEqual([
      "| what it takes (`a/size`)",
      "| `a/speed`",
      "| `a/share`",
    ]);
    expect(fill(filled, kept)).toBe(filled);
  });

  it("shows the middle of several runs and how far they lie apart", () => {
    const again = (value: number, isFresh = false) =>
      [{ figures: [{ id: "a/speed", value, target: 2, met: value >= 2 }] }, { isFresh }] as const;
    const more = take(take(kept, ...again(3)), ...again(1));
    const shown = "| `a/speed` | 2.5 (1 to 3 in 3 runs) | ≥ 2, missed in 1 of 3 |";
    expect(fill(MARKED, more)).toContain(shown);
    const many = Array.from({ length: 9 }).reduce<typeof more>(
      (all) => take(all, ...again(4)),
      more,
    );
    expect(fill(MARKED, many)).toContain("| `a/speed` | 4 (in 5 runs) | ≥ 2 |");
    expect(fill(MARKED, take(many, ...again(9, true)))).toContain("| `a/speed` | 9 | ≥ 2 |");
  });

  it("is refused when nothing is kept under its name", () => {
    expect(() => fill("<!-- figures: b/* -->\n<!-- /figures -->", kept)).toThrow("b/*");
  });
});
