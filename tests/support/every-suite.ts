// Runs in every test file: whatever a test did, the figures of each memory that it made must add up.
import { afterAll, afterEach, expect } from "vitest";
import { checkAll, memoryCounts } from "./made-memories.js";

afterEach(checkAll);

afterAll(() => {
  const { made, checked, abandoned } = memoryCounts();
  expect(checked + abandoned, "memories that were never checked").toBe(made);
});
