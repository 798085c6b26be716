// One memory per directory: the second is told in one line, a dead owner's lock is taken over.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { nodeFileSystem } from "../../src/tier/file-system-node.js";
import { temporaryDirectory } from "../support/directories.js";
import { closeMemory, openMemory } from "../support/oracle.js";

const openIn = (directory: string) =>
  openMemory({ budgets: { ram: "8MiB", ssd: "64MiB" }, ssd: { directory } });

async function expectBusy(directory: string): Promise<void> {
  const error = await openIn(directory).catch((reason) => reason);
  expect(error).toMatchObject({ name: "TierError", code: "busy", tier: "ssd" });
  expect(error.message).toContain(directory);
  expect(error.message).not.toContain("\n");
}

/** A process that holds a lock file of ours until it is killed. */
async function lockingChild(path: string) {
  const identity = `
    import { readFileSync, writeFileSync } from "node:fs";
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    const status = readFileSync("/proc/self/stat", "utf8");
    const ticks = status.slice(status.lastIndexOf(")") + 2).split(" ")[19];
    writeFileSync(${JSON.stringify(path)}, process.pid + " " + boot + " " + ticks + "\\n");
    console.log("READY");
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", identity], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  return child;
}

it("refuses a second memory in the same process, and works after the first was closed", async () => {
  const directory = await temporaryDirectory();
  const first = await openIn(directory);
  await expectBusy(directory);
  await expectBusy(directory);
  await closeMemory(first);
  await closeMemory(await openIn(directory));
  expect(await readdir(directory)).toEqual([expect.stringMatching(/^lock\.[0-9]+$/)]);
});

it("refuses a directory of a living process and takes over that of a killed one", async () => {
  const directory = await temporaryDirectory();
  const child = await lockingChild(join(directory, "lock.1"));
  await expectBusy(directory);
  child.kill("SIGKILL");
  await once(child, "exit");
  await closeMemory(await openIn(directory));
  expect(await readdir(directory)).toEqual([expect.stringMatching(/^lock\.[0-9]+$/)]);
});

it.each([
  ["empty, as a power cut may leave it", ""],
  ["of a number that is used again", `${process.pid} 00000000-0000-0000-0000-000000000000 1\n`],
  ["of no process", "999999999 x 1\n"],
  ["of nonsense", "\0\xff{}\n"],
])("takes over a lock file %s", async (_name, content) => {
  const directory = await temporaryDirectory();
  await writeFile(join(directory, "lock.7"), content, "latin1");
  await closeMemory(await openIn(directory));
});

it("gives a free lock to exactly one of many", async () => {
  const path = join(await temporaryDirectory(), "lock");
  await writeFile(`${path}.1`, "999999999 x 1\n");
  // From dead, from given back, again and again: the races of stealing are narrow.
  for (let round = 2; round < 60; round++) {
    const locks = await Promise.all(Array.from({ length: 10 }, () => nodeFileSystem.tryLock(path)));
    const held = locks.filter((lock) => lock !== null);
    expect(held).toHaveLength(1);
    const content = await readFile(`${path}.${round}`, "utf8");
    expect(content).toMatch(new RegExp(`^${process.pid} `));
    if (round % 2 === 0) await writeFile(`${path}.${round}`, "999999999 x 1\n");
    else await held[0]?.release();
  }
});

it("names the directory when it cannot be made", async () => {
  const directory = await temporaryDirectory();
  await writeFile(join(directory, "file"), "");
  const error = await openIn(join(directory, "file", "store")).catch((reason) => reason);
  expect(error).toMatchObject({ code: "io", tier: "ssd" });
  expect(error.message).toContain(join(directory, "file"));
});
