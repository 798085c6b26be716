// The example as its users run it: built, in a process of its own.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const program = fileURLToPath(
  new URL("../../build/examples/transformers/main.js", import.meta.url),
);

it("answers as the library by itself, also after the restart", () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program], { encoding: "utf8" });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  expect(stdout).toMatch(/equal turns +72 of 72/);
  expect(stdout).toMatch(/used by the second +[1-9]\d* tokens/);
  expect(stdout).toMatch(/demoted, brought back +[1-9]\d*, [1-9]/);
});
