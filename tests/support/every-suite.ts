// Runs in every test file: whatever a test did, the figures of each memory that it made must add up.
import { afterAll, afterEach, expect } from "vitest";
import { checkAll, memoryCounts } from "./made-memories.js";

/** The bytes of a view that is not a DataView, or undefined. */
function bytesOf(value: unknown): Buffer | undefined {
  if (!ArrayBuffer.isView(value) || value instanceof DataView) return undefined;
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

// Two typed arrays of one type and the same bytes are equal, without a look at every element, which takes a
// thousand times as long. Of others the differences are to be shown.
expect.addEqualityTesters([
  (left: unknown, right: unknown) => {
    const [mine, other] = [bytesOf(left), bytesOf(right)];
    if (mine === undefined || other === undefined) return undefined;
    const isOfOneType = Object.getPrototypeOf(left) === Object.getPrototypeOf(right);
    return isOfOneType && mine.equals(other) ? true : undefined;
  },
]);

afterEach(checkAll);

afterAll(() => {
  const { made, checked, abandoned } = memoryCounts();
  expect(checked + abandoned, "memories that were never checked").toBe(made);
});
