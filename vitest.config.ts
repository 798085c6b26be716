import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import CountReporter from "./scripts/vitest-reporter.mjs";

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const project = process.env["TIERHEAP_TEST_PROJECT"];

export default defineConfig({
  resolve: {
    alias: [
      { find: /^tierheap(\/node)?$/, replacement: path("./src/node.ts") },
      { find: /^tierheap\/browser$/, replacement: path("./src/browser.ts") },
      { find: /^tierheap\/adapters\/ort$/, replacement: path("./src/adapters/ort.ts") },
      {
        find: /^tierheap\/adapters\/transformers$/,
        replacement: path("./src/adapters/transformers.ts"),
      },
      {
        find: /^tierheap\/adapters\/safetensors$/,
        replacement: path("./src/adapters/safetensors-node.ts"),
      },
      { find: /^tierheap\/testing$/, replacement: path("./src/testing/index.ts") },
    ],
  },
  test: {
    reporters: project ? ["default", new CountReporter({ project })] : ["default"],
    silent: "passed-only",
    // Each file in a process of its own: the native runtime does not live well in worker threads.
    pool: "forks",
    sequence: { shuffle: false },
    projects: [
      {
        extends: true,
        test: {
          name: "node",
          include: ["tests/**/*.test.ts"],
          exclude: ["tests/browser/**", "tests/browsers/**"],
          setupFiles: ["tests/support/every-suite.ts"],
          testTimeout: 180_000,
          hookTimeout: 180_000,
          // Tests of leaks and of memory given back collect garbage on purpose.
          execArgv: ["--expose-gc"],
        },
      },
      {
        extends: true,
        test: {
          name: "browser",
          include: ["tests/browser/**/*.test.ts"],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          // One Chromium at a time.
          fileParallelism: false,
        },
      },
      {
        extends: true,
        test: {
          // Firefox and WebKit, where they are installed: not part of `npm test`.
          name: "browsers",
          include: ["tests/browsers/**/*.test.ts"],
          testTimeout: 180_000,
          hookTimeout: 180_000,
          fileParallelism: false,
        },
      },
    ],
    coverage: { include: ["src/**"], exclude: ["src/testing/**", "src/**/*.generated.ts"] },
  },
});
