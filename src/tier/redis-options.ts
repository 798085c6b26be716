// Checks what a caller chooses about the remote tier on a Redis or Valkey server.
import { MisuseError } from "../errors.js";
import type { RedisPlace } from "./redis-link.js";

interface RedisNumbers {
  readonly prefix?: string;
  readonly timeoutMs?: number;
  readonly ttlMs?: number;
  readonly chunkBytes?: number;
}

/** @throws {MisuseError} `bad-option`. */
export function checkRedisOptions(options: RedisPlace & RedisNumbers): void {
  const { url, socketPath, nodes, prefix, timeoutMs, ttlMs, chunkBytes } = options;
  const isWithin = (value: number | undefined, least: number, most: number) =>
    value === undefined || (Number.isSafeInteger(value) && value >= least && value <= most);
  const placeCount = [url, socketPath, nodes].filter((place) => place !== undefined).length;
  if (placeCount !== 1) throw new MisuseError("bad-option", "give one of url, socketPath, nodes");
  if (nodes?.length === 0) throw new MisuseError("bad-option", "a cluster has at least one node");
  // A brace in it would be taken for the hash tag.
  if (prefix !== undefined && !/^[^{}\s]{1,200}$/.test(prefix)) {
    throw new MisuseError("bad-option", "prefix has 1 to 200 characters, no braces and no blanks");
  }
  if (
    !isWithin(timeoutMs, 1, 600_000) ||
    !isWithin(ttlMs, 1, Number.MAX_SAFE_INTEGER / 2) ||
    !isWithin(chunkBytes, 1024, 2 ** 24)
  ) {
    throw new MisuseError("bad-option", "timeoutMs, ttlMs or chunkBytes is out of range");
  }
}
