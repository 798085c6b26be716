// Statistics of a running process through a socket, and the command that shows them.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, stat, symlink, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { serveStats, statsSocketPath } from "../../src/metrics/stats-server-node.js";
import { manualClock } from "../../src/testing/index.js";
import { temporaryDirectory } from "../support/directories.js";
import { closeMemory, openMemory } from "../support/oracle.js";

const main = fileURLToPath(new URL("../../dist/src/cli/main.js", import.meta.url));
const servers: { close(): unknown }[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

async function used(path: string, intervalMs = 100) {
  const memory = await openMemory();
  memory.allocate({ kind: "KV_CACHE", byteLength: 100_000, id: "a" });
  const server = await serveStats(memory, { path, intervalMs, title: "test\u001b[2J" });
  servers.push(server);
  return { memory, server };
}

async function ended(child: ChildProcess) {
  let [stdout, stderr] = ["", ""];
  child.stdout?.on("data", (part) => (stdout += part));
  child.stderr?.on("data", (part) => (stderr += part));
  const [status] = await once(child, "close");
  return { status, stdout, stderr };
}

const top = (...args: string[]) => ended(spawn(process.execPath, [main, "top", ...args]));

describe("tierheap top", () => {
  it("shows one snapshot, and all of it as JSON", async () => {
    const path = join(await temporaryDirectory(), "s.sock");
    const { memory } = await used(path);
    const text = await top(path, "--once");
    expect(text).toMatchObject({ status: 0, stderr: "" });
    expect(text.stdout).toContain(`process ${process.pid}: 1 tensors, 1 in RAM`);
    expect(text.stdout).toMatch(/KV_CACHE +97\.7 KiB/);
    expect(text.stdout).not.toContain("\u001b");
    const json = await top(path, "--once", "--json");
    const snapshot = JSON.parse(json.stdout);
    expect(snapshot).toMatchObject({ version: 1, pid: process.pid });
    expect(snapshot.stats).toEqual(JSON.parse(JSON.stringify(memory.stats())));
    await closeMemory(memory);
  });

  it("goes on with rates until the process ends it", async () => {
    const path = join(await temporaryDirectory(), "s.sock");
    const { memory, server } = await used(path);
    const child = spawn(process.execPath, [main, "top", path]);
    const result = ended(child);
    let looks = 0;
    await new Promise<void>((resolve) => {
      child.stdout.on("data", () => {
        looks += 1;
        if (looks === 3) resolve();
      });
    });
    await server.close();
    const { status, stdout } = await result;
    expect(status).toBe(0);
    expect(stdout).toMatch(/hits 0 \(-\)/);
    expect(stdout).toMatch(/hits 0 \(0\/s\)/);
    await closeMemory(memory);
  });

  it("finds a process by its number", async () => {
    const memory = await openMemory();
    const server = await serveStats(memory);
    servers.push(server);
    expect(server.path).toBe(statsSocketPath(process.pid));
    const { status, stdout } = await top(String(process.pid), "--once");
    expect([status, stdout.includes(`process ${process.pid}`)]).toEqual([0, true]);
    await closeMemory(memory);
  });

  it("refuses what is no statistics, in one line", async () => {
    const directory = await temporaryDirectory();
    const serve = async (name: string, text: string) => {
      const path = join(directory, name);
      const server = createServer((socket) => {
        socket.on("error", () => {});
        socket.end(text);
      });
      servers.push(server);
      server.listen(path);
      await once(server, "listening");
      return path;
    };
    const stats = JSON.stringify({
      version: 1,
      pid: 1,
      title: "",
      timeMs: 0,
      stats: { pools: [] },
    });
    await writeFile(join(directory, "file"), "");
    const paths = [
      join(directory, "none"),
      join(directory, "file"),
      await serve("empty", ""),
      await serve("text", "hello\n"),
      await serve("other", '{"version":2}\n'),
      await serve("half", `${stats}\n`),
      await serve("endless", "x".repeat(2 ** 21)),
    ];
    for (const path of paths) {
      const { status, stdout, stderr } = await top(path, "--once");
      expect([path, status, stdout]).toEqual([path, 3, ""]);
      expect(stderr.trim().split("\n")).toHaveLength(1);
    }
  });
});

describe("serveStats", () => {
  it("lets nobody else connect, and takes its socket away", async () => {
    const path = join(await temporaryDirectory(), "s.sock");
    const { memory, server } = await used(path);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    await server.close();
    await server.close();
    await expect(stat(path)).rejects.toMatchObject({ code: "ENOENT" });
    await closeMemory(memory);
  });

  it("replaces the socket of a dead process, and no other file", async () => {
    const directory = await temporaryDirectory();
    const path = join(directory, "s.sock");
    const script = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
    await ended(spawn(process.execPath, ["-e", script]));
    expect((await stat(path)).isSocket()).toBe(true);
    const { memory } = await used(path);
    await expect(serveStats(memory, { path })).rejects.toMatchObject({ code: "busy" });
    await writeFile(join(directory, "file"), "mine");
    await mkdir(join(directory, "folder"));
    await symlink(path, join(directory, "link"));
    for (const name of ["file", "folder", "link"]) {
      await expect(serveStats(memory, { path: join(directory, name) })).rejects.toMatchObject({
        code: "bad-option",
      });
    }
    await expect(serveStats(memory, { path: join(directory, "no", "s") })).rejects.toMatchObject({
      code: "io",
    });
    await closeMemory(memory);
  });

  it.each([{ intervalMs: 99 }, { intervalMs: Number.NaN }, { path: "" }, { title: 3 }])(
    "refuses %j",
    async (options) => {
      const memory = await openMemory();
      const wrong = options as Parameters<typeof serveStats>[1];
      await expect(serveStats(memory, wrong)).rejects.toMatchObject({ code: "bad-option" });
      await closeMemory(memory);
    },
  );

  it("serves so many at once, none that does not read, and takes no timer while nobody is there", async () => {
    const path = join(await temporaryDirectory(), "s.sock");
    const memory = await openMemory();
    const real = manualClock({ sleeping: "skip" });
    let [deferred, snapshots] = [0, 0];
    const clock = {
      ...real,
      defer: (delayMs: number, work: () => void) => {
        deferred += 1;
        return real.defer(delayMs, work);
      },
    };
    const counted = {
      stats: () => {
        snapshots += 1;
        return memory.stats();
      },
    };
    const server = await serveStats(counted, { path, clock });
    servers.push(server);
    expect([deferred, snapshots]).toEqual([0, 0]);
    const sockets = Array.from({ length: 9 }, () => connect(path));
    const closed = sockets.map((socket) => once(socket, "close"));
    await Promise.race(closed);
    expect(sockets.filter((socket) => socket.closed)).toHaveLength(1);
    expect([deferred, snapshots]).toEqual([1, 8]);
    // Nobody reads: after a mebibyte for each, nothing more is made.
    for (let round = 0; round < 2000; round++) {
      await real.sleep(1000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const before = snapshots;
    for (let round = 0; round < 20; round++) {
      await real.sleep(1000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(before).toBeGreaterThan(8);
    expect(snapshots).toBe(before);
    for (const socket of sockets) socket.destroy();
    await Promise.all(closed);
    await closeMemory(memory);
  });
});
