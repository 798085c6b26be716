/**
 * What `memory.plan` foretells of a run, before it, beside what happened.
 */
import type { MemoryStats, TensorMemory } from "tierheap";
import type { PlanRequest } from "tierheap/plan";
import type { RunPlan } from "./run-records.js";
import type { KvShape } from "./runtime.js";

/** A figure of the plan and of the run. */
export interface Foretold {
  readonly planned: number;
  readonly actual: number;
}

export interface Foresight {
  /** KV of all chats at the end. */
  readonly kvBytes: Foretold;
  /** Peak of what is taken of the RAM budget. */
  readonly ramBytes: Foretold;
  /** What the tiers below RAM hold at the end, copies of what is in RAM included. */
  readonly coldBytes: Foretold;
  /** Bringing back a chat of as many tokens as the median one of the last that were; null if none was. */
  readonly restoreMs: Foretold | null;
}

/** KV of a prompt that chats have in common: so many pages of so many tokens. */
const PREFIX_PAGE_TOKENS = 64;

/** Tokens in the KV of each chat after all visits: prompts and answers, but for the last token. */
export function finalTokens(
  plan: RunPlan,
  promptOf: (chat: number, turn: number) => Uint8Array,
): number[] {
  const tokens = plan.prompts.map(() => 0);
  for (const { chat, turn } of plan.visits) {
    tokens[chat] = (tokens[chat] ?? 0) + promptOf(chat, turn).length + plan.answerTokens;
  }
  return tokens.map((count) => Math.max(0, count - 1));
}

/** The run as a request: KV as the runtime wants it, and the common beginning in pages. */
export function requestOf(
  kv: KvShape,
  tokens: readonly number[],
  prefixTokens: number,
): PlanRequest {
  const { layers, kvHeads, headDim, dtype } = kv;
  const model = { name: "the chats' model", layers, kvHeads, headDim, dtype };
  const rowBytes = 2 * layers * kvHeads * headDim * (dtype === "f32" ? 4 : 2);
  const count = Math.floor(prefixTokens / PREFIX_PAGE_TOKENS);
  const pages = { kind: "KV_CACHE", count, bytes: rowBytes * PREFIX_PAGE_TOKENS } as const;
  const rest = { kv: "tensors", ...(count > 0 ? { tensors: [pages] } : {}) } as const;
  return { model, chats: tokens.length, tokens, ...rest };
}

/** @param restored Tokens and milliseconds of the median chat that was brought back, if one was. */
export async function foresee(
  memory: TensorMemory,
  request: PlanRequest,
  run: {
    readonly kvBytes: number;
    readonly stats: MemoryStats;
    readonly restored: { readonly tokens: number; readonly ms: number } | null;
  },
): Promise<Foresight> {
  const { kvBytes, stats, restored } = run;
  const plan = await memory.plan(request);
  const [ram, ...colder] = plan.tiers;
  const tokenCount = plan.tokenCount;
  // As long as that one: the others are as many, and RAM is as full.
  const like = { ...request, tokens: restored?.tokens ?? 0 };
  const one = restored && (await memory.plan(like));
  const storedBytes = stats.tiers.slice(1).reduce((sum, tier) => sum + tier.storedBytes, 0);
  const coldBytes = colder.reduce((sum, { usedBytesMax }) => sum + usedBytesMax, 0);
  return {
    kvBytes: { planned: tokenCount * plan.tokenBytes, actual: kvBytes },
    ramBytes: { planned: ram?.usedBytes ?? 0, actual: stats.budget.usedBytesPeak },
    coldBytes: { planned: coldBytes, actual: storedBytes },
    restoreMs: restored && {
      planned: one?.tiers.at(1)?.chatRestoreMs ?? 0,
      actual: restored.ms,
    },
  };
}
