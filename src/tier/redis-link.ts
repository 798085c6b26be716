// One connection to a Redis or Valkey server, or to a cluster. Every call has a deadline; a connection
// on which anything went wrong is closed rather than trusted, and the next call opens another. The only
// user of the client library.
import type { Cluster, Redis } from "ioredis";
import type { Clock } from "../clock.js";
import { MisuseError, TierError } from "../errors.js";
import { Deadlines } from "./deadlines.js";

export interface RedisPlace {
  /** One server: `redis://` or `rediss://`, with user, password and database if need be. */
  readonly url?: string | undefined;
  /** Or its socket. */
  readonly socketPath?: string | undefined;
  /** Or some nodes of a cluster. */
  readonly nodes?: readonly { readonly host: string; readonly port: number }[] | undefined;
}

export type RedisArgument = string | number | Uint8Array;

/** The server has answered with an error; the connection is fine. */
class ServerError extends Error {}

const BUSY = /^(LOADING|BUSY|TRYAGAIN|CLUSTERDOWN|MASTERDOWN)\b/;
const FULL = /(^|-)OOM\b/;

export class RedisLink {
  readonly #name: string;
  readonly #place: RedisPlace;
  readonly #timeoutMs: number;
  readonly #deadlines: Deadlines;
  #client: Promise<Redis | Cluster> | null = null;
  /** What was opened last, also while it is still connecting. */
  #opened: Redis | Cluster | null = null;
  #isClosed = false;

  constructor(name: string, place: RedisPlace, timeoutMs: number, clock: Clock) {
    this.#name = name;
    this.#place = place;
    this.#timeoutMs = timeoutMs;
    this.#deadlines = new Deadlines(clock, timeoutMs);
  }

  /**
   * Runs calls that together have one deadline.
   *
   * @throws {TierError} `timeout`; `busy` — the server cannot answer now; `closed`; else `io`.
   * @returns What `work` returned, or `"no-space"` when the server says that it is full.
   */
  async operate<T>(work: (call: RedisLink["call"]) => Promise<T>): Promise<T | "no-space"> {
    if (this.#isClosed) throw this.#closed();
    try {
      return await this.#deadlines.limit(
        work((command, ...args) => this.call(command, ...args)),
        () => new TierError("timeout", this.#name, `no answer within ${this.#timeoutMs} ms`),
      );
    } catch (error) {
      if (this.#isClosed) throw this.#closed();
      if (error instanceof MisuseError) throw error;
      if (error instanceof ServerError) {
        if (FULL.test(error.message)) return "no-space";
        const errorCode = BUSY.test(error.message) ? "busy" : "io";
        throw new TierError(errorCode, this.#name, error.message, { cause: error });
      }
      if (error instanceof TierError && error.code === "incompatible") throw error;
      // A late reply must not be taken for the answer to a later call.
      this.reset();
      if (error instanceof TierError) throw error;
      throw new TierError("io", this.#name, "the connection failed", { cause: error });
    }
  }

  /** One command; replies are buffers, numbers, null, or lists of them. */
  async call(command: string, ...args: readonly RedisArgument[]): Promise<unknown> {
    this.#client ??= this.#connect();
    const client = await this.#client;
    const sent = args.map((argument) =>
      argument instanceof Uint8Array
        ? Buffer.from(argument.buffer, argument.byteOffset, argument.byteLength)
        : argument,
    );
    try {
      return await client.callBuffer(command, sent);
    } catch (error) {
      if (error instanceof Error && error.name === "ReplyError") {
        throw new ServerError(error.message, { cause: error });
      }
      throw error;
    }
  }

  /** Calls a command on each server that holds keys. */
  async *callEach(command: string, args: (cursor: string) => readonly RedisArgument[]) {
    const client = await this.operate(async () => {
      this.#client ??= this.#connect();
      return this.#client;
    });
    if (client === "no-space") return;
    const servers = "nodes" in client ? client.nodes("master") : [client];
    for (const server of servers) {
      let cursor = "0";
      do {
        const reply = await this.operate(() =>
          server.callBuffer(command, [...args(cursor)] as string[]),
        );
        if (!Array.isArray(reply) || reply.length !== 2 || !Array.isArray(reply[1])) {
          this.reset();
          throw new TierError("io", this.#name, "the server answered another question");
        }
        cursor = String(reply[0]);
        yield (reply[1] as unknown[]).map(String);
      } while (cursor !== "0");
    }
  }

  /** Closes the connection; whoever waits for an answer gets an error. */
  reset(): void {
    this.#client = null;
    this.#opened?.disconnect();
    this.#opened = null;
  }

  close(): void {
    this.#isClosed = true;
    this.reset();
  }

  reopen(): void {
    this.#isClosed = false;
  }

  async #connect(): Promise<Redis | Cluster> {
    const { url, socketPath, nodes } = this.#place;
    const library = await loadLibrary();
    // Nothing is retried here: the tier above knows what may be repeated.
    const options = {
      lazyConnect: true,
      connectTimeout: this.#timeoutMs,
      retryStrategy: () => null,
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      enableReadyCheck: false,
      disableClientInfo: true,
    };
    const client =
      nodes !== undefined
        ? new library.Cluster([...nodes], {
            lazyConnect: true,
            clusterRetryStrategy: () => null,
            slotsRefreshTimeout: this.#timeoutMs,
            redisOptions: { ...options, lazyConnect: false },
          })
        : url !== undefined
          ? new library.Redis(url, options)
          : new library.Redis({ ...options, path: socketPath as string });
    // Each failure reaches whoever called.
    client.on("error", () => {});
    this.#opened = client;
    await client.connect();
    return client;
  }

  #closed(): TierError {
    return new TierError("closed", this.#name, "the tier is closed");
  }
}

async function loadLibrary(): Promise<Pick<typeof import("ioredis"), "Redis" | "Cluster">> {
  try {
    return await import("ioredis");
  } catch (error) {
    const message = "the remote tier needs the package ioredis: npm install ioredis";
    throw new MisuseError("unsupported", message, { cause: error });
  }
}
