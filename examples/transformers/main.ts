/**
 * transformers.js over tierheap, beside transformers.js by itself: a model is downloaded from a server of
 * its own into the SSD tier, several chats keep their KV in one heap, and after a restart everything goes on
 * without the server. Prints what was used again, and whether every token is equal.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AutoModelForCausalLM, env, type PreTrainedModel, Tensor } from "@huggingface/transformers";
import { createTensorMemory, formatBytes, formatTable, type TensorMemory } from "tierheap";
import { createModelCache, createPastKeyValues } from "tierheap/adapters/transformers";
import { tinyModelFiles } from "./tiny-model.js";

const NAME = "tiny/llama";
const SEED = 1;
const CHATS = 24;
/** [prompt, answer] tokens of each turn; the last one comes after the restart. */
const TURNS = [
  [200, 12],
  [8, 12],
  [8, 12],
] as const;

interface Outcome {
  readonly tokens: Map<number, number[]>;
  equalTurns: number;
  turns: number;
  reusedTokens: number;
  computedTokens: number;
}

function promptOf(chat: number, turn: number, length: number): number[] {
  return Array.from({ length }, (_, index) => (chat * 31 + turn * 17 + index * index * 7) % 256);
}

function inputsOf(tokens: readonly number[], newTokens: number) {
  const dims = [1, tokens.length];
  return {
    input_ids: new Tensor("int64", BigInt64Array.from(tokens, BigInt), dims),
    attention_mask: new Tensor("int64", new BigInt64Array(tokens.length).fill(1n), dims),
    max_new_tokens: newTokens,
    do_sample: false,
  };
}

function numbersIn(output: unknown): number[] {
  return Array.from((output as Tensor).data as BigInt64Array, Number);
}

/** One turn of every chat, each compared with the library's own answer. */
async function takeTurn(
  turn: number,
  model: PreTrainedModel,
  caches: readonly ReturnType<typeof createPastKeyValues>[],
  outcome: Outcome,
): Promise<void> {
  const [promptTokens, newTokens] = TURNS[turn] ?? [0, 0];
  for (const [chat, cache] of caches.entries()) {
    const known = outcome.tokens.get(chat) ?? [];
    const inputs = inputsOf([...known, ...promptOf(chat, turn, promptTokens)], newTokens);
    const before = cache.stats().reusedTokens;
    const tokens = numbersIn(await cache.generate(model, inputs));
    const reusedTokens = cache.stats().reusedTokens - before;
    const expected = numbersIn(await model.generate(inputs));
    outcome.turns += 1;
    if (tokens.join() === expected.join()) outcome.equalTurns += 1;
    outcome.reusedTokens += reusedTokens;
    outcome.computedTokens += tokens.length - 1 - reusedTokens;
    outcome.tokens.set(chat, tokens);
  }
}

function cachesOn(memory: TensorMemory) {
  return Array.from({ length: CHATS }, (_, chat) =>
    createPastKeyValues(memory, { Tensor, fingerprint: `${NAME}@${SEED}`, id: `chat/${chat}` }),
  );
}

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "tierheap-transformers-"));
  const files = tinyModelFiles("llama", SEED);
  let servedBytes = 0;
  const server = createServer(({ url }, response) => {
    const file = files.get(url?.split("/resolve/main/")[1] ?? "");
    servedBytes += file?.byteLength ?? 0;
    response.writeHead(file === undefined ? 404 : 200).end(file);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  Object.assign(env, {
    allowLocalModels: false,
    useFSCache: false,
    useCustomCache: true,
    remoteHost: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
  });
  const outcome: Outcome = {
    tokens: new Map(),
    equalTurns: 0,
    turns: 0,
    reusedTokens: 0,
    computedTokens: 0,
  };
  const open = async () => {
    const ssd = { directory: join(directory, "store") };
    const memory = await createTensorMemory({ budgets: { ram: "4MiB", ssd: "64MiB" }, ssd });
    env.customCache = createModelCache(memory, { chunkBytes: "64KiB" });
    const options = { dtype: "fp32", device: "cpu" } as const;
    return { memory, model: await AutoModelForCausalLM.from_pretrained(NAME, options) };
  };
  try {
    const first = await open();
    const caches = cachesOn(first.memory);
    await takeTurn(0, first.model, caches, outcome);
    await takeTurn(1, first.model, caches, outcome);
    const { swapOutCount, swapInCount } = first.memory.stats().transfers;
    const { usedBytesPeak, limitBytes } = first.memory.stats().budget;
    for (const cache of caches) await cache.save();
    for (const cache of caches) await cache.dispose();
    await first.model.dispose();
    await first.memory.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));

    const second = await open();
    const restored = cachesOn(second.memory);
    await takeTurn(2, second.model, restored, outcome);
    const restoredTokens = restored.reduce((sum, cache) => sum + cache.stats().restoredTokens, 0);
    for (const cache of restored) await cache.dispose();
    await second.model.dispose();
    await second.memory.close();

    const isEqual = outcome.equalTurns === outcome.turns;
    console.log(
      formatTable([
        ["chats, turns", `${CHATS}, ${outcome.turns}`],
        ["tokens used again", `${outcome.reusedTokens}`],
        ["tokens computed", `${outcome.computedTokens}`],
        ["of the first process, used by the second", `${restoredTokens} tokens`],
        ["KV tensors demoted, brought back", `${swapOutCount}, ${swapInCount}`],
        ["RAM at most", `${formatBytes(usedBytesPeak)} of ${formatBytes(limitBytes)}`],
        ["model downloaded", `${formatBytes(servedBytes)}, once`],
        ["equal turns", `${outcome.equalTurns} of ${outcome.turns}`],
      ]),
    );
    if (!isEqual || restoredTokens === 0) process.exitCode = 1;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

await main();
