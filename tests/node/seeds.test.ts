// The map of what was asked for: its files exist, its names are declared where it says, its figures have
// their lines.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const read = (path: string) => readFileSync(join(root, path), "utf8");
const COLUMNS = ["Asked for", "Name here", "Where", "Test", "Figure", "State"];
const ROW_COUNT_MIN = 40;

interface Row {
  readonly asked: string;
  readonly names: readonly string[];
  readonly files: readonly string[];
  readonly tests: readonly string[];
  readonly figures: readonly string[];
}

const quoted = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map(([, text]) => text as string);

function rowsOf(document: string): Row[] {
  const rows: Row[] = [];
  for (const line of document.split("\n")) {
    if (!line.startsWith("| ") || line.startsWith(`| ${COLUMNS[0]}`)) continue;
    const cells = line
      .slice(1, -1)
      .split("|")
      .map((cell) => cell.trim());
    if (cells.length !== COLUMNS.length) throw new Error(`${cells.length} cells: ${line}`);
    const [asked = "", names = "", files = "", tests = "", figures = ""] = cells;
    rows.push({
      asked,
      names: quoted(names),
      files: quoted(files),
      tests: quoted(tests),
      figures: quoted(figures),
    });
  }
  return rows;
}

/** The text of a file, or of all files of a folder. */
function textOf(path: string): string {
  const place = join(root, path);
  if (!existsSync(place)) return "";
  if (!statSync(place).isDirectory()) return read(path);
  return readdirSync(place, { recursive: true })
    .map((name) => join(path, String(name)))
    .filter((file) => statSync(join(root, file)).isFile())
    .map(read)
    .join("\n");
}

/** Whether a file declares the name for others, or passes it on. */
function exports(text: string, name: string): boolean {
  const declared = `export (?:declare |async |abstract )*(?:function|class|interface|type|const) ${name}\\b`;
  const passed = `export (?:type )?\\{[^}]*\\b${name}\\b`;
  return new RegExp(`${declared}|${passed}`).test(text);
}

const figureTexts = read("docs/performance.md") + read("docs/reliability.md");

function problemsOf({ asked, names, files, tests, figures }: Row): string[] {
  const texts = files.map(textOf);
  return [
    ...(files.length === 0 ? [`${asked}: it says no place`] : []),
    ...[...files, ...tests]
      .filter((path) => !existsSync(join(root, path)))
      .map((path) => `${asked}: ${path} does not exist`),
    ...names
      .filter((name) => !texts.some((text) => exports(text, name)))
      .map((name) => `${asked}: ${name} is not exported there`),
    ...figures
      .filter((id) => !figureTexts.includes(`\`${id}\``))
      .map((id) => `${asked}: there is no figure ${id}`),
  ];
}

describe("the map of the seeds", () => {
  const rows = rowsOf(read("docs/seeds.md"));

  it("has as many rows as there were promises", () => {
    expect(rows.length).toBeGreaterThanOrEqual(ROW_COUNT_MIN);
  });

  it("names files, exports and figures that exist", () => {
    expect(rows.flatMap(problemsOf)).toEqual([]);
  });

  it("would not pass with a wrong one", () => {
    const wrong =
      "| x | `NoName` | `src/types.ts`, `src/none.ts` | `tests/none.ts` | `none/none` | y |";
    expect(rowsOf(wrong).flatMap(problemsOf)).toHaveLength(4);
  });
});
