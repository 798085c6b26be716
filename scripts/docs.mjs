// Makes the API reference in build/api. typedoc lives in a package of its own, docs/api, because it
// wants an earlier TypeScript than the project's; it is installed when it is not there. A warning fails.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { root, runNode } from "./steps.mjs";

const folder = join(root, "docs", "api");
const typedoc = join(folder, "node_modules", "typedoc", "bin", "typedoc");

async function main() {
  // The sources import bytes that the build makes.
  const built = await runNode(join(root, "scripts", "build.mjs"), ["--wasm"], { isQuiet: true });
  if (built.code !== 0) return built.code;
  if (!existsSync(typedoc)) {
    const npm = process.platform === "win32" ? "npm.cmd" : "npm";
    const { status } = spawnSync(npm, ["ci"], { cwd: folder, stdio: "inherit" });
    if (status !== 0) return status ?? 1;
  }
  const made = await runNode(typedoc, ["--options", join(folder, "typedoc.json")]);
  if (made.code === 0) console.log("build/api/index.html");
  return made.code;
}

process.exitCode = await main();
