// The soak for a few seconds: sessions of mixed chats give back exactly what they took. Ten minutes of it
// run every night.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { SEED } from "../support/oracle.js";

it("sessions of chats leave nothing behind", () => {
  const script = fileURLToPath(new URL("../../scripts/soak.mjs", import.meta.url));
  const args = [script, "--minutes", "0.1", "--seed", `${SEED}`];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  expect(stderr).toBe("");
  expect(stdout).not.toContain("left behind:");
  expect(status, stdout).toBe(0);
});
