// Readers of the trace formats of docs/traces.md. What a file says is checked: it may be anybody's.
import { readFile, stat } from "node:fs/promises";
import { basename } from "node:path";
import { gunzipSync } from "node:zlib";
import type { ChainHints } from "../policy/eviction-policy.js";
import { CommandError, EXIT_REFUSED } from "./command.js";
import { printable } from "./output.js";

export interface TraceRequest {
  readonly atMs: number;
  /** Dense numbers of blocks, head first; of objects, one. */
  readonly chain: Int32Array;
  readonly hints?: ChainHints;
  /** Of an object, where the trace says it. */
  readonly bytes?: number;
  /** Of a chain: number of the request that it continues, or -1, and blocks taken over from it. */
  readonly parent?: number;
  readonly sharedCount?: number;
}

export interface Trace {
  readonly name: string;
  readonly requests: readonly TraceRequest[];
  readonly uniqueCount: number;
  readonly accessCount: number;
  /** Requests are chains of blocks; otherwise objects, one by one. */
  readonly isChained: boolean;
}

/** Bytes of a file, and of what it unpacks to. */
const FILE_BYTES_MAX = 2 ** 29;
/** More would not fit into memory beside what is computed about them: blocks of chains, and objects. */
const ACCESS_COUNT_MAX = 2 ** 26;
const OBJECT_COUNT_MAX = 2 ** 23;

type Accesses = Iterable<{ readonly id: number | bigint; readonly bytes?: number }>;

function refuse(message: string): never {
  throw new CommandError(EXIT_REFUSED, message);
}

/**
 * Reads a trace file, by the ending of its name.
 *
 * @throws {CommandError} It is not there, too long, or not of its format.
 */
export async function readTrace(path: string): Promise<Trace> {
  const name = basename(path);
  const shown = printable(name);
  const found = await stat(path).catch(() => null);
  if (found?.isFile() !== true) refuse(`${printable(path, 200)} is no file`);
  if ((found?.size ?? 0) > FILE_BYTES_MAX)
    refuse(`${shown} is longer than ${FILE_BYTES_MAX} bytes`);
  let bytes = await readFile(path);
  if (name.endsWith(".gz")) {
    try {
      bytes = gunzipSync(bytes, { maxOutputLength: FILE_BYTES_MAX });
    } catch {
      refuse(`${shown} cannot be unpacked, or to more than ${FILE_BYTES_MAX} bytes`);
    }
  }
  const label = name.replace(/\.(gz|trace|lis|bin|jsonl|kvp|oracle-general)(?=\.|$)/g, "");
  const decoded = decode(name, bytes);
  if (decoded === null) refuse(`${shown} is of no known format; see docs/traces.md`);
  if (decoded.accessCount === 0) refuse(`${shown} holds no access`);
  return { name: label, ...decoded };
}

function decode(name: string, bytes: Buffer): Omit<Trace, "name"> | null {
  if (name.includes(".kvp.jsonl")) return decodeChains(rowsOf(bytes));
  if (name.includes(".oracle-general.bin")) return objects(oracleGeneral(bytes));
  if (name.includes(".lis")) return objects(ranges(bytes));
  if (!name.includes(".trace")) return null;
  return objects(bytes[0] === 0 ? bigEndian(bytes) : lines(bytes));
}

function rowsOf(bytes: Buffer): unknown[] {
  const text = bytes.toString().trimEnd();
  if (text === "") return [];
  return text.split("\n").map((line, at) => {
    try {
      return JSON.parse(line) as unknown;
    } catch {
      return refuse(`line ${at + 1} is no JSON`);
    }
  });
}

/**
 * Chains of blocks.
 *
 * @param rows `[t, parentRequest, sharedBlocks, newBlocks, outTokens, toolUse]`
 * @throws {CommandError} A row is not of this form.
 */
export function decodeChains(rows: readonly unknown[]): Omit<Trace, "name"> {
  const requests: TraceRequest[] = [];
  let uniqueCount = 0;
  let accessCount = 0;
  let lastSeconds = Number.NEGATIVE_INFINITY;
  for (const [at, row] of rows.entries()) {
    const wrong = (what: string) => refuse(`line ${at + 1}: ${what}`);
    const isRow = Array.isArray(row) && row.length === 6 && row.every(Number.isFinite);
    if (!isRow) return wrong("not six numbers");
    const [seconds, parent, sharedCount, newCount, outputTokens, toolUse] = row as [
      ...[number, number, number, number, number, number],
    ];
    if (seconds < lastSeconds) wrong("the time goes back");
    lastSeconds = seconds;
    const isEarlier = Number.isInteger(parent) && parent >= -1 && parent < at;
    if (!isEarlier) wrong("the parent is no earlier line");
    const before = parent < 0 ? undefined : requests[parent]?.chain;
    const isShareable = Number.isInteger(sharedCount) && sharedCount >= 0;
    if (!isShareable || sharedCount > (before?.length ?? 0)) {
      wrong("more blocks are shared than the parent has");
    }
    if (!Number.isInteger(newCount) || newCount < 0) wrong("new blocks are no count");
    accessCount += sharedCount + newCount;
    if (accessCount > ACCESS_COUNT_MAX) wrong(`more than ${ACCESS_COUNT_MAX} accesses`);
    const chain = new Int32Array(sharedCount + newCount);
    if (before !== undefined) chain.set(before.subarray(0, sharedCount));
    for (let depth = sharedCount; depth < chain.length; depth++) chain[depth] = uniqueCount++;
    const hints = { stopReason: toolUse === 1 ? "tool" : "end", outputTokens } as const;
    requests.push({ atMs: seconds * 1000, chain, hints, parent, sharedCount });
  }
  return { requests, uniqueCount, accessCount, isChained: true };
}

function objects(accesses: Accesses): Omit<Trace, "name"> {
  const numbers = new Map<number | bigint, number>();
  const requests: TraceRequest[] = [];
  for (const { id, bytes = 1 } of accesses) {
    let number = numbers.get(id);
    if (number === undefined) {
      number = numbers.size;
      numbers.set(id, number);
    }
    // Most of these traces have no clock: an access takes a second.
    requests.push({ atMs: requests.length * 1000, chain: Int32Array.of(number), bytes });
    if (requests.length > OBJECT_COUNT_MAX) refuse(`more than ${OBJECT_COUNT_MAX} accesses`);
  }
  const accessCount = requests.length;
  return { requests, uniqueCount: numbers.size, accessCount, isChained: false };
}

function* lines(bytes: Buffer): Accesses {
  for (const line of bytes.toString().split("\n")) {
    if (/^\d/.test(line)) yield { id: Number.parseInt(line, 10) };
  }
}

function* ranges(bytes: Buffer): Accesses {
  for (const line of bytes.toString().split("\n")) {
    const [start = 0, count = 0] = line.trim().split(/\s+/).map(Number);
    if (count > OBJECT_COUNT_MAX) refuse(`more than ${OBJECT_COUNT_MAX} accesses`);
    for (let at = 0; at < (count || 0); at++) yield { id: start + at };
  }
}

function* bigEndian(bytes: Buffer): Accesses {
  for (let at = 0; at + 4 <= bytes.length; at += 4) yield { id: bytes.readUInt32BE(at) };
}

function* oracleGeneral(bytes: Buffer): Accesses {
  for (let at = 0; at + 24 <= bytes.length; at += 24) {
    yield { id: bytes.readBigUInt64LE(at + 4), bytes: bytes.readUInt32LE(at + 12) };
  }
}
