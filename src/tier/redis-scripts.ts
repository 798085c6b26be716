// Changes of a commit record that the server makes only if the record is still what the caller saw. A
// command may be carried out long after its caller has given it up: then the record is another one, and the
// command does nothing. All keys of a script have one hash tag.
import type { RedisArgument } from "./redis-link.js";

type Call = (command: string, ...args: readonly RedisArgument[]) => Promise<unknown>;

/** KEYS: the record. ARGV: what it was, empty for none; what it becomes; when it expires, 0 for never. */
const REPLACE = `
if (redis.call("GET", KEYS[1]) or "") ~= ARGV[1] then return 0 end
if ARGV[3] == "0" then redis.call("SET", KEYS[1], ARGV[2])
else redis.call("SET", KEYS[1], ARGV[2], "PXAT", ARGV[3]) end
return 1`;

/** KEYS: the record and its chunks. ARGV: what the record was; how many milliseconds a tombstone stays. */
const REMOVE = `
if (redis.call("GET", KEYS[1]) or "") ~= ARGV[1] then return 0 end
redis.call("UNLINK", unpack(KEYS))
if ARGV[3] ~= "0" then redis.pcall("SET", KEYS[1], ARGV[2], "PX", ARGV[3]) end
return 1`;

/** Keys that one script may have: Lua unpacks no more onto its stack. */
export const SCRIPT_KEY_COUNT_MAX = 4000;

/** @returns Whether the record was what it was said to be. */
export async function replaceRecord(
  call: Call,
  name: string,
  change: {
    readonly before: Uint8Array | null;
    readonly after: Uint8Array;
    readonly expiresMs: number;
  },
): Promise<unknown> {
  const { before, after, expiresMs } = change;
  return call("EVAL", REPLACE, 1, name, before ?? "", after, expiresMs);
}

/**
 * @param names The record first, then its chunks.
 * @param change.tombstone What is left under the name for `tombstoneMs`; 0: nothing.
 * @returns Whether the record was what it was said to be.
 */
export async function removeRecord(
  call: Call,
  names: readonly string[],
  change: {
    readonly before: Uint8Array | null;
    readonly tombstone: Uint8Array;
    readonly tombstoneMs: number;
  },
): Promise<unknown> {
  const { before, tombstone, tombstoneMs } = change;
  return call("EVAL", REMOVE, names.length, ...names, before ?? "", tombstone, tombstoneMs);
}
