// Malformed units: mutated, cut, and made up. Whatever comes, the reader says so with its own error, and
// takes no more memory than its cap.
import { writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { AdaptiveCompressor, type Choice, type Matrix } from "../../src/codecs.js";
import { CorruptionError } from "../../src/errors.js";
import { seededRandom } from "../../src/random.js";

const SEED = Number(process.env["TIERHEAP_SEED"] ?? 20_261);
const MUTANTS = Number(process.env["TIERHEAP_CODEC_FUZZ"] ?? 200_000);
/** Where scripts/codec-fuzz.mjs wants the counts. */
const COUNTS_FILE = process.env["TIERHEAP_CODEC_FUZZ_FILE"];
const ORIGINAL_BYTES_MAX = 2 ** 18;

const CHOICES: Choice[] = [
  { codec: "raw" },
  { codec: "plane" },
  { codec: "half" },
  { codec: "q8" },
  { codec: "q4" },
  { codec: "chan", bits: 3 },
  { codec: "lm", bits: 4 },
  { codec: "sparse", threshold: 0.6 },
  { codec: "lowrank", rank: 3, variant: "q8" },
  { codec: "pca", bitsPerValue: 3 },
];

test(`${MUTANTS} malformed units, seed ${SEED}`, { timeout: 3_600_000 }, async () => {
  const compressor = await AdaptiveCompressor.create({ workspaceBytes: 2 ** 23 });
  const { engine } = compressor;
  const random = seededRandom(SEED);
  const draw = (bound: number) => random.uint32() % bound;
  const values = Float32Array.from({ length: 16 * 32 }, () => random.uint32() / 2 ** 31 - 1);
  const bytes = new Uint8Array(values.buffer);
  const matrix: Matrix = { bytes, dtype: "f32", rows: 16, columns: 32 };
  const units = CHOICES.map((choice) => engine.encode(matrix, choice).bytes);
  let refused = 0;
  let decoded = 0;
  for (let round = 0; round < MUTANTS; round++) {
    const base = units[draw(units.length)] as Uint8Array;
    const mutant = base.slice(0, draw(8) === 0 ? draw(base.byteLength + 1) : base.byteLength);
    for (let edits = draw(4); edits >= 0 && mutant.byteLength > 0; edits--) {
      // Most edits hit the header, where they matter most.
      const at = draw(3) > 0 ? draw(Math.min(64, mutant.byteLength)) : draw(mutant.byteLength);
      const kind = draw(4);
      const before = mutant[at] as number;
      if (kind === 0) mutant[at] = random.uint32();
      else if (kind === 1) mutant[at] = before ^ (1 << draw(8));
      else if (kind === 2) mutant[at] = before + 1;
      else mutant[at] = [0, 255, 127, 128][draw(4)] as number;
    }
    try {
      const found = engine.decode(mutant, ORIGINAL_BYTES_MAX);
      expect(found.bytes.byteLength).toBeLessThanOrEqual(ORIGINAL_BYTES_MAX);
      decoded++;
    } catch (error) {
      if (!(error instanceof CorruptionError)) {
        throw new Error(`seed ${SEED}, round ${round}`, { cause: error });
      }
      refused++;
    }
  }
  expect(refused + decoded).toBe(MUTANTS);
  expect(refused).toBeGreaterThan(MUTANTS / 3);
  expect(decoded).toBeGreaterThan(MUTANTS / 50);
  // The workspace is whole: what was good is good.
  for (const unit of units) expect(engine.decode(unit).rows).toBe(16);
  if (COUNTS_FILE !== undefined) {
    const faults = MUTANTS - refused - decoded;
    writeFileSync(COUNTS_FILE, JSON.stringify({ mutants: MUTANTS, refused, decoded, faults }));
  }
});
