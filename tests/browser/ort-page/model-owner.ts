// A page that owns a heap, beside a worker that owns a model.

import {
  type ModelWorker,
  type ModelWorkerStats,
  openModelWorker,
} from "tierheap/adapters/model-worker";
import { type Clock, createTensorMemory, type TensorMemory, TierError } from "tierheap/browser";
import { systemClock } from "tierheap/testing";
import { bareChat, FAMILIES, type Family } from "../../support/decoder-families.js";
import { RUNTIME_FILES } from "./wasm.js";

export interface ModelInit {
  readonly familyIndex: number;
  readonly seed: number;
  readonly runtimeFiles: string;
}

export interface TurnInput {
  /** All of the chat, the new prompt included. */
  readonly tokens: readonly number[];
  readonly answerTokens: number;
  /** The runtime's heap becomes long on the way. */
  readonly isHeavy?: boolean;
  /** The worker never answers. */
  readonly isDeadly?: boolean;
}

const SILENT_MS = 20_000;
/** Of a worker that is known never to answer. */
const DEADLY_SILENT_MS = 500;

let silentMs = SILENT_MS;
/** Real time, but for how long silence lasts. */
const clock: Clock = {
  ...systemClock,
  defer: (ms, work) => systemClock.defer(ms === SILENT_MS ? silentMs : ms, work),
};

let owner: { readonly memory: TensorMemory; readonly worker: ModelWorker } | null = null;

function opened() {
  if (owner === null) throw new Error("no model is open");
  return owner;
}

export async function openModel(
  familyIndex: number,
  seed: number,
  heapBytesMax?: number,
): Promise<void> {
  const memory = await createTensorMemory({
    budgets: { ram: "32MiB", ssd: "64MiB" },
    ssd: { directory: `model-${familyIndex}-${seed}` },
  });
  const worker = await openModelWorker({
    createWorker: () =>
      new Worker(new URL("./model-scope.ts", import.meta.url), { type: "module" }),
    memory,
    init: { familyIndex, seed, runtimeFiles: RUNTIME_FILES } satisfies ModelInit,
    silentMs: SILENT_MS,
    clock,
    ...(heapBytesMax !== undefined && { heapBytesMax }),
  });
  owner = { memory, worker };
}

/** A turn in the worker: the answer, or what went wrong. */
export async function speak(chat: string, input: TurnInput): Promise<number[] | string> {
  silentMs = input.isDeadly === true ? DEADLY_SILENT_MS : SILENT_MS;
  try {
    return (await opened().worker.run(chat, input)) as number[];
  } catch (error) {
    return error instanceof TierError ? `TierError ${error.code}` : String(error);
  }
}

/** The same turns on the runtime by itself. */
export async function speakBare(
  familyIndex: number,
  seed: number,
  prompts: readonly (readonly number[])[],
  answerTokens: number,
): Promise<number[][]> {
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.wasmPaths = RUNTIME_FILES;
  ort.env.wasm.numThreads = 1;
  const family = FAMILIES[familyIndex] as Family;
  const sessionOptions = { executionProviders: ["wasm"], logSeverityLevel: 4 as const };
  const bare = await bareChat(family, family.build(seed), { ort, sessionOptions });
  const answers: number[][] = [];
  for (const prompt of prompts) answers.push(await bare.chat.say(prompt, answerTokens));
  await bare.release();
  return answers;
}

/** Restarts the worker, and swaps all KV out to the colder tier. @returns How many tensors went. */
export async function putAway(): Promise<number> {
  const { memory, worker } = opened();
  await worker.restart();
  let count = 0;
  for (let index = 0; ; index++) {
    const id = `model-worker/a/${index}`;
    if (memory.tensor(id) === null) return count;
    if ((await memory.swapOut(id)) === "stored") count += 1;
  }
}

export function statsOfModel(): ModelWorkerStats {
  return opened().worker.stats();
}

/** @returns Problems of the memory, and bytes that are still in it. */
export async function closeModel(): Promise<{ problems: readonly string[]; leftBytes: number }> {
  const { memory, worker } = opened();
  await worker.close();
  const { problems } = memory.verify();
  const leftBytes = memory.stats().pools.reduce((sum, pool) => sum + pool.requestedBytes, 0);
  await memory.close();
  owner = null;
  return { problems, leftBytes };
}
