// Workload (b): what serving a small language model allocates. At most 8 sequences; 30 layers, hidden
// 576, key and value 192, feed-forward 1,536, 9 heads, 49,152 words; activations f32. A KV page holds
// keys and values of 16 tokens in f16.
import { OperationList } from "./operations.mjs";
import { xorshift } from "./random.mjs";

const SEQUENCE_COUNT_MAX = 8;
const LAYER_COUNT = 30;
const HIDDEN = 576;
const KV = 192;
const FEED_FORWARD = 1536;
const HEAD_COUNT = 9;
const VOCABULARY = 49_152;
const F32_BYTES = 4;
const PAGE_TOKENS = 16;
export const PAGE_BYTES = PAGE_TOKENS * KV * 2 * 2;

/** One forward pass over `rows` rows; `work` lists the sequences with the tokens each gains. */
function pass(list, rows, work) {
  const allocate = (elements) => list.allocate(elements * F32_BYTES);
  const free = (...places) => {
    for (const place of places) list.free(place);
  };
  const scoreCount = work.reduce(
    (sum, { sequence, added }) => sum + added * (sequence.tokens + added),
    0,
  );
  let hidden = allocate(rows * HIDDEN);
  for (let layer = 0; layer < LAYER_COUNT; layer++) {
    const normed = allocate(rows * HIDDEN);
    const query = allocate(rows * HIDDEN);
    const key = allocate(rows * KV);
    const value = allocate(rows * KV);
    free(normed);
    for (const { sequence, added } of work) {
      const pages = sequence.pages[layer];
      const pageCount = Math.ceil((sequence.tokens + added) / PAGE_TOKENS);
      while (pages.length < pageCount) pages.push(list.allocate(PAGE_BYTES));
    }
    free(value, key);
    const scores = allocate(HEAD_COUNT * scoreCount);
    const attended = allocate(rows * HIDDEN);
    free(scores, query);
    const projected = allocate(rows * HIDDEN);
    free(attended);
    const residual = allocate(rows * HIDDEN);
    free(projected, hidden);
    const normedAgain = allocate(rows * HIDDEN);
    const gate = allocate(rows * FEED_FORWARD);
    const up = allocate(rows * FEED_FORWARD);
    free(normedAgain);
    const activated = allocate(rows * FEED_FORWARD);
    free(up, gate);
    const down = allocate(rows * HIDDEN);
    free(activated);
    hidden = allocate(rows * HIDDEN);
    free(down, residual);
  }
  free(allocate(work.length * VOCABULARY), hidden);
  for (const { sequence, added } of work) sequence.tokens += added;
}

function end(list, sequence) {
  for (const pages of sequence.pages) {
    for (const page of pages) list.free(page);
  }
}

/**
 * @param seed Of the random numbers: arrivals, lengths, early ends.
 * @param stepCount Decode steps.
 * @returns The operations; everything is freed at their end.
 */
export function llmTrace(seed, stepCount = 300) {
  const random = xorshift(seed);
  const list = new OperationList();
  let sequences = [];
  for (let step = 0; step < stepCount; step++) {
    if (sequences.length < SEQUENCE_COUNT_MAX && random() < 0.5) {
      const life = 20 + Math.floor(200 * random());
      const pages = Array.from({ length: LAYER_COUNT }, () => []);
      const sequence = { life, tokens: 0, pages };
      sequences.push(sequence);
      // Rows and tokens are drawn apart: a quirk that is kept, so that the figures stay comparable.
      const rows = 16 + Math.floor(112 * random());
      const added = 16 + Math.floor(112 * random());
      pass(list, rows, [{ sequence, added }]);
    }
    if (sequences.length > 0) {
      const work = sequences.map((sequence) => ({ sequence, added: 1 }));
      pass(list, sequences.length, work);
    }
    for (const sequence of sequences) sequence.life -= 1;
    sequences = sequences.filter((sequence) => {
      const hasEnded = sequence.life <= 0 || random() < 0.01;
      if (hasEnded) end(list, sequence);
      return !hasEnded;
    });
  }
  for (const sequence of sequences) end(list, sequence);
  return list.finish();
}

/** One forward pass of a fresh sequence over `rows` tokens, its KV pages apart: activations alone. */
export function forwardPass(rows) {
  const list = new OperationList();
  const pageCount = Math.ceil(rows / PAGE_TOKENS);
  const pages = Array.from({ length: LAYER_COUNT }, () => new Array(pageCount).fill(-1));
  pass(list, rows, [{ sequence: { tokens: 0, pages }, added: rows }]);
  return list.finish();
}

/** The trace that the figures are about. @throws {Error} The generator drifted from its check values. */
export function checkedTrace() {
  const trace = llmTrace(3);
  const expected = {
    count: 298_272,
    allocationCount: 149_136,
    sizeCount: 402,
    liveBytesPeak: 30_345_216,
  };
  for (const [name, value] of Object.entries(expected)) {
    if (trace[name] !== value)
      throw new Error(`LLM trace: ${name} is ${trace[name]}, not ${value}`);
  }
  return trace;
}
