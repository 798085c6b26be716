// Allocation traces: one that is captured from the chat example while it runs, and one of an LLM's
// steps that is generated from its description. Both in one form.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ALLOCATE = 0;
export const USE = 1;
export const FREE = 2;
/** A turn, or a pass over the model: what a scope of its caller spans. */
export const TURN = 3;

/** Tensors by number, and what is done with them in order, by the trace's own time. */
export class Trace {
  tensors = [];
  codes = [];
  numbers = [];
  times = [];

  constructor(name) {
    this.name = name;
  }

  allocate(ms, tensor) {
    this.tensors.push(tensor);
    this.add(ALLOCATE, ms, this.tensors.length - 1);
    return this.tensors.length - 1;
  }

  add(code, ms, number) {
    this.codes.push(code);
    this.times.push(ms);
    this.numbers.push(number);
  }
}

/** Takes the visits of the chat example and reads what it wrote down. @param args Its options. */
export function captureChat(args) {
  const folder = mkdtempSync(join(tmpdir(), "tierheap-trace-"));
  const file = join(folder, "trace.jsonl");
  try {
    const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
    const main = join(root, "build", "examples", "chat", "main.js");
    const places = ["--directory", join(folder, "store"), "--trace", file];
    const { status } = spawnSync(process.execPath, [main, ...places, ...args], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    if (status !== 0) throw new Error(`the chat example ended with ${status}`);
    return readChat(file);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A trace that the chat example wrote. A tensor that was resized is as long as it ever was. */
export function readChat(file) {
  const trace = new Trace("chat");
  const numbers = new Map();
  const tensorOf = (number) => trace.tensors[numbers.get(number)];
  for (const line of readFileSync(file, "utf8").trim().split("\n")) {
    const [name, ms, number, ...rest] = JSON.parse(line);
    if (name === "allocate") {
      const [kind, site, bytes] = rest;
      numbers.set(number, trace.allocate(ms, { kind, site, bytes }));
    } else if (name === "resize") {
      const tensor = tensorOf(number);
      tensor.bytes = Math.max(tensor.bytes, rest[0]);
    } else if (name === "turn") trace.add(TURN, ms, number);
    else trace.add(name === "use" ? USE : FREE, ms, numbers.get(number));
  }
  return trace;
}

const LAYERS = 30;
const PAGE_TOKENS = 16;
const PAGE_BYTES = 12_288;
const SEQUENCE_COUNT_MAX = 8;
/** Of the trace's own time, between two operations. */
const OPERATION_MS = 0.05;

/**
 * Passes of an LLM of 30 layers over up to eight sequences: activations of each layer, scores, logits, and
 * KV in pages of 16 tokens. Each operation uses what it reads; the pages of a sequence are used by each of
 * its passes.
 */
export function makeLlm(stepCount, seed = 3) {
  const trace = new Trace("llm");
  let state = seed;
  const random = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  let ms = 0;
  let passCount = 0;
  const at = () => {
    ms += OPERATION_MS;
    return ms;
  };
  const make = (site, floats) =>
    trace.allocate(at(), { kind: "ACTIVATIONS", site, bytes: 4 * floats });
  const use = (...numbers) => {
    for (const number of numbers) trace.add(USE, at(), number);
  };
  const free = (...numbers) => {
    for (const number of numbers) trace.add(FREE, at(), number);
  };
  const pass = (rows, sequences, addedTokens) => {
    trace.add(TURN, at(), passCount++);
    let scoreFloats = 0;
    for (const sequence of sequences) {
      sequence.tokens += addedTokens;
      scoreFloats += 9 * addedTokens * sequence.tokens;
    }
    let hidden = make("hidden", rows * 576);
    for (let layer = 0; layer < LAYERS; layer++) {
      const normed = make("norm", rows * 576);
      use(hidden);
      const q = make("q", rows * 576);
      const k = make("k", rows * 192);
      const v = make("v", rows * 192);
      use(normed);
      free(normed);
      for (const { pages, tokens } of sequences) {
        const held = pages[layer];
        while (held.length < Math.ceil(tokens / PAGE_TOKENS)) {
          const page = { kind: "KV_CACHE", site: "kv page", bytes: PAGE_BYTES };
          held.push(trace.allocate(at(), page));
        }
      }
      use(v, k);
      free(v, k);
      const scores = make("scores", scoreFloats);
      use(q);
      for (const { pages } of sequences) use(...pages[layer]);
      const attended = make("attended", rows * 576);
      use(scores);
      free(scores, q);
      const projected = make("projected", rows * 576);
      use(attended);
      free(attended);
      const second = make("hidden", rows * 576);
      use(hidden, projected);
      free(projected, hidden);
      const secondNormed = make("norm", rows * 576);
      use(second);
      const gate = make("gate", rows * 1536);
      const up = make("up", rows * 1536);
      use(secondNormed);
      free(secondNormed);
      const activated = make("activated", rows * 1536);
      use(up, gate);
      free(up, gate);
      const down = make("down", rows * 576);
      use(activated);
      free(activated);
      hidden = make("hidden", rows * 576);
      use(second, down);
      free(down, second);
    }
    const logits = make("logits", sequences.length * 49_152);
    use(hidden, logits);
    free(logits, hidden);
  };
  const end = ({ pages }) => {
    for (const held of pages) free(...held);
  };
  let live = [];
  for (let step = 0; step < stepCount; step++) {
    if (live.length < SEQUENCE_COUNT_MAX && random() < 0.5) {
      const life = 20 + Math.floor(200 * random());
      const rows = 16 + Math.floor(112 * random());
      const added = 16 + Math.floor(112 * random());
      const pages = Array.from({ length: LAYERS }, () => []);
      const sequence = { life, tokens: 0, pages };
      pass(rows, [sequence], added);
      live.push(sequence);
    }
    if (live.length > 0) pass(live.length, live, 1);
    live = live.filter((sequence) => {
      sequence.life -= 1;
      const isOver = sequence.life <= 0 || random() < 0.01;
      if (isOver) end(sequence);
      return !isOver;
    });
  }
  for (const sequence of live) end(sequence);
  return trace;
}

/** Operations, and the most bytes that are live at once. */
export function measure({ codes, numbers, tensors }) {
  let operationCount = 0;
  let liveBytes = 0;
  let liveBytesPeak = 0;
  for (const [index, code] of codes.entries()) {
    const bytes = tensors[numbers[index]]?.bytes;
    if (code === ALLOCATE) liveBytes += bytes;
    else if (code === FREE) liveBytes -= bytes;
    else continue;
    operationCount += 1;
    liveBytesPeak = Math.max(liveBytesPeak, liveBytes);
  }
  return { operationCount, liveBytesPeak };
}

/** As the user does who frees with a scope for each turn: nothing is freed before its turn ends. */
export function freeByScope(trace) {
  const scoped = new Trace(trace.name);
  scoped.tensors = trace.tensors;
  let waiting = [];
  let ms = 0;
  const endTurn = () => {
    for (const number of waiting) scoped.add(FREE, ms, number);
    waiting = [];
  };
  for (const [index, code] of trace.codes.entries()) {
    const number = trace.numbers[index];
    if (code === TURN) endTurn();
    ms = trace.times[index];
    if (code === FREE) waiting.push(number);
    else scoped.add(code, ms, number);
  }
  endTurn();
  return scoped;
}

/** As a user does who forgets to free some. @param share Of the tensors, 0 to 1. */
export function forget(trace, share, random) {
  const forgetful = new Trace(trace.name);
  forgetful.tensors = trace.tensors;
  const isForgotten = trace.tensors.map(() => random() < share);
  let forgottenCount = 0;
  for (const [index, code] of trace.codes.entries()) {
    const number = trace.numbers[index];
    if (code === FREE && isForgotten[number]) forgottenCount += 1;
    else forgetful.add(code, trace.times[index], number);
  }
  return { forgetful, forgottenCount };
}
