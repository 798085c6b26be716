// Readers of the trace formats of docs/traces.md, and a seeded generator of chains. A trace is
//
//   { name, requests: [{ atMs, chain, hints }], uniqueCount, accessCount, isChained }
//
// where a chain is an Int32Array of dense block numbers, head first. Objects are chains of one; where
// they have sizes, a request also has `bytes`.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { gunzipSync } from "node:zlib";

/** Reads a trace file by the ending of its name. */
export function readTrace(path) {
  const raw = readFileSync(path);
  const bytes = path.endsWith(".gz") ? gunzipSync(raw) : raw;
  const name = basename(path).replace(/\.(gz|trace|lis|bin|jsonl|kvp|oracle-general)(?=\.|$)/g, "");
  if (/\.kvp\.jsonl/.test(path)) return { name, ...decodeChains(rowsOf(bytes)) };
  if (/\.oracle-general\.bin/.test(path)) return { name, ...objects(oracleGeneral(bytes)) };
  if (/\.lis/.test(path)) return { name, ...objects(ranges(bytes)) };
  if (/\.trace/.test(path) && bytes[0] !== 0) return { name, ...objects(lines(bytes)) };
  return { name, ...objects(bigEndian(bytes)) };
}

const rowsOf = (bytes) =>
  bytes
    .toString()
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

/** @param rows `[t, parentRequest, sharedBlocks, newBlocks, outTokens, toolUse]` */
export function decodeChains(rows) {
  const requests = [];
  let uniqueCount = 0;
  let accessCount = 0;
  for (const [seconds, parent, sharedCount, newCount, outputTokens, toolUse] of rows) {
    const chain = new Int32Array(sharedCount + newCount);
    if (parent >= 0) chain.set(requests[parent].chain.subarray(0, sharedCount));
    for (let at = sharedCount; at < chain.length; at++) chain[at] = uniqueCount++;
    accessCount += chain.length;
    const hints = { stopReason: toolUse === 1 ? "tool" : "end", outputTokens };
    requests.push({ atMs: seconds * 1000, chain, hints, parent, sharedCount });
  }
  return { requests, uniqueCount, accessCount, isChained: true };
}

function objects(accesses) {
  const numbers = new Map();
  const requests = [];
  for (const { id, bytes = 1 } of accesses) {
    let number = numbers.get(id);
    if (number === undefined) {
      number = numbers.size;
      numbers.set(id, number);
    }
    // Most of these traces have no clock: an access takes a second.
    requests.push({ atMs: requests.length * 1000, chain: Int32Array.of(number), bytes });
  }
  const accessCount = requests.length;
  return { requests, uniqueCount: numbers.size, accessCount, isChained: false };
}

function* lines(bytes) {
  for (const line of bytes.toString().split("\n")) {
    if (/^\d/.test(line)) yield { id: Number.parseInt(line, 10) };
  }
}

function* ranges(bytes) {
  for (const line of bytes.toString().split("\n")) {
    const [start, count] = line.trim().split(/\s+/).map(Number);
    for (let at = 0; at < (count || 0); at++) yield { id: start + at };
  }
}

function* bigEndian(bytes) {
  for (let at = 0; at + 4 <= bytes.length; at += 4) yield { id: bytes.readUInt32BE(at) };
}

function* oracleGeneral(bytes) {
  for (let at = 0; at + 24 <= bytes.length; at += 24) {
    yield { id: bytes.readBigUInt64LE(at + 4), bytes: bytes.readUInt32LE(at + 12) };
  }
}

/**
 * Chats of people and runs of agents, merged on one axis of time.
 *
 * @param random Gives numbers from 0 to 1.
 */
export function generateTrace(random, sessionCount = 400) {
  const draw = (mean) => -mean * Math.log(1 - random());
  const turns = [];
  for (let session = 0; session < sessionCount; session++) {
    const isAgent = random() < 0.3;
    const turnCount = 1 + Math.floor(draw(isAgent ? 25 : 2.5));
    let seconds = random() * 3600;
    for (let turn = 0; turn < turnCount; turn++) {
      const isTool = isAgent && random() < 0.85 && turn < turnCount - 1;
      const newCount = 1 + Math.floor(draw(isAgent ? 4 : turn === 0 ? 14 : 3));
      const outputTokens = 1 + Math.floor(draw(isTool ? 120 : 350));
      turns.push({ seconds, session, turn, newCount, outputTokens, isTool });
      seconds += outputTokens / 40 + draw(isTool ? 6 : 150);
    }
  }
  turns.sort((left, right) => left.seconds - right.seconds || left.session - right.session);
  const latest = new Map();
  const lengths = [];
  const rows = turns.map(({ seconds, session, newCount, outputTokens, isTool }, number) => {
    const parent = latest.get(session) ?? -1;
    const sharedCount = parent < 0 ? 0 : lengths[parent];
    latest.set(session, number);
    lengths.push(sharedCount + newCount);
    return [
      Math.round(seconds * 1000) / 1000,
      parent,
      sharedCount,
      newCount,
      outputTokens,
      Number(isTool),
    ];
  });
  return { name: "generated", ...decodeChains(rows) };
}

/**
 * The same sessions with starts drawn anew over `spanMs`; what falls behind `endMs` is cut. A session
 * is a tree of requests; a match of no more than the first block does not join two of them.
 */
export function shiftSessions(trace, random, spanMs, endMs) {
  const roots = [];
  const starts = new Map();
  const moved = [];
  const isShared = trace.requests.filter(({ parent }) => parent < 0).length === 1;
  trace.requests.forEach(({ parent, sharedCount, atMs, ...rest }, number) => {
    const isRoot = parent < 0 || (isShared && sharedCount <= 1);
    const root = isRoot ? number : roots[parent];
    roots.push(root);
    if (isRoot) starts.set(root, random() * spanMs - atMs);
    const shiftedMs = atMs + starts.get(root);
    if (shiftedMs <= endMs) moved.push({ ...rest, atMs: shiftedMs, number });
  });
  moved.sort((left, right) => left.atMs - right.atMs || left.number - right.number);
  return renumbered(trace.name, moved);
}

/** Each tree of requests as a trace of its own. */
export function singleSessions(trace) {
  const roots = [];
  const trees = new Map();
  trace.requests.forEach((request, number) => {
    const root = request.parent < 0 ? number : roots[request.parent];
    roots.push(root);
    const tree = trees.get(root) ?? [];
    tree.push(request);
    trees.set(root, tree);
  });
  return [...trees.values()].map((tree) => renumbered(trace.name, tree));
}

function renumbered(name, requests) {
  const numbers = new Map();
  let accessCount = 0;
  const made = requests.map((request) => {
    accessCount += request.chain.length;
    const chain = request.chain.map((block) => {
      let number = numbers.get(block);
      if (number === undefined) {
        number = numbers.size;
        numbers.set(block, number);
      }
      return number;
    });
    return { ...request, chain };
  });
  return { name, requests: made, uniqueCount: numbers.size, accessCount, isChained: true };
}
