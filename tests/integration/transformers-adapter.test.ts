// transformers.js over KV in the heap, beside the library with its own cache: equal tokens over turns,
// edits, demotion and restarts; and what the cache refuses.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { AutoModelForCausalLM, env, type PreTrainedModel, Tensor } from "@huggingface/transformers";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TinyFamily, tinyModelFiles } from "../../examples/transformers/tiny-model.js";
import {
  createPastKeyValues,
  type PastKeyValues,
  type PastKeyValuesOptions,
} from "../../src/adapters/transformers.js";
import type { TensorMemory } from "../../src/index.js";
import {
  crashStates,
  type MemoryFileSystem,
  memoryFileSystem,
  seededRandom,
} from "../../src/testing/index.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";

const FAMILIES: readonly TinyFamily[] = ["llama", "gpt2"];
const SEEDS = [1, 2, 3, 4, 5];
/** [prompt, answer] tokens of each turn; the first crosses a page of the cache. */
const TURNS = [
  [55, 16],
  [4, 9],
  [1, 5],
] as const;

let directory: string;
const models = new Map<string, Promise<PreTrainedModel>>();

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tierheap-transformers-"));
  env.allowRemoteModels = false;
  env.useFSCache = false;
  env.localModelPath = directory;
});

afterAll(async () => {
  for (const model of models.values()) await (await model).dispose();
  await rm(directory, { recursive: true, force: true });
});

async function loadModel(family: TinyFamily, seed: number): Promise<PreTrainedModel> {
  const name = `${family}-${seed}`;
  for (const [path, bytes] of tinyModelFiles(family, seed)) {
    const file = join(directory, name, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, bytes);
  }
  return AutoModelForCausalLM.from_pretrained(name, { dtype: "fp32", device: "cpu" });
}

function modelOf(family: TinyFamily, seed: number): Promise<PreTrainedModel> {
  const name = `${family}-${seed}`;
  const known = models.get(name) ?? loadModel(family, seed);
  models.set(name, known);
  return known;
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

async function bareAnswer(
  model: PreTrainedModel,
  tokens: readonly number[],
  newTokens: number,
): Promise<number[]> {
  return numbersIn(await model.generate(inputsOf(tokens, newTokens)));
}

async function answer(
  cache: PastKeyValues,
  model: PreTrainedModel,
  tokens: readonly number[],
  newTokens: number,
): Promise<number[]> {
  return numbersIn(await cache.generate(model, inputsOf(tokens, newTokens)));
}

function promptsFor(seed: number): number[][] {
  const random = seededRandom(seed);
  return TURNS.map(([length]) => Array.from({ length }, () => random.uint32() % 256));
}

/** The whole conversation of a seed, turn by turn, with the library's own cache. */
async function bareChat(model: PreTrainedModel, seed: number): Promise<number[][]> {
  let tokens: number[] = [];
  const turns: number[][] = [];
  for (const [turn, prompt] of promptsFor(seed).entries()) {
    tokens = await bareAnswer(model, [...tokens, ...prompt], TURNS[turn]?.[1] ?? 0);
    turns.push(tokens);
  }
  // A family whose answers hardly depend on its KV would prove nothing.
  expect(new Set(tokens.slice(TURNS[0][0])).size).toBeGreaterThan(8);
  return turns;
}

function cacheOn(memory: TensorMemory, options: Partial<PastKeyValuesOptions> = {}): PastKeyValues {
  return createPastKeyValues(memory, { Tensor, fingerprint: "tiny@1", ...options });
}

/** The rows of each entry, head by head, of a cache between prepare and commit. */
function rowsOf(cache: PastKeyValues): Map<string, Float32Array[]> {
  return new Map(
    Object.entries(cache).map(([key, { data, dims }]: [string, Tensor]) => {
      const [, heads = 0, tokens = 0, headDim = 0] = dims;
      const count = tokens * headDim;
      const rows = Array.from({ length: heads }, (_, head) =>
        (data as Float32Array).slice(head * count, (head + 1) * count),
      );
      return [key, rows];
    }),
  );
}

const KEYS = [0, 1].flatMap((layer) => [
  `past_key_values.${layer}.key`,
  `past_key_values.${layer}.value`,
]);

async function idsIn(memory: TensorMemory): Promise<string[]> {
  const ids: string[] = [];
  for await (const { id } of memory.list()) ids.push(id);
  return ids.sort();
}

describe.each(FAMILIES)("%s", (family) => {
  it.each(SEEDS)("seed %i answers three turns as the library by itself", async (seed) => {
    const model = await modelOf(family, seed);
    const expected = await bareChat(model, seed);
    const memory = await openMemory();
    const cache = cacheOn(memory);
    let tokens: number[] = [];
    for (const [turn, prompt] of promptsFor(seed).entries()) {
      const before = tokens.length;
      tokens = await answer(cache, model, [...tokens, ...prompt], TURNS[turn]?.[1] ?? 0);
      expect(tokens).toEqual(expected[turn]);
      // The last token that was sampled is not in the cache.
      expect(cache.tokens()).toEqual(tokens.slice(0, -1));
      if (turn > 0) expect(cache.stats().reusedTokens).toBeGreaterThanOrEqual(before - 1);
    }
    const { lostCount, heldCount } = cache.stats();
    expect({ lostCount, heldCount }).toEqual({ lostCount: 0, heldCount: 0 });
    await cache.dispose();
  });
});

describe("the contract", () => {
  it("shows KV entries and nothing else, as the library's tensors over the heap's bytes", async () => {
    const memory = await openMemory();
    const model = await modelOf("llama", 1);
    const cache = cacheOn(memory, { id: "chat" });
    expect(Object.keys(cache)).toEqual([]);
    const tokens = await answer(cache, model, [1, 2, 3], 6);
    expect(Object.keys(cache).sort()).toEqual(KEYS);
    await cache.prepare(tokens);
    expect(cache.get_seq_length()).toBe(tokens.length - 1);
    for (const tensor of Object.values(cache) as Tensor[]) {
      expect(tensor).toBeInstanceOf(Tensor);
      expect(tensor.dims).toEqual([1, 2, tokens.length - 1, 16]);
    }
    const shown = (cache as unknown as Record<string, Tensor>)[KEYS[0] as string] as Tensor;
    const pin = memory.tensor(`chat/0/${KEYS[0]}`)?.pin({ access: "read" });
    expect((shown.data as Float32Array).buffer).toBe(pin?.view.buffer);
    expect((shown.data as Float32Array).byteOffset).toBe(pin?.view.byteOffset);
    pin?.[Symbol.dispose]();
    expect(memory.stats().pools.find(({ kind }) => kind === "KV_CACHE")?.pinnedCount).toBe(4);
    cache.cancel();
    await cache.dispose();
    expect(Object.keys(cache)).toEqual([]);
  });

  it("copies what each pass returns, once", async () => {
    const memory = await openMemory();
    const cache = cacheOn(memory);
    await answer(cache, await modelOf("llama", 1), [1, 2, 3, 4], 5);
    // Passes end with 4, 5, 6, 7 and 8 tokens: two heads of 16 f32 in each of four tensors.
    expect(cache.stats().copiedBytes).toBe((4 + 5 + 6 + 7 + 8) * 4 * 2 * 16 * 4);
    await cache.dispose();
  });

  it("makes no arenas and no tensors in a pass within a page", async () => {
    const memory = await openMemory();
    const model = await modelOf("gpt2", 1);
    const cache = cacheOn(memory);
    const tokens = await answer(cache, model, [1, 2, 3, 4], 2);
    const before = memory.stats();
    await answer(cache, model, [...tokens, 9], 20);
    const after = memory.stats();
    expect(after.arenas).toEqual(before.arenas);
    const allocations = (stats: typeof after) =>
      stats.pools.reduce((sum, { allocationCount }) => sum + allocationCount, 0);
    expect(allocations(after)).toBe(allocations(before));
    await cache.dispose();
  });

  it("works by prepare, generate and commit, with a dictionary too", async () => {
    const memory = await openMemory();
    const model = await modelOf("llama", 2);
    const cache = cacheOn(memory);
    const prompt = [3, 1, 4, 1, 5];
    expect(await cache.prepare(prompt, { newTokens: 8 })).toBe(0);
    const ids = numbersIn(
      await model.generate({ ...inputsOf(prompt, 8), past_key_values: cache } as never),
    );
    expect(await cache.commit(ids)).toBe("kept");
    expect(ids).toEqual(await bareAnswer(model, prompt, 8));
    const next = [...ids, 6, 7];
    const inputs = { ...inputsOf(next, 4), return_dict_in_generate: true };
    const { sequences } = await cache.generate<{ sequences: Tensor }>(model, inputs);
    expect(numbersIn(sequences)).toEqual(await bareAnswer(model, next, 4));
    await cache.dispose();
  });
});

describe.each(FAMILIES)("changed tokens: %s", (family) => {
  it("are computed again from the first difference on", async () => {
    const memory = await openMemory();
    const model = await modelOf(family, 3);
    const cache = cacheOn(memory);
    const tokens = await answer(cache, model, promptsFor(3)[0] as number[], 16);
    for (const at of [60, 30, 54, 1, 0]) {
      const edited = tokens.map((token, index) => (index === at ? (token + 1) % 256 : token));
      await answer(cache, model, tokens, 2);
      const before = cache.stats().reusedTokens;
      expect(await answer(cache, model, edited, 7)).toEqual(await bareAnswer(model, edited, 7));
      expect(cache.stats().reusedTokens - before).toBe(at);
    }
    await cache.dispose();
  });

  it("may be fewer, or the same", async () => {
    const memory = await openMemory();
    const model = await modelOf(family, 4);
    const cache = cacheOn(memory);
    const tokens = await answer(cache, model, promptsFor(4)[0] as number[], 10);
    for (const count of [tokens.length, 40, 1]) {
      const fewer = tokens.slice(0, count);
      const before = cache.stats().reusedTokens;
      expect(await answer(cache, model, fewer, 5)).toEqual(await bareAnswer(model, fewer, 5));
      expect(cache.stats().reusedTokens - before).toBe(count - 1);
    }
    await cache.dispose();
  });
});

describe("demotion", () => {
  it("between two calls is undone by the next one", async () => {
    const memory = await openOn(memoryFileSystem());
    const model = await modelOf("llama", 2);
    const expected = await bareChat(model, 2);
    const cache = cacheOn(memory, { id: "chat" });
    let tokens: number[] = [];
    for (const [turn, prompt] of promptsFor(2).entries()) {
      tokens = await answer(cache, model, [...tokens, ...prompt], TURNS[turn]?.[1] ?? 0);
      expect(tokens).toEqual(expected[turn]);
      for (const key of KEYS) expect(await memory.swapOut(`chat/0/${key}`)).toBe("stored");
    }
    expect(memory.stats().transfers.swapInCount).toBe(8);
    await cache.dispose();
  });

  it("makes room for other conversations", async () => {
    const memory = await openOn(memoryFileSystem(), { budgets: { ram: "4MiB", ssd: "64MiB" } });
    const model = await modelOf("gpt2", 1);
    const expected = await bareChat(model, 1);
    const chats = Array.from({ length: 40 }, (_, index) => ({
      cache: cacheOn(memory, { id: `chat/${index}` }),
      tokens: [] as number[],
    }));
    for (const [turn, prompt] of promptsFor(1).entries()) {
      for (const chat of chats) {
        const newTokens = TURNS[turn]?.[1] ?? 0;
        chat.tokens = await answer(chat.cache, model, [...chat.tokens, ...prompt], newTokens);
        expect(chat.tokens).toEqual(expected[turn]);
        expect(chat.cache.tokens()).toEqual(chat.tokens.slice(0, -1));
      }
    }
    const { swapOutCount, swapInCount } = memory.stats().transfers;
    expect(swapOutCount).toBeGreaterThan(0);
    expect(swapInCount).toBeGreaterThan(0);
    for (const { cache } of chats) {
      expect(cache.stats().lostCount).toBe(0);
      await cache.dispose();
    }
  });

  it("is refused during a call", async () => {
    const memory = await openOn(memoryFileSystem());
    const model = await modelOf("llama", 1);
    const cache = cacheOn(memory, { id: "chat" });
    const tokens = await answer(cache, model, [1, 2, 3], 4);
    await cache.prepare([...tokens, 5]);
    const id = `chat/0/${KEYS[0]}`;
    await expect(memory.swapOut(id)).rejects.toMatchObject({ code: "pinned" });
    expect(() => memory.free(id)).toThrowError(expect.objectContaining({ code: "pinned" }));
    cache.cancel();
    expect(await memory.swapOut(id)).toBe("stored");
    await cache.dispose();
  });
});

describe("without room", () => {
  it("a call ends all the same, and nothing is kept", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" } });
    const model = await modelOf("gpt2", 1);
    const hog: { free(): void }[] = [];
    for (let bytes = 2 ** 20; bytes >= 64; bytes /= 2) {
      for (;;) {
        const tensor = memory.tryAllocate({ kind: "KV_CACHE", byteLength: bytes });
        if (tensor === null) break;
        hog.push(tensor);
      }
    }
    const cache = cacheOn(memory);
    const prompt = promptsFor(1)[0] as number[];
    const expected = await bareAnswer(model, prompt, 8);
    expect(await answer(cache, model, prompt, 8)).toEqual(expected);
    expect(cache.stats().lostCount).toBe(1);
    expect(cache.stats().heldCount).toBeGreaterThan(0);
    expect(cache.tokens()).toEqual([]);
    for (const tensor of hog) tensor.free();
    expect(await answer(cache, model, prompt, 8)).toEqual(expected);
    expect(cache.tokens()).toEqual(expected.slice(0, -1));
    await cache.dispose();
  });
});

describe("what was saved", () => {
  const FIRST = 16;

  /** A first turn that is saved by a process that then ends. */
  async function saveFirstTurn(files: MemoryFileSystem, family: TinyFamily): Promise<number[]> {
    const memory = await openOn(files);
    const cache = cacheOn(memory, { id: "chat" });
    const model = await modelOf(family, 1);
    const tokens = await answer(cache, model, promptsFor(1)[0] as number[], FIRST);
    expect(await cache.save()).toBe("stored");
    await cache.dispose();
    await closeMemory(memory);
    return tokens;
  }

  it.each(FAMILIES)("goes on in another process: %s", async (family) => {
    const files = memoryFileSystem();
    const model = await modelOf(family, 1);
    const expected = await bareChat(model, 1);
    let tokens = await saveFirstTurn(files, family);
    for (const turn of [1, 2]) {
      const memory = await openOn(files);
      const cache = cacheOn(memory, { id: "chat" });
      const known = tokens.length - 1;
      tokens = [...tokens, ...(promptsFor(1)[turn] as number[])];
      tokens = await answer(cache, model, tokens, TURNS[turn]?.[1] ?? 0);
      expect(tokens).toEqual(expected[turn]);
      expect(cache.stats()).toMatchObject({ restoredTokens: known, reusedTokens: known });
      expect(await cache.save()).toBe("stored");
      await cache.dispose();
      // The tensors of one save, and nothing of those before it.
      expect(await idsIn(memory)).toEqual([
        ...KEYS.map((key) => `chat/${turn}/${key}`),
        "chat/index",
      ]);
      await closeMemory(memory);
    }
  });

  it("is used as far as the tokens are the same", async () => {
    const files = memoryFileSystem();
    const tokens = await saveFirstTurn(files, "gpt2");
    const model = await modelOf("gpt2", 1);
    const memory = await openOn(files);
    const cache = cacheOn(memory, { id: "chat" });
    const edited = [...tokens.slice(0, 20), 7, 8, 9];
    expect(await answer(cache, model, edited, 6)).toEqual(await bareAnswer(model, edited, 6));
    expect(cache.stats()).toMatchObject({ restoredTokens: 20, reusedTokens: 20 });
    // What is on disk is still the first turn.
    await cache.dispose();
    const again = cacheOn(memory, { id: "chat" });
    expect(await again.prepare([...tokens, 1])).toBe(tokens.length - 1);
    again.cancel();
    await again.dispose();
  });

  it("by another model, or of other tokens, is a miss", async () => {
    const files = memoryFileSystem();
    const tokens = await saveFirstTurn(files, "llama");
    const memory = await openOn(files);
    const other = cacheOn(memory, { id: "chat", fingerprint: "tiny@2" });
    expect(await other.prepare(tokens)).toBe(0);
    other.cancel();
    await other.dispose();
    const changed = cacheOn(memory, { id: "chat" });
    expect(await changed.prepare([(tokens[0] as number) ^ 1, ...tokens.slice(1)])).toBe(0);
    changed.cancel();
    await changed.dispose();
    const unnamed = cacheOn(memory, { id: "other" });
    expect(await unnamed.prepare(tokens)).toBe(0);
    unnamed.cancel();
    await unnamed.dispose();
  });

  it.each(["index", `0/${KEYS[2]}`])("and then damaged is a miss: %s", async (name) => {
    const files = memoryFileSystem();
    const tokens = await saveFirstTurn(files, "llama");
    const memory = await openOn(files);
    let damagedCount = 0;
    for (const bytes of files.files().values()) {
      const at = Buffer.from(bytes).indexOf(`chat/${name}`);
      // Behind the header and the id: the content.
      if (at >= 0) damagedCount += 1;
      if (at >= 0) bytes[at + 120] = (bytes[at + 120] as number) ^ 1;
    }
    expect(damagedCount).toBeGreaterThan(0);
    const cache = cacheOn(memory, { id: "chat" });
    const model = await modelOf("llama", 1);
    expect(await answer(cache, model, tokens, 5)).toEqual(await bareAnswer(model, tokens, 5));
    expect(cache.stats().restoredTokens).toBe(0);
    expect(await cache.save()).toBe("stored");
    await cache.dispose();
  });

  it("stays as it was when the next save finds no room", async () => {
    const files = memoryFileSystem();
    const tokens = await saveFirstTurn(files, "llama");
    const model = await modelOf("llama", 1);
    const memory = await openOn(files, { capacityBytes: 60_000 });
    const cache = cacheOn(memory, { id: "chat" });
    const longer = await answer(cache, model, tokens, 200);
    expect(await cache.save()).toBe("no-space");
    await cache.dispose();
    const again = cacheOn(memory, { id: "chat" });
    expect(await again.prepare(longer)).toBe(tokens.length - 1);
    again.cancel();
    await again.dispose();
  });

  it.each(["cache", "durable"] as const)(
    "is of one save or of the other after a power cut in the second: %s",
    async (mode) => {
      const files = memoryFileSystem();
      const memory = await openOn(files);
      const model = await modelOf("llama", 5);
      const cache = cacheOn(memory, { id: "chat" });
      const [first, second] = promptsFor(5) as [number[], number[]];
      const before = await answer(cache, model, first, 8);
      expect(await cache.save({ mode })).toBe("stored");
      const savedCount = files.operations.length;
      const after = await answer(cache, model, [...before, ...second], 8);
      await cache.prepare([...after, 0]);
      const expected = rowsOf(cache);
      cache.cancel();
      expect(await cache.save({ mode })).toBe("stored");
      const found = new Map<number, number>();
      for (let length = savedCount; length <= files.operations.length; length++) {
        for (const disk of crashStates(files.operations.slice(0, length))) {
          const cut = memoryFileSystem();
          for (const [path, bytes] of disk) cut.plant(path, bytes.slice());
          const next = await openOn(cut);
          const restored = cacheOn(next, { id: "chat" });
          const count = await restored.prepare([...after, 0]);
          const rows = rowsOf(restored);
          for (const [key, heads] of rows) {
            const whole = expected.get(key) ?? [];
            expect(heads).toEqual(whole.map((row) => row.subarray(0, count * 16)));
          }
          found.set(count, (found.get(count) ?? 0) + 1);
          restored.cancel();
          await restored.dispose();
          await closeMemory(next);
        }
      }
      const stateCount = [...found.values()].reduce((sum, each) => sum + each, 0);
      expect(stateCount).toBeGreaterThan(15);
      const counts = [...found.keys()].sort((a, b) => a - b);
      const known = [0, before.length - 1, after.length - 1];
      expect(known).toEqual(expect.arrayContaining(counts));
      expect(counts).toEqual(expect.arrayContaining(known.slice(1)));
      // A durable save outlives every cut after it.
      if (mode === "durable") expect(found.has(0)).toBe(false);
      await cache.dispose();
    },
  );

  it("can be deleted", async () => {
    const files = memoryFileSystem();
    const tokens = await saveFirstTurn(files, "llama");
    const memory = await openOn(files);
    const cache = cacheOn(memory, { id: "chat" });
    expect(await cache.delete()).toBe(true);
    expect(await idsIn(memory)).toEqual([]);
    const again = cacheOn(memory, { id: "chat" });
    expect(await again.prepare(tokens)).toBe(0);
    again.cancel();
    expect(await again.delete()).toBe(false);
  });
});

describe("misuse is refused", () => {
  const code = (expected: string) => expect.objectContaining({ code: expected });

  it("of options", async () => {
    const memory = await openMemory();
    for (const options of [
      { Tensor },
      { fingerprint: "a" },
      { Tensor, fingerprint: 1 },
      { Tensor, fingerprint: "a", model: {} },
    ]) {
      expect(() => createPastKeyValues(memory, options as never)).toThrow(code("bad-option"));
    }
    for (const id of ["", 1, "\ud800"]) {
      expect(() => cacheOn(memory, { id: id as never })).toThrow(code("bad-id"));
    }
    const cache = cacheOn(memory);
    for (const ids of [[], [0.5], ["a"], new Tensor("int64", [1n, 2n], [2, 1])]) {
      await expect(cache.prepare(ids as never)).rejects.toEqual(code("bad-option"));
    }
    await expect(cache.prepare([1], { newTokens: -1 })).rejects.toEqual(code("bad-option"));
    await expect(cache.save()).rejects.toEqual(code("unsupported"));
    await cache.dispose();
    await cache.dispose();
    await expect(cache.prepare([1])).rejects.toEqual(code("freed"));
  });

  it("of the order of calls", async () => {
    const memory = await openMemory();
    const model = await modelOf("llama", 1);
    const cache = cacheOn(memory);
    const bare = { ...inputsOf([1, 2, 3], 4), past_key_values: cache };
    await expect(model.generate(bare as never)).rejects.toEqual(code("unpinned"));
    const tokens = await answer(cache, model, [1, 2, 3], 4);
    await expect(model.generate(bare as never)).rejects.toEqual(code("unpinned"));
    await expect(cache.commit(tokens)).rejects.toEqual(code("unpinned"));
    await cache.prepare(tokens);
    await expect(cache.prepare(tokens)).rejects.toEqual(code("re-entrant"));
    await expect(cache.save()).rejects.toEqual(code("re-entrant"));
    await expect(cache.dispose()).rejects.toEqual(code("re-entrant"));
    cache.cancel();
    expect(() => cache.cancel()).toThrow(code("unpinned"));
    await cache.dispose();
  });

  it("of tokens that were not prepared", async () => {
    const memory = await openMemory();
    const model = await modelOf("llama", 1);
    const cache = cacheOn(memory);
    await cache.prepare([1, 2, 3]);
    const other = { ...inputsOf([1, 2, 3, 4], 4), past_key_values: cache };
    await expect(model.generate(other as never)).rejects.toEqual(code("token-mismatch"));
    cache.cancel();
    await cache.prepare([1, 2, 3]);
    await model.generate({ ...inputsOf([1, 2, 3], 4), past_key_values: cache } as never);
    await expect(cache.commit([1, 2, 4, 5, 6, 7, 8])).rejects.toEqual(code("token-mismatch"));
    expect(cache.tokens()).toEqual([1, 2, 3]);
    expect(await answer(cache, model, [1, 2, 3, 9], 5)).toEqual(
      await bareAnswer(model, [1, 2, 3, 9], 5),
    );
    await cache.dispose();
  });

  it("of another model", async () => {
    const memory = await openMemory();
    const cache = cacheOn(memory);
    const model = await modelOf("llama", 1);
    const tokens = await answer(cache, model, [1, 2, 3], 4);
    const other = await modelOf("gpt2", 1);
    await expect(answer(cache, other, tokens, 2)).rejects.toEqual(code("foreign-cache"));
    await cache.prepare(tokens);
    const entries = Object.fromEntries(
      KEYS.map((key) => [key, new Tensor("float32", new Float32Array(4 * 16), [1, 4, 1, 16])]),
    );
    expect(() => cache.update(entries)).toThrow(code("foreign-cache"));
    cache.cancel();
    expect(await answer(cache, model, tokens, 5)).toEqual(await bareAnswer(model, tokens, 5));
    await cache.dispose();
  });

  it("of tensors that somebody else wrote", async () => {
    const memory = await openMemory();
    const model = await modelOf("llama", 1);
    const cache = cacheOn(memory, { id: "chat" });
    const overwrite = () => {
      const pin = memory.tensor(`chat/0/${KEYS[1]}`)?.pin();
      pin?.bytes.fill(0);
      pin?.[Symbol.dispose]();
    };
    const tokens = await answer(cache, model, [1, 2, 3], 4);
    overwrite();
    await expect(answer(cache, model, tokens, 4)).rejects.toEqual(code("overwritten"));
    expect(await answer(cache, model, tokens, 4)).toEqual(await bareAnswer(model, tokens, 4));
    overwrite();
    await expect(cache.save()).rejects.toEqual(code("overwritten"));
    expect(await answer(cache, model, tokens, 4)).toEqual(await bareAnswer(model, tokens, 4));
    await cache.prepare([...tokens, 1]);
    overwrite();
    const during = { ...inputsOf([...tokens, 1], 4), past_key_values: cache };
    await expect(model.generate(during as never)).rejects.toEqual(code("overwritten"));
    await answer(cache, model, tokens, 4);
    await cache.prepare([...tokens, 1]);
    overwrite();
    cache.cancel();
    await expect(cache.prepare([...tokens, 1])).rejects.toEqual(code("overwritten"));
    expect(await answer(cache, model, tokens, 4)).toEqual(await bareAnswer(model, tokens, 4));
    await cache.dispose();
  });

  it("of batches, and of a second cache of the same id", async () => {
    const memory = await openMemory();
    const model = await modelOf("llama", 1);
    const cache = cacheOn(memory, { id: "chat" });
    await cache.prepare([1, 2]);
    const ids = new Tensor("int64", [1n, 2n, 3n, 4n], [2, 2]);
    const batch = {
      input_ids: ids,
      attention_mask: new Tensor("int64", [1n, 1n, 1n, 1n], [2, 2]),
      max_new_tokens: 2,
      past_key_values: cache,
    };
    await expect(model.generate(batch as never)).rejects.toEqual(code("unsupported"));
    cache.cancel();
    await answer(cache, model, [1, 2], 2);
    const second = cacheOn(memory, { id: "chat" });
    await expect(answer(second, model, [1, 2], 2)).rejects.toEqual(code("duplicate-id"));
    await second.dispose();
    await cache.dispose();
    const shared = await openMemory({ shared: true });
    const onShared = cacheOn(shared);
    await expect(answer(onShared, model, [1, 2], 2)).rejects.toEqual(code("unsupported"));
    await onShared.dispose();
  });
});

describe("entries of other forms", () => {
  const rows = (tokens: number) =>
    new Tensor(
      "float16",
      Uint16Array.from({ length: 2 * tokens * 4 }, (_, at) => at),
      [...[1, 2, tokens, 4]],
    );

  it("f16 comes back bit by bit, in a buffer of its own where the library wants one", async () => {
    const memory = await openMemory();
    const cache = cacheOn(memory);
    await cache.prepare([1, 2, 3]);
    cache.update({ "past_key_values.0.key": rows(0) });
    cache.update({ "past_key_values.0.key": rows(3) });
    const [shown] = Object.values(cache) as Tensor[];
    const { buffer, byteOffset } = (shown as Tensor).data as Uint16Array;
    expect(Array.from(new Uint16Array(buffer, byteOffset, 24))).toEqual([...Array(24).keys()]);
    expect(await cache.commit([1, 2, 3])).toBe("kept");
    await cache.dispose();
  });

  it("states of fixed shape are kept, and forgotten when the sequence would have to be cut", async () => {
    const memory = await openMemory();
    const cache = cacheOn(memory);
    const state = (value: number) =>
      new Tensor("float32", new Float32Array(12).fill(value), [...[1, 4, 3]]);
    const pass = (tokens: number, value: number) =>
      cache.update({ "past_conv.0": state(value), "past_key_values.1.key": rows(tokens) });
    await cache.prepare([1, 2, 3]);
    cache.update({
      "past_conv.0": new Tensor("float32", new Float32Array(0), [1, 4, 0]),
      "past_key_values.1.key": rows(0),
    });
    pass(3, 7);
    pass(4, 8);
    await cache.commit([1, 2, 3, 4, 5]);
    expect(await cache.prepare([1, 2, 3, 4, 5])).toBe(4);
    const [conv] = Object.values(cache) as Tensor[];
    expect(conv?.dims).toEqual([1, 4, 3]);
    expect(new Set(conv?.data as Float32Array)).toEqual(new Set([8]));
    cache.cancel();
    expect(await cache.prepare([1, 2, 9])).toBe(0);
    expect(Object.keys(cache)).toEqual([]);
    cache.cancel();
    await cache.dispose();
  });

  it("an encoder's come back as they were, without a copy", async () => {
    const memory = await openMemory();
    const cache = cacheOn(memory);
    await cache.prepare([1, 2]);
    const [decoder, encoder] = ["past_key_values.0.decoder.key", "past_key_values.0.encoder.key"];
    cache.update({ [decoder]: rows(0), [encoder]: rows(5) });
    const { copiedBytes } = cache.stats();
    const shown = (cache as unknown as Record<string, Tensor>)[encoder] as Tensor;
    cache.update({ [decoder]: rows(2), [encoder]: shown });
    expect(cache.stats().copiedBytes - copiedBytes).toBe(2 * 2 * 4 * 2);
    expect(cache.get_seq_length()).toBe(2);
    await cache.commit([1, 2]);
    await cache.dispose();
  });
});
