// Conformance suite of the seam `codec/codec.ts`.
import type { Codec, UnitCoder } from "../codec/codec.js";
import { seededRandom } from "../random.js";
import { DTYPE_NAMES, type Dtype, dtypeTraits, type ErrorLimit } from "../types.js";
import { assert, assertBytes, assertEqual, type ConformanceCase } from "./conformance.js";

const COLUMNS = [1, 7, 64, 128, 1000];
/** Decodes into a little more than there is room for a part. */
const SLACK_BYTES = 64;

/** Bytes of which some get shorter, some do not, and some are no numbers. */
const CONTENTS: readonly (readonly [string, (byteLength: number) => Uint8Array])[] = [
  ["random bytes", randomBytes],
  ["zeros", (byteLength) => new Uint8Array(byteLength)],
  ["ones", (byteLength) => new Uint8Array(byteLength).fill(0xff)],
  ["few values", (byteLength) => randomBytes(byteLength).map((byte) => byte & 3)],
];

function randomBytes(byteLength: number): Uint8Array {
  const random = seededRandom(byteLength);
  return Uint8Array.from({ length: byteLength }, () => random.uint32() & 0xff);
}

/** Roughly normal values. */
function randomValues(count: number): Uint8Array {
  const random = seededRandom(count);
  const values = Float32Array.from({ length: count }, () => {
    let sum = -6;
    for (let draw = 0; draw < 12; draw++) sum += random.uint32() / 2 ** 32;
    return sum;
  });
  return new Uint8Array(values.buffer);
}

function encode(
  coder: UnitCoder,
  bytes: Uint8Array,
  dtype: Dtype,
  columns: number,
  limit: ErrorLimit | null = null,
) {
  const unit = coder.encode({ bytes, dtype, columns, limit, mayFactor: true });
  return { ...unit, bytes: unit.bytes.slice() };
}

/** Decodes what must be intact. */
function decode(coder: UnitCoder, unit: Uint8Array, dtype: Dtype, byteLength: number): Uint8Array {
  const target = new Uint8Array(byteLength + SLACK_BYTES).fill(0xee);
  const decoded = coder.decode(unit, dtype, target);
  assert(decoded !== null, "a unit that was encoded is malformed");
  assertEqual(decoded?.byteLength ?? 0, byteLength, "bytes decoded");
  assert(
    target.subarray(byteLength).every((byte) => byte === 0xee),
    "bytes behind the part changed",
  );
  return target.subarray(0, byteLength);
}

/** @param make Gives the codec under test. */
export function codecConformance(make: () => Promise<Codec>): ConformanceCase[] {
  return [
    {
      name: "has a name, and an id of one byte that is not that of raw records",
      run: async () => {
        const { id, name, unitBytesMax, workspaceBytes } = await make();
        assert(Number.isInteger(id) && id >= 1 && id <= 255, `id ${id} is not from 1 to 255`);
        assert(name.length > 0, "the name is empty");
        assert(Number.isInteger(unitBytesMax), "unitBytesMax is no integer");
        assert(workspaceBytes >= 0, "workspaceBytes is negative");
      },
    },
    {
      name: "gives back every byte of every element type, in units that say how long they are",
      run: async () => {
        const codec = await make();
        const coder = await codec.load();
        for (const dtype of DTYPE_NAMES) {
          const { elementBytes } = dtypeTraits(dtype);
          for (const columns of COLUMNS) {
            const partBytes = coder.partBytes(dtype, columns);
            assert(partBytes >= elementBytes, `${dtype}: a part of ${partBytes} bytes`);
            assertEqual(partBytes % elementBytes, 0, `${dtype}: a part ends in an element`);
            for (const [name, make] of CONTENTS) {
              for (const byteLength of [partBytes, elementBytes, 11 * elementBytes]) {
                const label = `${name}, ${byteLength} bytes of ${dtype}, ${columns} columns`;
                const source = make(byteLength);
                const { bytes, relativeError } = encode(coder, source, dtype, columns);
                assertEqual(relativeError, 0, `${label}: error`);
                assert(bytes.byteLength <= codec.unitBytesMax, `${label}: too long a unit`);
                const head = bytes.subarray(0, coder.headBytes);
                assertEqual(coder.unitBytes(head) ?? 0, bytes.byteLength, `${label}: length`);
                assertBytes(decode(coder, bytes, dtype, byteLength), source, label);
              }
            }
          }
        }
      },
    },
    {
      name: "encodes a part to the same bytes again, and leaves it as it was",
      run: async () => {
        const coder = await (await make()).load();
        const source = randomValues(1024);
        const limit = { metric: "relative", epsilon: 0.05 } as const;
        const first = encode(coder, source, "f32", 64, limit);
        encode(coder, randomBytes(4096), "u8", 1);
        assertBytes(encode(coder, source, "f32", 64, limit).bytes, first.bytes, "the second time");
        assertBytes(source, randomValues(1024), "the source");
      },
    },
    {
      name: "keeps error limits, by its own measure and by ours",
      run: async () => {
        const coder = await (await make()).load();
        const source = randomValues(1024);
        const values = new Float32Array(source.buffer);
        for (const metric of ["relative", "max"] as const) {
          for (const epsilon of [0, 1e-3, 0.01, 0.1, 1]) {
            const unit = encode(coder, source, "f32", 64, { metric, epsilon });
            const decoded = decode(coder, unit.bytes, "f32", source.byteLength).slice();
            let squares = 0;
            let errors = 0;
            let largest = 0;
            let magnitude = 0;
            new Float32Array(decoded.buffer).forEach((value, index) => {
              const original = values[index] as number;
              squares += original ** 2;
              errors += (value - original) ** 2;
              largest = Math.max(largest, Math.abs(value - original));
              magnitude = Math.max(magnitude, Math.abs(original));
            });
            const relative = Math.sqrt(errors / squares);
            const error = metric === "relative" ? relative : largest / magnitude;
            assert(error <= epsilon * 1.000001, `${metric} ${epsilon}: the error is ${error}`);
            assert(Math.abs(unit.relativeError - relative) <= 1e-5, "the relative error told");
            assert(Math.abs(unit.maxError - largest) <= 1e-5 * magnitude, "the largest error told");
          }
        }
      },
    },
    {
      name: "refuses what is malformed, of another type or too long, without an error",
      run: async () => {
        const codec = await make();
        const coder = await codec.load();
        const source = randomValues(512);
        const { bytes } = encode(coder, source, "f32", 64);
        const target = new Uint8Array(source.byteLength);
        assert(coder.decode(bytes, "f32", target) !== null, "an intact unit was refused");
        assert(coder.decode(bytes, "i32", target) === null, "another type was taken");
        const short = target.subarray(0, source.byteLength - 4);
        assert(coder.decode(bytes, "f32", short) === null, "more than the target was taken");
        const cut = bytes.subarray(0, bytes.byteLength - 1);
        assert(coder.decode(cut, "f32", target) === null, "a unit that was cut was taken");
        const longer = new Uint8Array(bytes.byteLength + 1);
        longer.set(bytes);
        assert(coder.decode(longer, "f32", target) === null, "a byte too many was taken");
        const noise = new Uint8Array(coder.headBytes).fill(0xff);
        assert(coder.unitBytes(noise) === null, "noise was taken for a head");
        const random = seededRandom(7);
        for (let round = 0; round < 300; round++) {
          const broken = bytes.slice();
          const at = random.uint32() % (round % 2 === 0 ? coder.headBytes : broken.byteLength);
          broken[at] = (broken[at] as number) ^ (1 << (random.uint32() & 7));
          const unitBytes = coder.unitBytes(broken);
          assert((unitBytes ?? 0) <= codec.unitBytesMax, "a unit longer than any");
          // May go unnoticed in the values, but never ends in an error.
          coder.decode(broken, "f32", target);
        }
        assertBytes(decode(coder, bytes, "f32", source.byteLength), source, "an intact unit");
      },
    },
  ];
}
