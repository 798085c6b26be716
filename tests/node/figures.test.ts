// The documents' tables are what is kept of benches and harnesses, and nobody's typing.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { fill, readFigures, take } from "../../scripts/figures.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const DOCUMENTS = ["docs/performance.md", "docs/reliability.md"];
const read = (path: string) => readFileSync(join(root, path), "utf8");

const RUN = {
  environment: { node: "v20" },
  figures: [
    { id: "a/speed", value: 2.5, unit: "", target: 2, met: true, beside: "plain 1" },
    { id: "a/size", value: 3 * 2 ** 20, unit: "bytes", target: 2 ** 20, met: false },
    { id: "a/none", value: Number.NaN, unit: "ms" },
  ],
};
const MARKED = "before\n<!-- figures: a/* -->\nold\n<!-- /figures -->\nafter\n";

describe("the documents", () => {
  it.each(DOCUMENTS)("%s has the figures that are kept", (path) => {
    const document = read(path);
    expect(document.match(/<!-- figures: /g)?.length ?? 0).toBeGreaterThanOrEqual(1);
    expect(fill(document, readFigures())).toBe(document);
  });
});

describe("a table", () => {
  const kept = take([], RUN);

  it("shows value, unit, target, on which side of it the value should be, and what it missed", () => {
    expect(fill(MARKED, kept)).toBe(
      [
        "before",
        "<!-- figures: a/* -->",
        "| Figure | Seen | Target | Runs | |",
        "|---|---:|---:|---:|---|",
        "| `a/speed` | 2.5 | ≥ 2 | 1 | plain 1 |",
        "| `a/size` | 3 MiB | ≤ 1 MiB, missed in 1 of 1 | 1 |  |",
        "<!-- /figures -->",
        "after",
        "",
      ].join("\n"),
    );
  });

  it("shows the middle of several runs and how far they lie apart", () => {
    const again = (value: number) => ({
      figures: [{ id: "a/speed", value, target: 2, met: true }],
    });
    const more = take(take(kept, again(3)), again(9));
    expect(fill(MARKED, more)).toContain("| `a/speed` | 3 (2.5 to 9) | ≥ 2 | 3 |");
    const many = Array.from({ length: 9 }).reduce<typeof more>((all) => take(all, again(4)), more);
    expect(fill(MARKED, many)).toContain("| `a/speed` | 4 | ≥ 2 | 5 |");
  });

  it("is refused when nothing is kept under its name", () => {
    expect(() => fill("<!-- figures: b/* -->\n<!-- /figures -->", kept)).toThrow("b/*");
  });
});
