// The digest that names records, against the standard's example and the platform's own.
import { createHash } from "node:crypto";
import { expect, it } from "vitest";
import { seededRandom } from "../../src/random.js";
import { sha256Hex } from "../../src/util/sha256.js";
import { withSeed } from "../support/oracle.js";

it("gives the digests of the standard's examples", () => {
  const encoder = new TextEncoder();
  expect(sha256Hex(encoder.encode("abc"))).toBe(
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
  expect(sha256Hex(new Uint8Array(0))).toBe(
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
  );
});

it("agrees with the platform at every length around its blocks, and at some long ones", async () => {
  await withSeed("sha256", async (seed) => {
    const random = seededRandom(seed);
    const lengths = [...Array(260).keys(), 4096, 49_152 + 4096 + 40, 100_003];
    for (const byteLength of lengths) {
      const bytes = new Uint8Array(byteLength).map(() => random.uint32());
      const expected = createHash("sha256").update(bytes).digest("hex");
      expect(sha256Hex(bytes), `${byteLength} bytes`).toBe(expected);
    }
  });
});
