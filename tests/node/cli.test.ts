// The command `tierheap`, as a process of its own; what a terminal or a race would need, in this one.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { viewStore } from "../../src/cli/store-view.js";
import { deletionPageKey, encodeDeletionPage } from "../../src/record/deletion-page.js";
import { nodeFileSystem } from "../../src/tier/file-system-node.js";
import { FsTier } from "../../src/tier/fs.js";
import { main, root, runHere, tierheap } from "../support/command.js";
import { temporaryDirectory } from "../support/directories.js";
import { HOSTILE_FIXTURES } from "../support/hostile-files.js";
import { closeMemory, openMemory } from "../support/oracle.js";
import { storedRecord } from "../support/record-files.js";

const openIn = (directory: string, tenant = "me") =>
  openMemory({
    budgets: { ram: "16MiB", ssd: "64MiB" },
    ssd: { directory },
    namespace: { tenant, fingerprint: "model@1" },
  });

/** Five saved records, one of them long, three swapped-out copies, and something dead. */
async function makeStore(): Promise<string> {
  const directory = join(await temporaryDirectory(), "store");
  const memory = await openIn(directory);
  for (let index = 0; index < 5; index++) {
    const byteLength = index === 4 ? 400_000 : 1000 * (index + 1);
    const kind = index % 2 === 0 ? "KV_CACHE" : "PARAMETERS";
    memory.allocate({ kind, byteLength, id: `saved ${index}`, zero: true });
    await memory.save(`saved ${index}`);
  }
  await memory.delete("saved 0");
  for (let index = 0; index < 3; index++) {
    memory.allocate({ kind: "KV_CACHE", byteLength: 5000, id: `swapped ${index}`, zero: true });
    await memory.swapOut(`swapped ${index}`);
  }
  await closeMemory(memory);
  return directory;
}

/** Everything about a directory that a command could have changed. */
async function imageOf(directory: string): Promise<Map<string, string>> {
  const image = new Map<string, string>();
  for (const name of (await readdir(directory)).sort()) {
    const path = join(directory, name);
    const { mtimeMs, ino, mode } = await stat(path);
    image.set(name, `${ino} ${mode} ${mtimeMs} ${(await readFile(path)).toString("base64")}`);
  }
  return image;
}

async function pathOf(directory: string, ending: string): Promise<string> {
  const name = (await readdir(directory)).find((each) => each.endsWith(ending)) ?? "";
  expect(name).not.toBe("");
  return join(directory, name);
}

async function flip(path: string, offset: number, mask = 1): Promise<void> {
  const bytes = await readFile(path);
  bytes[offset] = (bytes[offset] ?? 0) ^ mask;
  await writeFile(path, bytes);
}

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

/** A process that holds a store with one record. */
async function holdingChild(directory: string): Promise<ChildProcess> {
  const code = `
    import { createTensorMemory } from ${JSON.stringify(join(root, "dist", "src", "node.js"))};
    const ssd = { directory: ${JSON.stringify(directory)} };
    const memory = await createTensorMemory({ budgets: { ram: "8MiB", ssd: "64MiB" }, ssd });
    memory.allocate({ kind: "KV_CACHE", byteLength: 1000, id: "a" });
    await memory.save("a");
    memory.allocate({ kind: "KV_CACHE", byteLength: 1000, id: "b" });
    await memory.swapOut("b");
    console.log("READY");
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  await once(child.stdout, "data");
  return child;
}

describe("tierheap", () => {
  it("says what there is, and its version", async () => {
    const help = tierheap("--help");
    expect(help.status).toBe(0);
    for (const name of ["inspect", "verify", "clean", "replay"]) {
      expect(help.stdout).toContain(`tierheap ${name} `);
      const own = tierheap(name, "--help");
      expect(own.status).toBe(0);
      expect(own.stdout).toContain(`tierheap ${name} `);
    }
    const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
    expect(tierheap("--version")).toMatchObject({ status: 0, stdout: `${version}\n` });
  });

  it.each([
    [[], "no command"],
    [["frobnicate"], "frobnicate"],
    [["inspect"], "DIR"],
    [["inspect", "a", "b"], "DIR"],
    [["inspect", ""], "DIR"],
    [["verify", "--deep", "a"], "--deep"],
    [["clean", "--dry-run=yes", "a"], "--dry-run"],
    [["replay", "--policy", "magic", "a"], "magic"],
    [["replay", "--svg"], "--svg"],
    [["\u001b[31m"], "u{1b}"],
  ])("refuses %j in one line", (args, word) => {
    const { status, stdout, stderr } = tierheap(...args);
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain(word);
    expect(stderr).toMatch(/^tierheap: [^\n]+\n$/);
    expect(stderr).not.toContain("\u001b");
  });

  it.each(["inspect", "verify", "clean"])("%s refuses what is no store", async (command) => {
    const directory = await temporaryDirectory();
    for (const path of [join(directory, "nowhere"), main]) {
      const { status, stderr } = tierheap(command, path);
      expect(status).toBe(3);
      expect(stderr).toMatch(/^tierheap: [^\n]+ is no directory\n$/);
    }
    expect(tierheap(command, directory).status).toBe(command === "clean" ? 3 : 0);
    expect(await readdir(directory)).toEqual([]);
    const name = `${"0".repeat(15)}1.${"0".repeat(32)}.2.segment`;
    await writeFile(join(directory, name), "newer");
    const newer = tierheap(command, directory);
    expect(newer.status).toBe(3);
    expect(newer.stderr).toMatch(/^tierheap: .*another version of the format\n$/);
    expect(await readdir(directory)).toEqual([name]);
  });

  it("refuses a store of a living process, and reads that of a killed one", async () => {
    const directory = join(await temporaryDirectory(), "store");
    const child = await holdingChild(directory);
    const before = await imageOf(directory);
    for (const command of ["inspect", "verify", "clean"]) {
      const { status, stderr, stdout } = tierheap(command, directory);
      expect(status).toBe(3);
      expect(stdout).toBe("");
      expect(stderr).toMatch(/^tierheap: .* is in use by another process; try again later\n$/);
    }
    expect(await imageOf(directory)).toEqual(before);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(JSON.parse(tierheap("inspect", directory, "--json").stdout).recordCount).toBe(2);
    expect(tierheap("verify", directory).status).toBe(0);
    expect(await imageOf(directory)).toEqual(before);
    expect(tierheap("clean", directory).stdout).toContain("swapped-out copies: 1,");
    const memory = await openIn(directory, "");
    expect(await memory.acquire("b")).toBeNull();
    await closeMemory(memory);
  });

  it("does not tell what it saw while somebody opened the store", async () => {
    const directory = await makeStore();
    const look = viewStore(directory, async ({ index }) => {
      await closeMemory(await openIn(directory));
      return index.objectCount;
    });
    await expect(look).rejects.toMatchObject({ exitCode: 3 });
    expect(await viewStore(directory, async ({ index }) => index.objectCount)).toBe(7);
  });
});

describe("tierheap inspect", () => {
  it("counts what is there, and changes nothing", async () => {
    const directory = await makeStore();
    const other = await openIn(directory, "evil\u001b[2J\n");
    other.allocate({ kind: "GRADIENTS", shape: [10], dtype: "f32", id: "x", zero: true });
    await other.save("x");
    await closeMemory(other);
    await writeFile(join(directory, `${"ab".repeat(32)}.${"0".repeat(32)}.damaged`), "old bytes");
    await writeFile(join(directory, `${"ab".repeat(32)}.${"0".repeat(32)}.tmp`), "left");
    const before = await imageOf(directory);
    const { status, stdout } = tierheap("inspect", directory);
    expect(status).toBe(0);
    expect(stdout).toContain("8 records");
    expect(stdout).toMatch(/me +model@1 +KV_CACHE +raw +swapped +3 /);
    expect(stdout).toContain("1 quarantined file, 9 B");
    expect(stdout).toContain("1 temporary file");
    expect(stdout).toContain("evil\\u{1b}[2J\\u{a}");
    expect(stdout).not.toContain("\u001b");
    const found = JSON.parse(tierheap("inspect", directory, "--json").stdout);
    expect(found).toMatchObject({
      recordCount: 8,
      rawBytes: 2000 + 3000 + 4000 + 400_000 + 3 * 5000 + 40,
      damagedCount: 0,
      incompatibleCount: 0,
      quarantinedCount: 1,
      temporaryCount: 1,
    });
    const counts = found.groups.map(
      (group: { tenant: string; kind: string; isSaved: boolean; recordCount: number }) =>
        `${group.tenant.slice(0, 4)} ${group.kind} ${group.isSaved} ${group.recordCount}`,
    );
    expect(counts.sort()).toEqual([
      "evil GRADIENTS true 1",
      "me KV_CACHE false 3",
      "me KV_CACHE true 2",
      "me PARAMETERS true 2",
    ]);
    expect(found.storedBytes).toBeGreaterThan(found.rawBytes);
    expect(found.physicalBytes).toBeGreaterThan(found.storedBytes);
    expect(await imageOf(directory)).toEqual(before);
  });
});

describe("tierheap verify", () => {
  it("finds nothing in a sound store, and changes nothing", async () => {
    const directory = await makeStore();
    const before = await imageOf(directory);
    const { status, stdout } = tierheap("verify", directory);
    expect(stdout).toContain("7 of 7 records intact");
    expect(status).toBe(0);
    expect(await imageOf(directory)).toEqual(before);
  });

  it.each([
    ["a long record", ".tensor", 200_000, 1, "the digest does not fit"],
    ["the header of a long record", ".tensor", 56, 1, "shape and length disagree"],
    ["a packed record", ".segment", 600, 1, ""],
    ["one bit of a frame's header", ".segment", 40, 1, ""],
  ])("finds damage in %s", async (_what, ending, offset, mask, reason) => {
    const directory = await makeStore();
    const path = await pathOf(directory, ending);
    // The first frame of a segment may be dead: what counts must be hit.
    const frames: number[] = ending === ".segment" ? await liveFrameOffsets(directory) : [0];
    await flip(path, (frames[0] ?? 0) + offset, mask);
    const before = await imageOf(directory);
    const { status, stdout } = tierheap("verify", directory);
    expect(stdout).toContain("6 of 7 records intact");
    expect(stdout).toContain(`damaged: `);
    expect(stdout).toContain(reason);
    expect(status).toBe(1);
    const verdict = JSON.parse(tierheap("verify", directory, "--json").stdout);
    expect(verdict).toMatchObject({ isSound: false, damagedCount: 1, intactCount: 6 });
    expect(await imageOf(directory)).toEqual(before);
  });

  it("knows the deletions that another tier has to make up for", async () => {
    const directory = await makeStore();
    const tier = new FsTier({ directory, fileSystem: nodeFileSystem });
    await tier.open();
    const page = await encodeDeletionPage({ tier: "hdd", keys: ["a".repeat(64)] });
    const writer = await tier.begin(deletionPageKey(0), page.byteLength);
    if (writer === "no-space") throw new Error("no room");
    await writer.write(page);
    await writer.commit({ durable: true });
    await tier.close();
    const { status, stdout } = tierheap("verify", directory);
    expect([status, stdout]).toEqual([0, expect.stringContaining("8 of 8 records intact")]);
    const inspected = JSON.parse(tierheap("inspect", directory, "--json").stdout);
    expect(inspected).toMatchObject({ recordCount: 7, damagedCount: 0, deletionPageCount: 1 });
    expect(tierheap("inspect", directory).stdout).toContain("1 page of deletions");
  });

  it("finds a record under another's name, and a file cut short", async () => {
    const directory = await makeStore();
    const path = await pathOf(directory, ".tensor");
    await writeFile(
      join(directory, `${"cd".repeat(32)}.${"0".repeat(15)}1.tensor`),
      await readFile(path),
    );
    await chmod(path, 0o600);
    await writeFile(path, (await readFile(path)).subarray(0, 300_000));
    const { stdout, status } = tierheap("verify", directory);
    expect(stdout).toContain("the record is of another tensor");
    expect(stdout).toContain("the length is not that of the header");
    expect(status).toBe(1);
  });

  it("tells what a process was writing from what is damaged", async () => {
    const directory = join(await temporaryDirectory(), "store");
    const child = await holdingChild(directory);
    child.kill("SIGKILL");
    await once(child, "exit");
    const path = await pathOf(directory, ".segment");
    const whole = await readFile(path);
    await writeFile(path, Buffer.concat([whole, Buffer.alloc(640, 7)]));
    const torn = tierheap("verify", directory);
    expect(torn.stdout).toContain("640 bytes that a process was writing");
    expect(torn.status).toBe(0);
    // The first frame is gone, and nothing says what it was.
    await writeFile(path, Buffer.concat([Buffer.alloc(128, 9), whole.subarray(128)]));
    const holed = tierheap("verify", directory);
    expect(holed.stdout).toContain("bytes between frames");
    expect(holed.status).toBe(1);
  });

  it("leaves records of another version alone", async () => {
    const directory = await makeStore();
    const path = await pathOf(directory, ".tensor");
    await flip(path, 4, 2);
    const { stdout, status } = tierheap("verify", directory);
    expect(stdout).toContain("1 record of another version; not judged");
    expect(status).toBe(0);
  });
});

/** Where the frames lie that count. */
async function liveFrameOffsets(directory: string): Promise<number[]> {
  return viewStore(directory, async ({ index }) =>
    [...index.segments].flatMap(({ frames }) =>
      frames.filter((frame) => index.counts(frame)).map(({ offset }) => offset),
    ),
  );
}

describe("tierheap clean", () => {
  it("removes swapped-out copies and what is dead, and keeps what was saved", async () => {
    const directory = await makeStore();
    const quarantined = `${"ab".repeat(32)}.${"0".repeat(32)}.damaged`;
    await writeFile(join(directory, quarantined), "old bytes");
    await writeFile(join(directory, `${"ab".repeat(32)}.${"0".repeat(32)}.tmp`), "left");
    await writeFile(join(directory, "README"), "not ours");
    const before = await imageOf(directory);
    const dry = tierheap("clean", directory, "--dry-run");
    expect(dry.stdout).toContain("would remove");
    expect(dry.stdout).toContain("swapped-out copies: 3,");
    expect(dry.stdout).toContain("1 temporary file");
    expect(dry.stdout).toContain("kept, --quarantine removes them");
    expect(await imageOf(directory)).toEqual(before);
    const kept = tierheap("clean", directory, "--dry-run", "--keep-swapped");
    expect(kept.stdout).toContain("swapped-out copies: 0,");

    const done = tierheap("clean", directory);
    expect(done.status).toBe(0);
    expect(done.stdout).toContain("removed");
    const names = await readdir(directory);
    expect(names).toContain("README");
    expect(names).toContain(quarantined);
    expect(names.filter((name) => name.endsWith(".tmp"))).toEqual([]);
    const found = JSON.parse(tierheap("inspect", directory, "--json").stdout);
    expect(found).toMatchObject({ recordCount: 4, deadBytes: expect.any(Number) });
    expect(found.deadBytes).toBeLessThan(1024);
    expect(tierheap("verify", directory).status).toBe(0);

    expect(tierheap("clean", directory, "--quarantine").status).toBe(0);
    expect(await readdir(directory)).not.toContain(quarantined);
    const memory = await openIn(directory);
    for (let index = 1; index < 5; index++) {
      using lease = await memory.acquire(`saved ${index}`, { access: "read" });
      expect(lease?.bytes.every((byte) => byte === 0)).toBe(true);
    }
    expect(await memory.acquire("swapped 1")).toBeNull();
    await closeMemory(memory);
  });

  it("keeps what it cannot read", async () => {
    const directory = await makeStore();
    const path = await pathOf(directory, ".tensor");
    await flip(path, 0);
    expect(tierheap("clean", directory, "--quarantine").status).toBe(0);
    expect(await readdir(directory)).toContain(path.split("/").at(-1));
  });
});

describe("a directory that others have written to", () => {
  it.each(HOSTILE_FIXTURES)("$what stops no command", async ({ name, plant }) => {
    const parent = await temporaryDirectory();
    const directory = join(parent, "store");
    const outside = join(parent, "outside");
    await mkdir(directory);
    const { bytes } = await storedRecord("a");
    await writeFile(outside, bytes);
    await plant(join(directory, await name()), outside);
    for (const command of ["inspect", "verify", "clean"]) {
      const { status, stderr } = await runHere(command, directory);
      expect([0, 1, 3]).toContain(status);
      expect(stderr).toMatch(/^(tierheap: [^\n]+\n)?$/);
    }
    expect(await readFile(outside)).toEqual(Buffer.from(bytes));
    expect((await readdir(parent)).sort()).toEqual(["outside", "store"]);
  });

  it("may be a link that the caller gave", async () => {
    const directory = await makeStore();
    const path = join(await temporaryDirectory(), "link");
    await symlink(directory, path);
    expect((await runHere("verify", path)).status).toBe(0);
  });
});

it("is in the published archive and runs from it", async () => {
  const directory = await temporaryDirectory();
  const run = (command: string, args: string[], cwd: string) => {
    const found = spawnSync(command, args, { cwd, encoding: "utf8" });
    expect(found.status, found.stderr).toBe(0);
    return found.stdout;
  };
  run("npm", ["pack", "--silent", "--pack-destination", directory], root);
  const archive = await pathOf(directory, ".tgz");
  run("tar", ["-xzf", archive], directory);
  const unpacked = join(directory, "package");
  await symlink(join(root, "node_modules"), join(unpacked, "node_modules"));
  const { bin, version } = JSON.parse(await readFile(join(unpacked, "package.json"), "utf8"));
  const path = join(unpacked, bin.tierheap);
  expect(await readFile(path, "utf8")).toMatch(/^#!\/usr\/bin\/env node\n/);
  await chmod(path, 0o755);
  expect(run(path, ["--version"], directory)).toBe(`${version}\n`);
  expect(run(path, ["verify", await makeStore()], directory)).toContain("7 of 7 records intact");
});
