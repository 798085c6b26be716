// The command `tierheap`, as a process of its own and in this one.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runCli } from "../../src/cli/cli.js";

export const root = fileURLToPath(new URL("../../", import.meta.url));
export const main = join(root, "dist", "src", "cli", "main.js");

export function tierheap(...args: string[]) {
  return spawnSync(process.execPath, [main, ...args], { encoding: "utf8", timeout: 60_000 });
}

/** Runs a command here; for what does not depend on being a process. */
export async function runHere(...args: string[]) {
  let stdout = "";
  let stderr = "";
  const io = {
    out: { write: (text: string) => (stdout += text) },
    err: { write: (text: string) => (stderr += text) },
  };
  return { status: await runCli(args, io), stdout, stderr };
}
