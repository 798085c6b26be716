// An HTTP server for files, as model hubs are: entity tags, ranges, and on demand failures of its network.
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** Until a cut: a client that is told of it may drop what it has not read. */
const CUT_MS = 100;

/** How a server misbehaves. */
export interface Mood {
  /** The connection is cut after so many bytes of a body. */
  cutAfterBytes: number;
  hasRanges: boolean;
  hasVersions: boolean;
  /** By how much the answer to a range begins too late. */
  rangeShiftBytes: number;
}

export class FileServer {
  readonly files = new Map<string, Uint8Array>();
  readonly mood: Mood = {
    cutAfterBytes: Number.POSITIVE_INFINITY,
    hasRanges: true,
    hasVersions: true,
    rangeShiftBytes: 0,
  };
  /** `METHOD PATH RANGE` of each request. */
  readonly requests: string[] = [];
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  static async start(): Promise<FileServer> {
    const server = new FileServer();
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Afterwards nobody answers. */
  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { method, url = "", headers } = request;
    const range = this.mood.hasRanges ? (headers.range ?? "") : "";
    this.requests.push(`${method} ${url} ${range}`.trim());
    const file = this.files.get(url);
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.setHeader("Access-Control-Expose-Headers", "*");
    if (file === undefined) {
      response.writeHead(404).end();
      return;
    }
    if (this.mood.hasVersions) {
      const digest = createHash("sha256").update(file).digest("hex");
      response.setHeader("ETag", `"${digest}"`);
    }
    const asked = Number(/^bytes=(\d+)-/.exec(range)?.[1] ?? 0);
    const first = range === "" ? 0 : asked + this.mood.rangeShiftBytes;
    if (first >= file.byteLength && range !== "") {
      response.writeHead(416).end();
      return;
    }
    const part = file.subarray(first);
    response.setHeader("Content-Length", part.byteLength);
    if (range !== "") {
      const last = file.byteLength - 1;
      response.setHeader("Content-Range", `bytes ${first}-${last}/${file.byteLength}`);
    }
    response.writeHead(range === "" ? 200 : 206);
    const { cutAfterBytes } = this.mood;
    if (method === "HEAD" || cutAfterBytes >= part.byteLength) {
      response.end(method === "HEAD" ? undefined : part);
      return;
    }
    response.write(part.subarray(0, cutAfterBytes), () =>
      setTimeout(() => response.destroy(), CUT_MS),
    );
  }
}
