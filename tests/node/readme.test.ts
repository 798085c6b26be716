// The README's example type-checks and runs as it stands there.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const require = createRequire(import.meta.url);
const tsc = join(dirname(require.resolve("typescript/package.json")), "bin", "tsc");

test("the README's example prints what it stored", { timeout: 60_000 }, () => {
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const example = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
  expect(example.trim().split("\n").length).toBeLessThanOrEqual(12);
  // Inside the package, so that its own name resolves; away from its root, so that the directory
  // that the example leaves behind does too.
  mkdirSync(join(root, "build"), { recursive: true });
  const folder = mkdtempSync(join(root, "build", "readme-"));
  try {
    writeFileSync(join(folder, "example.ts"), example);
    const run = (...args: string[]) =>
      spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
    const compiled = run(
      tsc,
      ...[
        "--ignoreConfig",
        "--module",
        "nodenext",
        "--target",
        "es2022",
        "--strict",
        "--skipLibCheck",
      ],
      ...["--lib", "es2024,esnext.disposable,dom", "example.ts"],
    );
    expect(compiled.stdout).toBe("");
    const { stdout, stderr, status } = run("example.js");
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout).toMatch(/^0\.5 RAM budget/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
