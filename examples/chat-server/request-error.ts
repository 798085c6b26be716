/** What a request is refused with: a status, a code that a program can test, and a sentence. */
import { OutOfMemoryError, TierheapError } from "tierheap";
import { DiskFullError } from "../chat/run-records.js";

export type RequestErrorCode =
  | "bad-request"
  | "not-found"
  | "method-not-allowed"
  | "too-long"
  | "chat-busy"
  | "turn-mismatch"
  | "queue-full"
  | "shutting-down"
  | "aborted";

export class RequestError extends Error {
  override readonly name = "RequestError";
  readonly status: number;
  readonly code: RequestErrorCode;
  /** More that a program may want to know. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    status: number,
    code: RequestErrorCode,
    message: string,
    details: Readonly<Record<string, unknown>> = {},
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
  }
}

/** What a client is told about any error. */
export interface ErrorReply {
  readonly status: number;
  readonly error: { readonly code: string; readonly message: string };
}

/** @param error Whatever was thrown. What nobody foresaw is told without its message. */
export function replyOf(error: unknown): ErrorReply {
  if (error instanceof RequestError) {
    const { status, code, message, details } = error;
    return { status, error: { code, message, ...details } };
  }
  if (error instanceof OutOfMemoryError) {
    const message = "all memory is in use: try again later";
    return { status: 503, error: { code: error.code, message } };
  }
  if (error instanceof DiskFullError) {
    return { status: 507, error: { code: "disk-full", message: error.message } };
  }
  if (error instanceof TierheapError) {
    return { status: 500, error: { code: error.code, message: error.message } };
  }
  return { status: 500, error: { code: "internal", message: "the request failed" } };
}
