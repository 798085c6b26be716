/**
 * The server: routes, events to clients, and an end that waits for the turns under way. It knows
 * nothing of models and memory but what they report.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { MemoryStats } from "tierheap";
import type { Chats } from "./chats.js";
import { formatMetrics, type ServerStats } from "./metrics.js";
import { RequestError, replyOf } from "./request-error.js";
import { readTurn } from "./requests.js";
import type { TurnQueue } from "./turn-queue.js";

export interface ChatServerOptions {
  readonly chats: Chats;
  readonly queue: TurnQueue;
  readonly memoryStats: () => MemoryStats;
  /** Text of the page at `/`, given where the server is. */
  readonly helpFor: (url: string) => string;
  /** Hears of errors that clients are not told in full. */
  readonly onError: (error: unknown) => void;
}

/** Long enough for a turn, short enough for a supervisor. */
const SHUTDOWN_MS = 10_000;
const CHAT_PATH = /^\/chats\/([A-Za-z0-9_.-]{1,64})(\/turns)?$/;

export class ChatServer {
  readonly #options: ChatServerOptions;
  readonly #http: Server;
  readonly #turns = { begun: 0, done: 0, aborted: 0, refused: 0, failed: 0 };
  readonly #controllers = new Set<AbortController>();
  readonly #pending = new Set<Promise<void>>();
  #help = "";
  #isClosing = false;

  constructor(options: ChatServerOptions) {
    this.#options = options;
    this.#http = createServer((request, response) => {
      const work: Promise<void> = this.#handle(request, response)
        .catch((error: unknown) => {
          options.onError(error);
          response.destroy();
        })
        .finally(() => this.#pending.delete(work));
      this.#pending.add(work);
    });
  }

  /** @returns Where it is. */
  async listen(port: number, host: string): Promise<string> {
    await new Promise<void>((resolve, reject) => {
      this.#http.once("error", reject);
      this.#http.listen(port, host, resolve);
    });
    const url = `http://${host}:${(this.#http.address() as AddressInfo).port}`;
    this.#help = this.#options.helpFor(url);
    return url;
  }

  /** Takes no more turns, and waits for those under way; what takes too long is aborted. */
  async close(): Promise<void> {
    this.#isClosing = true;
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    this.#http.closeIdleConnections();
    const timer = setTimeout(() => {
      for (const controller of this.#controllers) {
        controller.abort(new RequestError(503, "shutting-down", "the server stops"));
      }
    }, SHUTDOWN_MS);
    await Promise.all(this.#pending);
    clearTimeout(timer);
    this.#http.closeAllConnections();
    await closed;
  }

  stats(): ServerStats {
    const { chats, queue } = this.#options;
    return { turns: { ...this.#turns }, ...chats.stats(), queue: queue.stats() };
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#route(request, response);
    } catch (error) {
      const { status, error: reply } = replyOf(error);
      if (status === 500) this.#options.onError(error);
      if (response.headersSent) sendEvent(response, "error", reply);
      else sendJson(response, status, { error: reply });
      response.end();
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "GET" } = request;
    const path = (request.url ?? "/").split("?", 1)[0] as string;
    const { chats, memoryStats } = this.#options;
    const [, chat, turns] = CHAT_PATH.exec(path) ?? [];
    if (chat !== undefined && turns !== undefined) {
      checkMethod(method, "POST");
      await this.#takeTurn(chat, request, response);
    } else if (chat !== undefined && method === "DELETE") {
      await chats.delete(chat);
      response.writeHead(204).end();
    } else if (chat !== undefined) {
      checkMethod(method, "GET");
      const { turn, tokens } = await chats.read(chat);
      sendJson(response, 200, { chat, turn, tokens, text: textOf(tokens) });
    } else if (path === "/chats") {
      checkMethod(method, "GET");
      sendJson(response, 200, { chats: await chats.list() });
    } else if (path === "/metrics") {
      checkMethod(method, "GET");
      sendText(response, formatMetrics(this.stats(), memoryStats()), "; version=0.0.4");
    } else if (path === "/") {
      checkMethod(method, "GET");
      sendText(response, this.#help, "; charset=utf-8");
    } else {
      throw new RequestError(404, "not-found", `there is nothing at ${path.slice(0, 100)}`);
    }
  }

  async #takeTurn(chat: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#turns.begun += 1;
    const controller = new AbortController();
    const { signal } = controller;
    // The client has gone: nobody reads on.
    response.once("close", () => {
      controller.abort(new RequestError(499, "aborted", "the client has gone"));
    });
    this.#controllers.add(controller);
    try {
      if (this.#isClosing) throw new RequestError(503, "shutting-down", "the server stops");
      const turn = await readTurn(request);
      const enter = <T>(work: () => Promise<T>) => this.#options.queue.run(work, signal);
      const onToken = (token: number, index: number) => {
        if (index === 0) startEvents(response);
        sendEvent(response, "token", { index, token, text: textOf([token]) });
      };
      const result = await this.#options.chats.takeTurn(chat, turn, { enter, onToken, signal });
      this.#turns.done += 1;
      sendEvent(response, "done", { ...result, text: textOf(result.answer) });
      response.end();
    } catch (error) {
      if (signal.aborted) this.#turns.aborted += 1;
      else if (error instanceof RequestError) this.#turns.refused += 1;
      else this.#turns.failed += 1;
      throw error;
    } finally {
      this.#controllers.delete(controller);
    }
  }
}

function checkMethod(method: string, expected: string): void {
  if (method === expected) return;
  throw new RequestError(405, "method-not-allowed", `this is for ${expected}`);
}

/** Tokens are bytes; what is no UTF-8 shows as such. */
function textOf(tokens: readonly number[]): string {
  return new TextDecoder().decode(Uint8Array.from(tokens));
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (status === 503) headers["retry-after"] = "1";
  response.writeHead(status, headers).end(`${JSON.stringify(value)}\n`);
}

function sendText(response: ServerResponse, text: string, parameters: string): void {
  response.writeHead(200, { "content-type": `text/plain${parameters}` }).end(text);
}

function startEvents(response: ServerResponse): void {
  const headers = { "content-type": "text/event-stream", "cache-control": "no-store" };
  response.writeHead(200, headers);
}

/** Not waited for: an answer is shorter than what a socket buffers. */
function sendEvent(response: ServerResponse, event: string, value: unknown): void {
  response.write(`event: ${event}\ndata: ${JSON.stringify(value)}\n\n`);
}
