// Malformed units by the million, through the test that does fewer of them in `npm test`.
//
//   node scripts/codec-fuzz.mjs [--mutants N] [--seed N]
import { parseArgs } from "node:util";
import { binary, runNode } from "./steps.mjs";

const { values } = parseArgs({
  options: {
    mutants: { type: "string", default: "10000000" },
    seed: { type: "string", default: "1" },
  },
});
const args = ["run", "--project", "node", "tests/node/codec-fuzz.test.ts"];
const env = { TIERHEAP_CODEC_FUZZ: values.mutants, TIERHEAP_SEED: values.seed };
const { code } = await runNode(binary("vitest", "vitest.mjs"), args, { env });
console.log(
  `${code === 0 ? "ok  " : "FAIL"} ${values.mutants} malformed units, seed ${values.seed}`,
);
process.exitCode = code;
