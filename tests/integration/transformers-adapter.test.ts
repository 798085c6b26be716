// transformers.js over KV in the heap, beside the library with its own cache: equal tokens over turns,
// edits and demotion; and what the cache refuses.
import { Tensor } from "@huggingface/transformers";
import { describe, expect, it } from "vitest";
import { createPastKeyValues } from "../../src/adapters/transformers.js";
import { memoryFileSystem } from "../../src/testing/index.js";
import { openMemory, openOn } from "../support/oracle.js";
import {
  answer,
  bareAnswer,
  bareChat,
  cacheOn,
  FAMILIES,
  inputsOf,
  KEYS,
  modelOf,
  numbersIn,
  promptsFor,
  SEEDS,
  TURNS,
  useTinyModels,
} from "../support/transformers-chats.js";

useTinyModels();

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
