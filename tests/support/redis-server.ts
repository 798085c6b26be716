// A real Redis or Valkey server for tests: found on the PATH, or installed where that is possible.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PROGRAMS = ["redis-server", "valkey-server"];

function findProgram(): string | null {
  return PROGRAMS.find((name) => spawnSync(name, ["--version"]).status === 0) ?? null;
}

/** The server's program, or why there is none. Installs Debian's package where it may. */
function provideProgram(): { readonly program: string } | { readonly reason: string } {
  const found = findProgram();
  if (found !== null) return { program: found };
  if (process.getuid?.() !== 0 || spawnSync("apt-get", ["--version"]).status !== 0) {
    return { reason: "no redis-server on the PATH, and it cannot be installed from here" };
  }
  console.log("installing redis-server with apt-get, once");
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
  const install = () =>
    spawnSync("apt-get", ["install", "-y", "--no-install-recommends", "redis-server"], { env });
  if (install().status !== 0) {
    spawnSync("apt-get", ["update"], { env });
    install();
  }
  const installed = findProgram();
  return installed === null
    ? { reason: "no redis-server on the PATH, and apt-get could not install it" }
    : { program: installed };
}

const provided = provideProgram();

/** Why tests that need a server are skipped; undefined when they are not. */
export const NO_REDIS = "reason" in provided ? provided.reason : undefined;

export interface RedisServer {
  readonly port: number;
  readonly socketPath: string;
  readonly url: string;
  /** One command, by a connection of its own; the raw reply. */
  ask(...words: readonly string[]): Promise<string>;
  stop(): Promise<void>;
}

/** A port that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => {
    server.close(resolve);
  });
  return port;
}

const SLOT_COUNT = 16_384;

/** A cluster of so many servers, each with its share of the slots and no copies. */
export async function startCluster(count: number) {
  const busPorts: number[] = [];
  const nodes: RedisServer[] = [];
  const stop = async () => {
    await Promise.all(nodes.map((node) => node.stop()));
  };
  try {
    for (let index = 0; index < count; index++) {
      const busPort = await freePort();
      const own = ["--cluster-enabled", "yes", "--cluster-port", String(busPort)];
      nodes.push(await startRedis([...own, "--cluster-announce-ip", "127.0.0.1"]));
      busPorts.push(busPort);
    }
    const bound = (index: number) => Math.floor((index * SLOT_COUNT) / count);
    for (const [index, node] of nodes.entries()) {
      await node.ask("CLUSTER", "SET-CONFIG-EPOCH", String(index + 1));
      const [first, last] = [bound(index), bound(index + 1) - 1];
      await node.ask("CLUSTER", "ADDSLOTSRANGE", String(first), String(last));
    }
    for (const [index, { port }] of nodes.entries()) {
      await nodes[0]?.ask("CLUSTER", "MEET", "127.0.0.1", String(port), String(busPorts[index]));
    }
    for (let attempt = 0; ; attempt++) {
      const infos = await Promise.all(nodes.map((node) => node.ask("CLUSTER", "INFO")));
      const isReady = (info: string) =>
        info.includes("cluster_state:ok") && info.includes(`cluster_known_nodes:${count}`);
      if (infos.every(isReady)) return { nodes, stop };
      if (attempt === 400) throw new Error("the servers do not become a cluster");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  } catch (error) {
    await stop();
    throw error;
  }
}

export async function startRedis(extra: readonly string[] = []): Promise<RedisServer> {
  if (!("program" in provided)) throw new Error(provided.reason);
  const directory = await mkdtemp(join(tmpdir(), "tierheap-redis-"));
  const socketPath = join(directory, "socket");
  const port = await freePort();
  const child: ChildProcess = spawn(
    provided.program,
    [
      ...["--port", String(port), "--bind", "127.0.0.1", "--unixsocket", socketPath],
      ...["--dir", directory, "--save", "", "--appendonly", "no", ...extra],
    ],
    { stdio: "ignore" },
  );
  const ended = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
  });
  const ask = (...words: readonly string[]) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect(port, "127.0.0.1");
      let reply = "";
      const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`);
      socket.write(`*${words.length}\r\n${parts.join("")}*1\r\n$4\r\nQUIT\r\n`);
      socket.on("data", (bytes) => {
        reply += bytes.toString("latin1");
      });
      socket.on("end", () => resolve(reply.replace(/\+OK\r\n$/, "")));
      socket.on("error", reject);
    });
  for (let attempt = 0; ; attempt++) {
    const answer = await ask("PING").catch(() => "");
    if (answer.startsWith("+PONG")) break;
    if (attempt === 200 || child.exitCode !== null) throw new Error("redis-server does not answer");
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return {
    port,
    socketPath,
    url: `redis://127.0.0.1:${port}`,
    ask,
    stop: async () => {
      child.kill("SIGKILL");
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}
