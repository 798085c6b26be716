// Prefix sharing on a trace of chats, replayed through the real caches: each request restores what is known
// of its chain and appends the rest. And names: pairs of pages that differ in one thing must never be taken
// for one another.
import { areEqual, checkExtras, PageKeys } from "../../dist/src/kv/page-key.js";
import { openKvCaches } from "../../dist/src/kv.js";
import { createTensorMemory } from "../../dist/src/node.js";
import { lruPolicy } from "../../dist/src/policies.js";
import { seededRandom } from "../../dist/src/testing/index.js";
import { generateTrace, readTrace } from "../cache/traces.mjs";
import { printFeatures } from "../features.mjs";

const KIB = 1024;
/** Of the trace, in blocks: one in a hundred of what it touches. */
const BLOCKS = 1828;
const KNOWN = { conversation: { unbounded: 105_710, bounded: 15_138 } };
/** A page of one token, which stands for a block of the trace. */
const LAYERS = [{ heads: 1, headDim: 16, dtype: "f32" }];

/** The rows of a token tell which one it is. */
function rowsOf(tokens) {
  const keys = new Float32Array(16 * tokens.length);
  tokens.forEach((token, index) => {
    keys.fill(token + 1, 16 * index, 16 * (index + 1));
  });
  return [{ keys, values: keys }];
}

/** Hits of all requests, with room for `blocks` pages or for all. */
async function replay(trace, blocks) {
  const isBounded = blocks !== null;
  const memory = await createTensorMemory({
    profile: "generic",
    budgets: { ram: isBounded ? 8 * KIB * KIB : 1024 * KIB * KIB },
    ...(isBounded ? { pools: { KV_CACHE: { budget: KIB * KIB } } } : {}),
    seams: { evictionPolicy: lruPolicy() },
  });
  try {
    const caches = openKvCaches(memory, { fingerprint: "trace", layers: LAYERS, pageTokens: 1 });
    // Held on to: what nobody can reach any more is taken back.
    const fillers = isBounded ? await leaveRoomFor(memory, caches, blocks) : [];
    let hits = 0;
    let wrongCount = 0;
    const startMs = performance.now();
    for (const { chain } of trace.requests) {
      const tokens = Array.from(chain);
      const cache = await caches.restore({ tokens });
      const found = cache.tokenCount;
      hits += found;
      if (found > 0) {
        const keys = new Float32Array(16);
        await cache.read(0, "keys", found - 1, found, keys);
        if (keys.some((value) => value !== tokens[found - 1] + 1)) wrongCount += 1;
      }
      const rest = tokens.slice(found);
      await cache.append(rest, rowsOf(rest));
      cache.free();
    }
    const seconds = (performance.now() - startMs) / 1000;
    const pageCount = memory.stats().tensors.hotCount - fillers.length;
    return { hits, wrongCount, seconds, pageCount };
  } finally {
    printFeatures(memory.stats(), isBounded ? "features, bounded" : "features, unbounded");
    await memory.close();
  }
}

/** Fills the pool with what never leaves, but for so many pages. */
async function leaveRoomFor(memory, caches, blocks) {
  const probe = caches.create();
  await probe.append([0], rowsOf([0]));
  const bytes = probe.byteLength;
  probe.free();
  await caches.clear();
  const fillers = [];
  for (;;) {
    const filler = memory.tryAllocate({ kind: "KV_CACHE", byteLength: bytes, alignment: 64 });
    if (filler === null) break;
    fillers.push(filler);
  }
  if (fillers.length < blocks) throw new Error(`the pool holds ${fillers.length} pages`);
  for (let count = 0; count < blocks; count++) fillers.pop().free();
  return fillers;
}

/** @param figure Takes id, value, unit, target, whether it is met, and what stands beside it. */
export async function runPrefixes({ figure, isQuick, trace: path }) {
  const given = path === undefined ? null : await readTrace(path);
  if (given === null)
    console.log("\nprefixes: no --trace FILE, so a generated one stands in for it");
  const random = seededRandom(1);
  const trace = given ?? generateTrace(() => random.uint32() / 2 ** 32, isQuick ? 60 : 400);
  const known = KNOWN[trace.name.split(".")[0]];
  const ideal = idealHits(trace, null);
  const rows = [];
  for (const [name, blocks] of [
    ["unbounded", null],
    ["bounded", BLOCKS],
  ]) {
    const result = await replay(trace, blocks);
    const target = known?.[name] ?? idealHits(trace, blocks);
    const { hits, wrongCount, seconds } = result;
    figure(
      `kv/prefix-hits-${trace.name}-${name}`,
      hits,
      "blocks",
      target,
      hits === target,
      `of ${trace.accessCount} asked for; ${blocks === null ? "all fit" : `LRU, ${blocks} pages fit`}`,
    );
    figure(`kv/prefix-wrong-${trace.name}-${name}`, wrongCount, "requests", 0, wrongCount === 0);
    if (blocks !== null && result.pageCount > blocks)
      throw new Error("more pages fit than were meant to");
    rows.push({ trace: trace.name, room: blocks ?? "all", hits, target, wrongCount, seconds });
  }
  if (known !== undefined && ideal !== known.unbounded) throw new Error("the trace was read wrong");
  console.log("\nprefixes: blocks of a trace that were found, through the real caches");
  console.table(rows);
}

/** What the rule gives: the whole chain becomes most recent, its head last. */
function idealHits({ requests }, blocks) {
  const order = new Map();
  let hits = 0;
  for (const { chain } of requests) {
    let leading = 0;
    while (leading < chain.length && order.has(chain[leading])) leading += 1;
    hits += leading;
    for (let index = chain.length - 1; index >= 0; index--) {
      order.delete(chain[index]);
      order.set(chain[index], true);
    }
    if (blocks === null) continue;
    for (const block of order.keys()) {
      if (order.size <= blocks) break;
      order.delete(block);
    }
  }
  return hits;
}

const PAGE_TOKENS = 8;
const MODEL = { fingerprint: "model", salt: "", layers: LAYERS, pageTokens: PAGE_TOKENS };

/** Everything that a page of these depends on, drawn anew for each pair. */
function drawPage(random) {
  const below = (limit) => random.uint32() % limit;
  const text = () => ["a", "b", "ab", '"', '","', "\\", "[]", "1", ""][below(9)] + below(3);
  return {
    model: { ...MODEL, fingerprint: `m${text()}`, salt: text() },
    // The page before it, and itself.
    tokens: Array.from(
      { length: 2 * PAGE_TOKENS },
      () => below(4) * [1, 2 ** 8, 2 ** 16, 2 ** 24][below(4)],
    ),
    extras: Array.from({ length: below(3) }, () => ({
      at: below(2 * PAGE_TOKENS),
      name: text(),
      value: text(),
    })),
  };
}

/** Ways to make another page of it that looks alike. Each returns a page that differs. */
const CHANGES = [
  // One token a bit away.
  ({ tokens, ...page }, below) => {
    const at = below(tokens.length);
    const bit = 2 ** below(26);
    const other = tokens.map((token, index) => (index === at ? (token ^ bit) % 2 ** 32 : token));
    return { ...page, tokens: other };
  },
  // Two tokens in the other order.
  ({ tokens, ...page }, below) => {
    const at = below(tokens.length - 1);
    const other = tokens.slice();
    [other[at], other[at + 1]] = [tokens[at + 1], tokens[at]];
    return { ...page, tokens: other };
  },
  // All of them one place on.
  ({ tokens, ...page }) => ({ ...page, tokens: [...tokens.slice(1), tokens[0]] }),
  // The same text, cut elsewhere.
  (page) => {
    const { fingerprint, salt } = page.model;
    const model = { ...page.model, fingerprint: fingerprint + salt, salt: "" };
    return { ...page, model };
  },
  ({ extras, ...page }) => ({
    ...page,
    extras: extras.map(({ at, name, value }) => ({ at, name: name + value, value: "" })),
  }),
  // Another place of what else was said, another word of it, or one more.
  ({ extras, ...page }) => ({
    ...page,
    extras: extras.map(({ at, ...extra }) => ({ ...extra, at: at ^ 1 })),
  }),
  ({ extras, ...page }) => ({
    ...page,
    extras: extras.map(({ value: name, name: value, at }) => ({ name, value, at })),
  }),
  ({ extras, tokens, ...page }) => ({
    ...page,
    tokens,
    extras: [...extras, { at: 0, name: "", value: "" }],
  }),
  // Other shapes of the same length.
  (page) => ({
    ...page,
    model: { ...page.model, layers: [{ ...LAYERS[0], heads: 2, headDim: 8 }] },
  }),
  (page) => ({
    ...page,
    model: { ...page.model, layers: [{ ...LAYERS[0], areKeysBeforeRope: true }] },
  }),
];

async function addressOf({ model, tokens, extras }) {
  const keys = new PageKeys(model);
  const checked = checkExtras(extras);
  const words = Uint32Array.from(tokens);
  const head = await keys.address(null, 0, words.subarray(0, PAGE_TOKENS), checked);
  return keys.address(head, PAGE_TOKENS, words.subarray(PAGE_TOKENS), checked);
}

const plainOf = ({ model, tokens, extras }) => JSON.stringify([model, tokens, checkExtras(extras)]);

/** Pairs of pages that look alike: the same name, or the same header under a forged one, is wrong reuse. */
export async function runNames({ figure, pairs, seed }) {
  const random = seededRandom(seed);
  const below = (limit) => random.uint32() % limit;
  const startMs = performance.now();
  let pairCount = 0;
  let wrongCount = 0;
  let sameCount = 0;
  while (pairCount < pairs) {
    const batch = [];
    while (batch.length < 512) {
      const page = drawPage(random);
      const other = CHANGES[below(CHANGES.length)](page, below);
      // Some changes change nothing: then both must have one name.
      batch.push([page, other, plainOf(page) === plainOf(other)]);
    }
    const found = await Promise.all(
      batch.map(async ([page, other]) => [await addressOf(page), await addressOf(other)]),
    );
    found.forEach(([one, other], index) => {
      if (batch[index][2]) {
        sameCount += 1;
        if (one.keyText !== other.keyText) throw new Error("one page has two names");
        return;
      }
      pairCount += 1;
      if (one.keyText === other.keyText || areEqual(one.header, other.header)) wrongCount += 1;
    });
  }
  if (sameCount === 0) throw new Error("no pair was equal: nothing was compared");
  const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
  const beside = `${pairCount} pairs that look alike, seed ${seed}; ${sameCount} equal ones had one name; ${seconds} s`;
  figure("kv/wrong-reuse", wrongCount, "pairs", 0, wrongCount === 0, beside);
}
