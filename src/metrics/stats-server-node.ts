// Statistics of a running process through a local socket, for `tierheap top`: off unless the program asks for it.
// Layer: metrics.
//
// Protocol: who connects gets a line of JSON at once, and another at each interval, until he leaves. What he sends is not
// read. Only the user who runs the process can connect.
import { lstat, mkdir, unlink } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { platform, tmpdir, userInfo } from "node:os";
import { dirname, join } from "node:path";
import { type Clock, systemClock } from "../clock.js";
import { MisuseError, TierError } from "../errors.js";
import type { MemoryStats } from "../stats/memory-stats.js";

/** Of the lines; another one is refused by who reads them. */
export const SNAPSHOT_VERSION = 1;

/** One line. */
export interface StatsSnapshot {
  readonly version: number;
  readonly pid: number;
  /** Names the program; what the caller gave. */
  readonly title: string;
  /** Milliseconds of the clock that never goes back. */
  readonly timeMs: number;
  readonly stats: MemoryStats;
}

export interface ServeStatsOptions {
  /** Where the socket is. Default: {@link statsSocketPath} of this process. */
  readonly path?: string;
  /** Between two lines, 100 or more. Default: 1,000. */
  readonly intervalMs?: number;
  /** For people, at most 100 characters. Default: empty. */
  readonly title?: string;
  /** Default: the platform's. */
  readonly clock?: Clock;
}

/** A server of statistics. */
export interface StatsServer {
  readonly path: string;
  /** Ends it and removes the socket. May be called again. */
  close(): Promise<void>;
}

const INTERVAL_MS_MIN = 100;
const CONNECTION_COUNT_MAX = 8;
/** Who has not read so much yet gets no further line until he has. */
const UNREAD_BYTES_MAX = 2 ** 20;
const TITLE_LENGTH_MAX = 100;
const isWindows = platform() === "win32";

/** Where a process's statistics are, unless it chose another place: in a directory of the user's own. */
export function statsSocketPath(pid: number): string {
  if (isWindows) return `\\\\.\\pipe\\tierheap-${pid}`;
  return join(tmpdir(), `tierheap-${userInfo().uid}`, `${pid}.sock`);
}

/**
 * Makes the directory of the default path, for this user alone.
 *
 * @throws {TierError} `io` — it belongs to somebody else, or others may write to it.
 */
async function makeOwnDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const { uid, mode } = await lstat(directory);
  if (uid === userInfo().uid && (mode & 0o22) === 0) return;
  throw new TierError("io", "stats", "the directory of sockets is not this user's alone");
}

/** Whether somebody answers at a socket. */
function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const end = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}

/**
 * Removes the socket of a process that is gone.
 *
 * @throws {TierError} `busy` — somebody answers there. @throws {MisuseError} `bad-option` — it is no socket.
 */
async function removeStale(path: string): Promise<void> {
  const found = await lstat(path).catch(() => null);
  if (found === null) return;
  if (!found.isSocket()) throw new MisuseError("bad-option", "stats: the path is no socket");
  if (await isAlive(path)) {
    throw new TierError("busy", "stats", "another process serves its statistics there");
  }
  await unlink(path);
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = ({ code, message }: NodeJS.ErrnoException) => {
      const isTaken = code === "EADDRINUSE";
      reject(new TierError(isTaken ? "busy" : "io", "stats", message));
    };
    server.once("error", fail);
    server.listen(path, () => {
      server.off("error", fail);
      resolve();
    });
  });
}

/**
 * Serves the statistics of a memory to whoever runs `tierheap top` as the same user.
 *
 * @throws {MisuseError} `bad-option`, also when there is something at the path that is no socket.
 * @throws {TierError} `busy` — another process answers at the path; `io`.
 * @remarks A socket that nobody answers at is replaced. Only the user may connect. Costs nothing while nobody is connected, a snapshot for each line otherwise; does not keep the
 *   process alive. Close it before the memory.
 */
export async function serveStats(
  memory: { stats(): MemoryStats },
  options: ServeStatsOptions = {},
): Promise<StatsServer> {
  const { path = statsSocketPath(process.pid), intervalMs = 1000, title = "" } = options;
  const { clock = systemClock } = options;
  if (typeof path !== "string" || path === "" || typeof title !== "string") {
    throw new MisuseError("bad-option", "stats: path and title are text");
  }
  if (!(intervalMs >= INTERVAL_MS_MIN && intervalMs < Number.POSITIVE_INFINITY)) {
    throw new MisuseError("bad-option", `stats: intervalMs is at least ${INTERVAL_MS_MIN}`);
  }
  if (!isWindows) {
    if (path === statsSocketPath(process.pid)) await makeOwnDirectory(dirname(path));
    await removeStale(path);
  }
  const sockets = new Set<Socket>();
  const send = (socket: Socket) => {
    if (socket.writableLength > UNREAD_BYTES_MAX) return;
    const snapshot: StatsSnapshot = {
      ...{ version: SNAPSHOT_VERSION, pid: process.pid },
      title: title.slice(0, TITLE_LENGTH_MAX),
      timeMs: clock.monotonicMs(),
      stats: memory.stats(),
    };
    socket.write(`${JSON.stringify(snapshot)}\n`);
  };
  let cancel: (() => void) | null = null;
  const tick = () => {
    cancel = null;
    for (const socket of sockets) send(socket);
    if (sockets.size > 0) cancel = clock.defer(intervalMs, tick);
  };
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    if (sockets.size === CONNECTION_COUNT_MAX) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.unref();
    socket.once("close", () => sockets.delete(socket));
    // Read and passed over, so that its end is seen.
    socket.resume();
    send(socket);
    cancel ??= clock.defer(intervalMs, tick);
  });
  server.unref();
  // The socket is made within this call, so nobody finds it with other rights.
  const before = isWindows ? 0 : process.umask(0o177);
  let listening: Promise<void>;
  try {
    listening = listen(server, path);
  } finally {
    if (!isWindows) process.umask(before);
  }
  await listening;
  let closing: Promise<void> | null = null;
  const close = () => {
    closing ??= new Promise<void>((resolve) => {
      cancel?.();
      cancel = null;
      for (const socket of sockets) socket.destroy();
      // Removes the socket too.
      server.close(() => resolve());
    });
    return closing;
  };
  return { path, close };
}
