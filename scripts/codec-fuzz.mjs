// Malformed units by the million, through the test that does fewer of them in `npm test`.
//
//   node scripts/codec-fuzz.mjs [--mutants N] [--seed N] [--json FILE]
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeFigures } from "../bench/support.mjs";
import { binary, root, runNode } from "./steps.mjs";

const { values } = parseArgs({
  options: {
    mutants: { type: "string", default: "10000000" },
    seed: { type: "string", default: "1" },
    json: { type: "string" },
  },
});
const countsFile = join(root, "build", "codec-fuzz.json");
rmSync(countsFile, { force: true });
const args = ["run", "--project", "node", "tests/node/codec-fuzz.test.ts"];
const env = {
  TIERHEAP_CODEC_FUZZ: values.mutants,
  TIERHEAP_CODEC_FUZZ_FILE: countsFile,
  TIERHEAP_SEED: values.seed,
};
const { code } = await runNode(binary("vitest", "vitest.mjs"), args, { env });
console.log(
  `${code === 0 ? "ok  " : "FAIL"} ${values.mutants} malformed units, seed ${values.seed}`,
);
if (code === 0 && values.json !== undefined) {
  const { mutants, refused, decoded, faults } = JSON.parse(readFileSync(countsFile, "utf8"));
  const atLeast = (id, value, target) => ({
    id,
    value,
    unit: "units",
    target,
    met: value >= target,
  });
  const figures = [
    atLeast("codec-fuzz/units", mutants, 10_000_000),
    atLeast("codec-fuzz/refused", refused, Math.ceil(mutants / 3)),
    atLeast("codec-fuzz/decoded", decoded, Math.ceil(mutants / 50)),
    {
      ...{
        id: "codec-fuzz/other-errors",
        value: faults,
        unit: "units",
        target: 0,
        met: faults === 0,
      },
      beside: "than the reader's own",
    },
  ];
  writeFigures(values.json, figures, Number(values.seed));
}
process.exitCode = code;
