// Reloads, crashes and kills a real browser while it saves tensors: the long form of
// tests/browser/kill.test.ts.
//
//   node scripts/browser-kill.mjs [--cycles 200] [--seed N] [--json FILE]
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { binary, root } from "./steps.mjs";

const { values } = parseArgs({
  options: { cycles: { type: "string" }, seed: { type: "string" }, json: { type: "string" } },
});
const { status } = spawnSync(
  process.execPath,
  [binary("vitest", "vitest.mjs"), "run", "--project", "browser", "tests/browser/kill.test.ts"],
  {
    cwd: root,
    stdio: "inherit",
    env: {
      ...process.env,
      TIERHEAP_KILL_CYCLES: values.cycles ?? "200",
      TIERHEAP_KILL_SEED: values.seed ?? String(Date.now() % 2 ** 31),
      ...(values.json === undefined ? {} : { TIERHEAP_KILL_JSON: resolve(values.json) }),
    },
  },
);
process.exitCode = status ?? 1;
