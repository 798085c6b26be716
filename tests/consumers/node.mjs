// A program of Node that has the package installed. Prints its outcome as JSON.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as tierheap from "tierheap";
import { exercise } from "./exercise.mjs";

const SUBPATHS = [
  ...["node", "codecs", "layout", "kv", "policies", "testing", "tiers/redis"],
  ...["adapters/ort", "adapters/ort-webgpu", "adapters/tfjs", "adapters/safetensors"],
  "adapters/transformers",
];

const directory = mkdtempSync(join(tmpdir(), "tierheap-consumer-"));
try {
  const outcome = await exercise(tierheap, { ssd: { directory } });
  for (const subpath of SUBPATHS) {
    const exports = Object.keys(await import(`tierheap/${subpath}`));
    if (exports.length === 0) outcome.wrong.push(`tierheap/${subpath} exports nothing`);
  }
  console.log(JSON.stringify(outcome));
} finally {
  rmSync(directory, { recursive: true, force: true });
}
