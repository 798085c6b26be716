// What the demo page costs its visitors: runs its scripted session in Chromium and prints what it noted.
//
//   npm run bench:demo [-- --json FILE]
//
// Fails when the session does. Writes build/demo-figures.json.
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { binary, root } from "../scripts/steps.mjs";
import { report } from "./support.mjs";

const FILE = "build/demo-figures.json";

process.chdir(root);
// Figures of an earlier run are none of this one.
rmSync(FILE, { force: true });
const args = ["run", "--project", "browser", "tests/browser/demo.test.ts"];
const { status } = spawnSync(process.execPath, [binary("vitest", "vitest.mjs"), ...args], {
  stdio: "inherit",
});
report("demo", JSON.parse(readFileSync(FILE, "utf8")).figures);
process.exitCode = status ?? 1;
