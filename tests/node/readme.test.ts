// The code of the README and of the guides type-checks and runs as it stands there, and prints what they say.
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { buildDecoder } from "../../examples/chat/model/decoder.js";
import { blocksOf, checkedOf, outputOf, programOf } from "../support/documents.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const require = createRequire(import.meta.url);
const tsc = join(dirname(require.resolve("typescript/package.json")), "bin", "tsc");
const OPTIONS = [
  ...["--ignoreConfig", "--module", "nodenext", "--target", "es2022", "--strict"],
  ...["--skipLibCheck", "--types", "node", "--lib", "es2024,esnext.disposable,dom"],
];
/** A model for programs that want one. */
const MODEL = () =>
  buildDecoder({
    ...{ layers: 2, hidden: 64, heads: 4, kvHeads: 2 },
    ...{ vocabulary: 64, positions: 512, seed: 1, attentionSharpness: 6 },
  });
const LANGUAGES = ["ts", "sh", "text", "html"];

const guides = readdirSync(join(root, "docs", "guides"))
  .filter((name) => name.endsWith(".md"))
  .map((name) => `docs/guides/${name}`);
const documents = ["README.md", ...guides];

/**
 * Compiles a document's code and runs its program in a folder inside the package, so that its own name
 * resolves, and away from its root, so that what it leaves behind goes, too.
 */
function runProgram(program: string, checked: string): string {
  mkdirSync(join(root, "build"), { recursive: true });
  const folder = mkdtempSync(join(root, "build", "document-"));
  try {
    writeFileSync(join(folder, "example.ts"), program);
    writeFileSync(join(folder, "checked.ts"), checked);
    if (program.includes("model.onnx")) writeFileSync(join(folder, "model.onnx"), MODEL());
    const run = (...args: string[]) =>
      spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
    expect(run(tsc, ...OPTIONS, "example.ts", "checked.ts").stdout).toBe("");
    const { stdout, stderr, status } = run("example.js");
    expect(stderr).toBe("");
    expect(status).toBe(0);
    return stdout;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What a line of shell needs that is not there. */
function missingIn(line: string): string[] {
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const own = ["ci", "install", "start", "test"];
  const commands = /npx tierheap (\w+)/.exec(line);
  return [
    ...[...line.matchAll(/npm run ([\w:-]+)/g)]
      .map(([, name]) => name as string)
      .filter((name) => scripts[name] === undefined),
    ...[...line.matchAll(/npm (?!run\b)(\w+)/g)]
      .map(([, name]) => name as string)
      .filter((name) => !own.includes(name)),
    ...[...line.matchAll(/node ((?:scripts|bench|examples)\/\S+)/g)]
      .map(([, path]) => path as string)
      .filter((path) => !existsSync(join(root, path))),
    ...(commands !== null && !existsSync(join(root, "src", "cli", `${commands[1]}.ts`))
      ? [line]
      : []),
  ];
}

describe.each(documents)("%s", (path) => {
  const blocks = blocksOf(join(root, path));

  it("has blocks of known languages only", () => {
    const unknown = blocks.filter(({ language }) => !LANGUAGES.includes(language));
    expect(unknown.map(({ text }) => text)).toEqual([]);
  });

  const program = programOf(blocks, "program");
  const checked = checkedOf(blocks);
  it.skipIf(checked === "")("type-checks, and prints what it says", { timeout: 60_000 }, () => {
    const printed = runProgram(program, checked);
    if (path === "README.md") expect(printed).toMatch(/^0\.5 RAM budget/);
    else if (program !== "") expect(printed.trimEnd().split("\n")).toEqual(outputOf(blocks));
  });

  it("names commands that exist", () => {
    const lines = blocks.filter(({ language }) => language === "sh").map(({ text }) => text);
    expect(lines.flatMap((text) => text.split("\n")).flatMap(missingIn)).toEqual([]);
  });
});

describe("what is checked", () => {
  it("is no less than the guides that there are", () => {
    const programs = documents.filter((path) => programOf(blocksOf(join(root, path)), "program"));
    expect(programs.length).toBeGreaterThanOrEqual(6);
  });

  it("in the README is short", () => {
    const [example] = blocksOf(join(root, "README.md")).filter(({ language }) => language === "ts");
    expect(example?.text.trim().split("\n").length).toBeLessThanOrEqual(12);
  });

  it("finds commands that do not exist", () => {
    expect(
      missingIn("npm run nothing && node scripts/none.mjs && npx tierheap none DIR"),
    ).toHaveLength(3);
    expect(
      missingIn("npm ci && npm run check && node scripts/size.mjs && npx tierheap verify DIR"),
    ).toEqual([]);
  });
});
