// Conformance suite of the seam `codec/codec.ts`, for lossless codecs.
import type { Codec } from "../codec/codec.js";
import { seededRandom } from "../random.js";
import { DTYPE_NAMES, dtypeTraits } from "../types.js";
import { assert, assertBytes, assertEqual, type ConformanceCase } from "./conformance.js";

function randomBytes(byteLength: number, seed: number): Uint8Array {
  const random = seededRandom(seed);
  return Uint8Array.from({ length: byteLength }, () => random.uint32() & 0xff);
}

/** @param make Gives the codec under test. */
export function codecConformance(make: () => Promise<Codec>): ConformanceCase[] {
  return [
    {
      name: "has an id of one byte and a name",
      run: async () => {
        const { id, name } = await make();
        assert(Number.isInteger(id) && id >= 0 && id <= 255, `id ${id} is not a byte`);
        assert(name.length > 0, "the name is empty");
      },
    },
    {
      name: "gives back every byte of every element type",
      run: async () => {
        const codec = await make();
        assert(codec.isLossless, "this suite is for lossless codecs");
        for (const dtype of DTYPE_NAMES) {
          const source = randomBytes(dtypeTraits(dtype).elementBytes * 1000, 1);
          const encoded = new Uint8Array(codec.storedBytes(source.byteLength, dtype));
          assertEqual(codec.encode(source, encoded), encoded.byteLength, `${dtype}: bytes encoded`);
          const decoded = new Uint8Array(source.byteLength);
          assertEqual(
            codec.decode(encoded, decoded),
            decoded.byteLength,
            `${dtype}: bytes decoded`,
          );
          assertBytes(decoded, source, `${dtype}: the decoded bytes`);
        }
      },
    },
    {
      name: "works chunk by chunk, cut anywhere",
      run: async () => {
        const codec = await make();
        const source = randomBytes(4096, 2);
        for (const chunkBytes of [1, 7, 256, 4095]) {
          const encoded: number[] = [];
          const target = new Uint8Array(8192);
          for (let offset = 0; offset < source.byteLength; offset += chunkBytes) {
            const chunk = source.subarray(offset, offset + chunkBytes);
            encoded.push(...target.subarray(0, codec.encode(chunk, target)));
          }
          const whole = new Uint8Array(codec.storedBytes(source.byteLength, "u8"));
          codec.encode(source, whole);
          assertBytes(Uint8Array.from(encoded), whole, `chunks of ${chunkBytes}`);
        }
      },
    },
    {
      name: "leaves the source, and the target behind what it wrote, as they were",
      run: async () => {
        const codec = await make();
        const source = randomBytes(100, 3);
        const target = new Uint8Array(300).fill(0xee);
        const count = codec.encode(source, target);
        assertBytes(source, randomBytes(100, 3), "the source");
        assert(
          target.subarray(count).every((byte) => byte === 0xee),
          "bytes behind the encoded ones changed",
        );
      },
    },
  ];
}
