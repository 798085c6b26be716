// Runs every bench, each in a process of its own. Never fails on time.
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = dirname(fileURLToPath(import.meta.url));
for (const name of ["core/run", "ram", "leak", "store"]) {
  const { status } = spawnSync(process.execPath, ["--expose-gc", join(folder, `${name}.mjs`)], {
    stdio: "inherit",
  });
  if (status !== 0) process.exitCode = 1;
}
