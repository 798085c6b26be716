// A seeded generator of chains, and what the bench makes of a trace: the same sessions at other times,
// and each alone. The readers of the formats of docs/traces.md are those of `npx tierheap replay`. A
// trace is
//
//   { name, requests: [{ atMs, chain, hints }], uniqueCount, accessCount, isChained }
//
// where a chain is an Int32Array of dense block numbers, head first. Objects are chains of one; where
// they have sizes, a request also has `bytes`.
import { decodeChains, readTrace } from "../../dist/src/cli/trace.js";

export { decodeChains, readTrace };

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
