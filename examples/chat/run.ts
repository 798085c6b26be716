/**
 * One run of the chat example: opens model and memory, takes the visits, proves the tokens, and
 * gathers the figures. It prints nothing but progress; the report is made elsewhere.
 */
import { writeFile } from "node:fs/promises";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import {
  type CompactionTotals,
  createTensorMemory,
  type MemoryStats,
  type PoolStats,
  type TensorMemory,
} from "tierheap";
import type { OrtDecoder, OrtDecoderStats } from "tierheap/adapters/ort";
import { timelineSink } from "tierheap/metrics";
import { type StatsServer, serveStats } from "tierheap/stats-server";
import { redisTier } from "tierheap/tiers/redis";
import { type ChatState, Conversation } from "./conversation.js";
import { type Foresight, finalTokens, foresee, requestOf } from "./foresight.js";
import { openHeapDecoder, openPrefixes } from "./heap-decoder.js";
import { HeapKvStore, type KvState, kvBytes, PlainKvStore, type Restore } from "./kv-store.js";
import { openModel } from "./open-model.js";
import { type ChatOptions, UsageError } from "./options.js";
import { type Progress, startProgress } from "./progress.js";
import { loadDocuments, makePrompts } from "./prompts.js";
import {
  deleteRun,
  loadPlan,
  loadState,
  type RunPlan,
  savePlan,
  saveState,
} from "./run-records.js";
import type { DecoderRuntime, KvShape } from "./runtime.js";
import { makeSchedule } from "./schedule.js";
import { HeapStepInputs, type StepInputStats } from "./step-inputs.js";
import { readSystemPrompt, SYSTEM_PROMPT, shareSystemPrompts } from "./system-prompt.js";
import { TraceRecorder } from "./trace-recorder.js";

/** Root of the repository, seen from build/examples/chat. */
const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

const ANSWER_TOKENS = 8;
const ROUND_ROBIN_ROUNDS = 3;
const TURNS_MAX = 24;
const OPENING_BYTES = { min: 344, max: 744 };
const FOLLOW_UP_BYTES = { min: 16, max: 32 };
/** Chats whose prefix is computed again to compare that with their restore. */
const RECOMPUTE_SAMPLES = 8;

/** Restoring a chat beside computing its prefix again, at the same number of tokens. */
export interface RestoreComparison {
  readonly sampleCount: number;
  readonly restoreMs: number;
  /** What the heap had foretold of these, from the speed of its tiers; null: nothing was measured yet. */
  readonly expectedMs: number | null;
  readonly recomputeMs: number;
  /** Median of the ratios, recompute ÷ restore. */
  readonly speedup: number;
}

export interface RunResult {
  readonly runtime: string;
  readonly model: string;
  readonly kv: KvShape;
  readonly chats: number;
  readonly visitsTaken: number;
  readonly visitsTotal: number;
  readonly isResumed: boolean;
  readonly isInterrupted: boolean;
  /** Chats that a stopped run had left. */
  readonly chatsFound: number;
  readonly chatsSaved: number;
  /** Turns compared with the reference; 0 when the run was interrupted. */
  readonly turnsCompared: number;
  readonly turnsWrong: number;
  readonly tokensGenerated: number;
  readonly logitGapMin: number;
  /** KV of all chats together at the end. */
  readonly kvBytes: number;
  readonly chatSwapIns: number;
  readonly chatsRecomputed: number;
  readonly restore: RestoreComparison | null;
  /** Visits whose KV was prefetched, and how long they waited for it; the median is 0 without any. */
  readonly prefetched: { readonly visitCount: number; readonly waitMs: number };
  readonly rssBareBytes: number;
  readonly rssGrowthBytesPeak: number;
  readonly durationMs: number;
  readonly stepInputs: StepInputStats;
  /** The pool of the KV before and after it was compacted at the end, and what was done in all. */
  readonly compaction: {
    readonly before: PoolStats;
    readonly after: PoolStats;
    readonly totals: CompactionTotals;
  } | null;
  /** null when the chats used the runtime by itself. */
  readonly decoder: OrtDecoderStats | null;
  /** KV that the runtime by itself would have returned, and the heap copied. */
  readonly presentBytesAvoided: number;
  /** Chats that began with KV of others, and how many tokens that saved them. */
  readonly prefixes: { readonly chatCount: number; readonly tokens: number };
  /** null when the run was interrupted. */
  readonly foresight: Foresight | null;
  readonly stats: MemoryStats;
  readonly report: string;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** Restores that a plan at the end knows about; a machine is not as fast at all times. */
const LATE_RESTORES = 32;

/** Of the last restores the one that took as long as most, if there was one. */
function medianRestore(restores: readonly Restore[]): { tokens: number; ms: number } | null {
  const late = restores.slice(-LATE_RESTORES);
  const sorted = late.sort((left, right) => left.durationMs - right.durationMs);
  const middle = sorted[Math.floor(sorted.length / 2)];
  return middle === undefined ? null : { tokens: middle.state.tokens, ms: middle.durationMs };
}

/** SplitMix-like; plans must be equal for equal seeds. */
function seededUnit(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
  };
}

async function makePlan(options: ChatOptions): Promise<RunPlan> {
  const random = seededUnit(options.seed);
  const prompts = makePrompts(await loadDocuments(ROOT), {
    chats: options.chats,
    openingBytes: OPENING_BYTES,
    followUpBytes: FOLLOW_UP_BYTES,
    turnsMax: TURNS_MAX,
    random,
  });
  const visits = makeSchedule({
    chats: options.chats,
    roundRobinRounds: ROUND_ROBIN_ROUNDS,
    skewedVisits: options.visits,
    turnsMaxPerChat: TURNS_MAX,
    random,
  });
  return { visits, prompts, answerTokens: ANSWER_TOKENS };
}

/** @param system What the chat begins with. */
function promptOf(plan: RunPlan, chat: number, turn: number, system: Uint8Array): Uint8Array {
  const prompts = plan.prompts[chat];
  const prompt = turn === 0 ? prompts?.opening : prompts?.followUps[turn - 1];
  if (prompt === undefined) throw new Error(`the plan has no turn ${turn} of chat ${chat}`);
  return turn === 0 ? Uint8Array.of(...system, ...prompt) : prompt;
}

function stateOf({ chat, turn, cachedTokens }: ChatState): KvState {
  return { chat, turn, tokens: cachedTokens };
}

function freshChat(chat: number): ChatState {
  return { chat, turn: 0, tokens: [], cachedTokens: 0 };
}

/** The plan and the chats of this run: those on disk, or new ones. */
async function prepare(
  memory: TensorMemory,
  options: ChatOptions,
  progress: (line: string) => void,
) {
  if (!options.resume) {
    const deleted = await deleteRun(memory);
    if (deleted > 0) progress(`replaced an unfinished run (${deleted} records)`);
    const plan = await makePlan(options);
    await savePlan(memory, plan);
    return { plan, chats: plan.prompts.map((_, chat) => freshChat(chat)), chatsFound: 0 };
  }
  const plan = await loadPlan(memory);
  if (plan === null) {
    const where = options.directory;
    throw new UsageError(`there is no stopped run in ${where}: start one without --resume`);
  }
  let chatsFound = 0;
  const chats: ChatState[] = [];
  for (let chat = 0; chat < plan.prompts.length; chat++) {
    const found = await loadState(memory, chat);
    if (found !== null) chatsFound += 1;
    chats.push(found ?? freshChat(chat));
  }
  return { plan, chats, chatsFound };
}

/** Takes the same turns with plain arrays and no limit. @returns How many turns differ. */
async function countWrongTurns(
  runtime: DecoderRuntime,
  plan: RunPlan,
  chats: readonly ChatState[],
  report: (turnsDone: number, chat: number, tokens: number) => void,
  signal: AbortSignal,
): Promise<{ turnsCompared: number; turnsWrong: number }> {
  const { answerTokens } = plan;
  const reference = new Conversation({ runtime, store: new PlainKvStore(), answerTokens });
  let turnsCompared = 0;
  let turnsWrong = 0;
  for (const actual of chats) {
    const expected = freshChat(actual.chat);
    while (expected.turn < actual.turn) {
      signal.throwIfAborted();
      const prompt = promptOf(plan, actual.chat, expected.turn, SYSTEM_PROMPT);
      await reference.takeTurn(expected, prompt, async () => {});
      const from = expected.tokens.length - answerTokens;
      const isEqual = expected.tokens
        .slice(from)
        .every((token, index) => token === actual.tokens[from + index]);
      turnsCompared += 1;
      if (!isEqual) turnsWrong += 1;
      report(turnsCompared, actual.chat, reference.processedTokens);
    }
    if (expected.tokens.length !== actual.tokens.length) turnsWrong += 1;
  }
  return { turnsCompared, turnsWrong };
}

/** Computes the prefixes of chats again that were restored, at the length they had then. */
async function compareRestores(
  runtime: DecoderRuntime,
  restores: readonly Restore[],
  chats: readonly ChatState[],
): Promise<RestoreComparison | null> {
  const stride = Math.max(1, Math.floor(restores.length / RECOMPUTE_SAMPLES));
  const samples = restores.filter((_, index) => index % stride === 0).slice(0, RECOMPUTE_SAMPLES);
  if (samples.length === 0) return null;
  const foretold = restores.flatMap(({ expectedMs }) => (expectedMs === null ? [] : [expectedMs]));
  const recomputeMs: number[] = [];
  for (const { state } of samples) {
    const tokens = (chats[state.chat] as ChatState).tokens.slice(0, state.tokens);
    const startMs = performance.now();
    await runtime.step(tokens, [], 0);
    recomputeMs.push(performance.now() - startMs);
  }
  return {
    sampleCount: restores.length,
    restoreMs: median(restores.map(({ durationMs }) => durationMs)),
    expectedMs: foretold.length === 0 ? null : median(foretold),
    recomputeMs: median(recomputeMs),
    speedup: median(
      samples.map(({ durationMs }, index) => (recomputeMs[index] as number) / durationMs),
    ),
  };
}

/**
 * @param signal Stops the run between two turns; what was committed is then saved.
 * @param stream Where progress goes.
 */
export async function runChats(
  options: ChatOptions,
  signal: AbortSignal,
  stream: NodeJS.WriteStream,
): Promise<RunResult> {
  const startMs = performance.now();
  const { runtime, fingerprint, name, model } = await openModel(options, signal);
  const opened = await createTensorMemory({
    calibrate: options.calibrate,
    budgets: { ram: options.ram, warm: options.warm, ssd: options.ssd, hdd: options.hdd },
    ssd: { directory: options.directory },
    codecs: { default: options.codecs },
    hdd: { directory: `${options.directory}-hdd` },
    remote: options.remote === undefined ? undefined : redisTier({ url: options.remote }),
    namespace: { fingerprint },
    seams: options.top ? { statsSink: timelineSink() } : {},
  });
  const recorder =
    options.trace === undefined ? null : new TraceRecorder(opened, () => performance.now());
  const memory = recorder?.memory ?? opened;
  let statsServer: StatsServer | null = null;
  let progress: Progress | null = null;
  let decoder: Awaited<ReturnType<typeof openHeapDecoder>> = null;
  try {
    if (options.top) {
      statsServer = await serveStats(memory, { title: "npm start" });
      stream.write(`npx tierheap top ${process.pid}\n`);
    }
    const inputs = new HeapStepInputs(memory);
    decoder = await openHeapDecoder({ runtime, model, memory, fingerprint, arrays: inputs });
    // The working memory of both sessions: what they take without any KV kept.
    const warmUp = new Uint8Array(SYSTEM_PROMPT.length + OPENING_BYTES.max).fill(32);
    await runtime.step(warmUp, [], 0);
    if (decoder !== null) {
      using cache = decoder.createCache();
      await decoder.step(cache, warmUp);
    }
    const rssBareBytes = process.memoryUsage.rss();
    const { plan, chats, chatsFound } = await prepare(memory, options, (line) =>
      stream.write(`${line}\n`),
    );
    await shareSystemPrompts(memory, plan.prompts.length);
    const { answerTokens } = plan;
    const store = new HeapKvStore(memory, runtime.kv, answerTokens, () => performance.now());
    const prefixes = decoder === null ? null : openPrefixes(memory, decoder);
    const heap = decoder === null ? undefined : { decoder, store, prefixes };
    const conversation = new Conversation({ runtime, store, inputs, answerTokens, heap });
    const visits = plan.visits.filter(
      (visit) => visit.turn >= (chats[visit.chat] as ChatState).turn,
    );
    let rssPeakBytes = rssBareBytes;
    let visitsTaken = 0;
    const now = () => performance.now();
    progress = startProgress({ stream, now, visitsTotal: Math.max(1, visits.length) });
    for (const [at, { chat, turn }] of visits.entries()) {
      if (signal.aborted) break;
      recorder?.turn(visitsTaken);
      const system = turn === 0 ? await readSystemPrompt(memory, chat) : SYSTEM_PROMPT;
      const prompt = promptOf(plan, chat, turn, system);
      // In the rounds it is known who speaks next; after them people come unasked.
      const next = visits[at + 1];
      const isExpected = next !== undefined && next.turn < ROUND_ROBIN_ROUNDS && next.chat !== chat;
      const prefetching = isExpected
        ? store.prefetch(stateOf(chats[next.chat] as ChatState))
        : null;
      await conversation.takeTurn(chats[chat] as ChatState, prompt, (next) =>
        saveState(memory, next),
      );
      await prefetching;
      visitsTaken += 1;
      rssPeakBytes = Math.max(rssPeakBytes, process.memoryUsage.rss());
      const { swapOutCount, swapInCount } = memory.stats().transfers;
      const counters = `swapped out ${swapOutCount}  in ${swapInCount} tensors`;
      const tokens = conversation.processedTokens;
      progress.update({ visitsDone: visitsTaken, chat, tokens, counters });
    }
    progress.stop();
    const isInterrupted = visitsTaken < visits.length;
    const chatsSaved = isInterrupted ? await saveChats(memory, store, chats, decoder) : 0;
    if (options.map !== undefined) {
      await writeFile(options.map, JSON.stringify(await memory.map()));
    }
    if (recorder !== null) {
      const lines = recorder.lines.map((line) => JSON.stringify(line));
      await writeFile(options.trace as string, `${lines.join("\n")}\n`);
    }
    const compaction = compactKv(memory);
    const stats = memory.stats();
    const report = memory.report();
    const kvBytesHeld = chats.reduce(
      (sum, { cachedTokens }) => sum + kvBytes(runtime.kv, cachedTokens),
      0,
    );
    const foretold = requestOf(
      runtime.kv,
      finalTokens(plan, (chat, turn) => promptOf(plan, chat, turn, SYSTEM_PROMPT)),
      prefixes === null ? 0 : SYSTEM_PROMPT.length,
    );
    const run = { kvBytes: kvBytesHeld, stats, restored: medianRestore(store.restores) };
    const foresight = isInterrupted ? null : await foresee(memory, foretold, run);
    const restore = isInterrupted ? null : await compareRestores(runtime, store.restores, chats);
    let proof = { turnsCompared: 0, turnsWrong: 0 };
    if (!isInterrupted) {
      const visitsTotal = Math.max(
        1,
        chats.reduce((sum, { turn }) => sum + turn, 0),
      );
      const proving = startProgress({ stream, now, visitsTotal });
      progress = proving;
      const show = (visitsDone: number, chat: number, tokens: number) => {
        const counters = "proof: the same turns without tierheap";
        proving.update({ visitsDone, chat, tokens, counters });
      };
      proof = await countWrongTurns(runtime, plan, chats, show, signal);
      proving.stop();
      if (!options.keep) {
        await prefixes?.clear();
        await deleteRun(memory);
      }
    }
    return {
      ...proof,
      runtime: runtime.name,
      model: name,
      kv: runtime.kv,
      chats: chats.length,
      visitsTaken,
      visitsTotal: plan.visits.length,
      isResumed: options.resume,
      isInterrupted,
      chatsFound,
      chatsSaved,
      tokensGenerated: visitsTaken * answerTokens,
      logitGapMin: conversation.logitGapMin,
      kvBytes: kvBytesHeld,
      foresight,
      chatSwapIns: store.swappedInCount,
      chatsRecomputed: store.lostCount,
      restore,
      prefetched: {
        visitCount: store.prefetchedWaitsMs.length,
        waitMs: store.prefetchedWaitsMs.length === 0 ? 0 : median(store.prefetchedWaitsMs),
      },
      rssBareBytes,
      rssGrowthBytesPeak: rssPeakBytes - rssBareBytes,
      durationMs: performance.now() - startMs,
      stepInputs: inputs.stats(),
      compaction,
      decoder: decoder?.stats() ?? null,
      presentBytesAvoided: conversation.presentBytesAvoided,
      prefixes: conversation.prefixes,
      stats,
      report,
    };
  } finally {
    progress?.stop();
    await decoder?.close();
    await statsServer?.close();
    await memory.close();
    await runtime.close();
  }
}

/** The pool of the KV before and after compaction, or null if there was no KV. */
function compactKv(memory: TensorMemory): RunResult["compaction"] {
  const poolOf = () => memory.stats().pools.find(({ kind }) => kind === "KV_CACHE");
  const before = poolOf();
  memory.compact();
  const after = poolOf();
  if (before === undefined || after === undefined) return null;
  return { before, after, totals: after.compaction };
}

/** Puts every chat's KV on record, so that the next run need not compute it. @returns Chats saved. */
async function saveChats(
  memory: TensorMemory,
  store: HeapKvStore,
  chats: readonly ChatState[],
  decoder: OrtDecoder | null,
): Promise<number> {
  let savedCount = 0;
  for (const { chat, turn, cachedTokens } of chats) {
    if (turn === 0) continue;
    const state = { chat, turn, tokens: cachedTokens };
    let isWhole = true;
    if (decoder !== null) {
      const cache = await decoder.openCache({ id: store.idOf(state) });
      isWhole = (await cache?.save({ mode: "durable" })) === "stored";
    } else {
      for (const id of store.idsOf(state)) {
        // What is swapped out is on disk already, and so is what was not touched since the last stop.
        if (memory.tensor(id)?.isResident !== true) continue;
        isWhole = (await memory.save(id, { mode: "durable" })) === "stored" && isWhole;
      }
    }
    if (isWhole) savedCount += 1;
  }
  return savedCount;
}
