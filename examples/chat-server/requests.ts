/** What comes in: bodies of limited length, and turns that make sense. */
import type { IncomingMessage } from "node:http";
import type { TurnRequest } from "./chats.js";
import { RequestError } from "./request-error.js";

const BODY_BYTES_MAX = 64 * 1024;
const ANSWER_TOKENS = 16;
const ANSWER_TOKENS_MAX = 256;

function bad(message: string): RequestError {
  return new RequestError(400, "bad-request", message);
}

/** @throws {RequestError} `too-long`; `bad-request` — it is not JSON. */
async function readJson(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let byteLength = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    byteLength += part.byteLength;
    if (byteLength > BODY_BYTES_MAX) {
      throw new RequestError(413, "too-long", `a body has at most ${BODY_BYTES_MAX} bytes`);
    }
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString("utf8"));
  } catch {
    throw bad("the body is not JSON");
  }
}

function isCount(value: unknown, least: number, most: number): value is number {
  return Number.isInteger(value) && (value as number) >= least && (value as number) <= most;
}

/** @throws {RequestError} `too-long`; `bad-request`. */
export async function readTurn(request: IncomingMessage): Promise<TurnRequest> {
  const body = await readJson(request);
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw bad("the body is an object");
  }
  const { prompt, answerTokens = ANSWER_TOKENS, turn, ...rest } = body as Record<string, unknown>;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw bad(`unknown member ${JSON.stringify(unknown)}`);
  if (typeof prompt !== "string" || prompt === "") throw bad("prompt is a text that is not empty");
  if (!isCount(answerTokens, 1, ANSWER_TOKENS_MAX)) {
    throw bad(`answerTokens is a whole number from 1 to ${ANSWER_TOKENS_MAX}`);
  }
  if (turn !== undefined && !isCount(turn, 0, Number.MAX_SAFE_INTEGER)) {
    throw bad("turn is a whole number");
  }
  return { prompt: new TextEncoder().encode(prompt), answerTokens, turn };
}
