// Caches that are opened again, in this process and in another, and caches that share what they began with.
import { describe, expect, it } from "vitest";
import type { OrtKvCache } from "../../src/adapters/ort.js";
import { memoryFileSystem } from "../../src/testing/index.js";
import { FAMILIES, type Family, promptsFor, TURNS } from "../support/decoder-families.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";
import { bareAnswers, Chat, CONCAT, open, retiredBytesOf } from "../support/ort-chats.js";

describe("a cache that is opened again or forked", () => {
  const NAMES = ["0.key", "0.value", "1.key", "1.value"];

  it("goes on in another process, over what was saved", async () => {
    const files = memoryFileSystem();
    const expected = await bareAnswers(CONCAT, 1);
    const [first, ...others] = promptsFor(1) as [number[], ...number[][]];
    const before = await openOn(files);
    const decoder = await open({ memory: before });
    const chat = new Chat(decoder, decoder.createCache({ id: "chat" }));
    expect(await chat.say(first, TURNS[0][1])).toEqual(expected[0]);
    expect(await chat.cache.save()).toBe("stored");
    await decoder.close();
    await closeMemory(before);

    const after = await openOn(files);
    const next = await open({ memory: after });
    expect(await next.openCache({ id: "other", tokens: [1] })).toBeNull();
    const tokens = chat.cache.tokens;
    const cache = (await next.openCache({ id: "chat", tokens })) as OrtKvCache;
    expect(cache.tokens).toEqual(tokens);
    const again = new Chat(next, cache);
    again.tokens.push(...chat.tokens);
    for (const [index, prompt] of others.entries()) {
      const turn = index + 1;
      expect(await again.say(prompt, TURNS[turn]?.[1] ?? 0)).toEqual(expected[turn]);
    }
    cache.free();
    await next.close();
  });

  it("keeps no memory of an arena that its tensors have left", async () => {
    const memory = await openOn(memoryFileSystem());
    const decoder = await open({ memory });
    const cache = decoder.createCache({ id: "chat" });
    await decoder.step(cache, [1, 2, 3]);
    await decoder.step(cache, [1, 2, 3, 4]);
    for (const id of cache.ids) expect(await memory.swapOut(id)).toBe("stored");
    expect(memory.trim()).toBeGreaterThan(0);
    for (let round = 0; round < 50 && retiredBytesOf(memory) > 0; round++) {
      globalThis.gc?.();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(retiredBytesOf(memory)).toBe(0);
    expect(cache.tokenCount).toBe(4);
    await decoder.step(cache, [1, 2, 3, 4, 5]);
    cache.free();
    await decoder.close();
    await closeMemory(memory);
  });

  it("is none where the tensors do not fit the model or the tokens", async () => {
    const memory = await openMemory();
    const decoder = await open({ memory });
    const cache = decoder.createCache({ id: "chat", capacityTokens: 7 });
    await decoder.step(cache, [1, 2, 3]);
    expect(cache.capacityTokens).toBe(7);
    const opened = await decoder.openCache({ id: "chat", tokens: [1, 2, 3] });
    expect(opened?.tokens).toEqual([1, 2, 3]);
    const changed = decoder.openCache({ id: "chat", tokens: new Uint8Array(8) });
    await expect(changed).rejects.toMatchObject({ code: "token-mismatch" });
    const other = await open({ memory, model: (FAMILIES[1] as Family).build(1) });
    const foreign = other.openCache({ id: "chat", tokens: [1, 2, 3] });
    await expect(foreign).rejects.toMatchObject({ code: "foreign-cache" });
    await expect(decoder.openCache({ id: "", tokens: [] })).rejects.toMatchObject({
      code: "bad-id",
    });
    cache.free();
    await other.close();
    await decoder.close();
  });

  it.each(FAMILIES)("goes on beside the other: $name", async (family) => {
    const memory = await openOn(memoryFileSystem());
    const [first, second, , last] = promptsFor(5) as [number[], number[], number[], number[]];
    for (const mode of ["delta", "plain"] as const) {
      const decoder = await open({ memory, model: family.build(5), mode });
      const chat = new Chat(decoder, decoder.createCache({ id: "chat" }));
      await chat.say(first, 6);
      const options = { id: "fork", capacityTokens: 61 };
      const fork = new Chat(decoder, await decoder.forkCache(chat.cache, options));
      fork.tokens.push(...chat.tokens);
      expect(fork.cache.capacityTokens).toBe(61);
      const [own, forked] = [await chat.say(second, 9), await fork.say(last, 9)];
      for (const [prompt, answer] of [
        [second, own],
        [last, forked],
      ] as const) {
        const fresh = new Chat(decoder);
        const whole = [...chat.tokens.slice(0, first.length + 6), ...prompt];
        expect(await fresh.say(whole, 9)).toEqual(answer);
        fresh.cache.free();
      }
      // One that has left, and an empty one.
      for (const name of NAMES) await memory.swapOut(`fork/${name}`);
      const third = await decoder.forkCache(fork.cache);
      expect(third.tokens).toEqual(fork.cache.tokens);
      const empty = await decoder.forkCache(decoder.createCache());
      expect(empty.tokenCount).toBe(0);
      for (const cache of [chat.cache, fork.cache, third, empty]) cache.free();
      await decoder.close();
    }
  });

  it("is refused under a run, from elsewhere, and where there is no room", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" } });
    const decoder = await open({ memory, pageTokens: 512 });
    const chat = new Chat(decoder);
    await chat.say(promptsFor(1)[0] as number[], 2);
    const step = decoder.step(chat.cache, chat.tokens);
    await expect(decoder.forkCache(chat.cache)).rejects.toMatchObject({ code: "re-entrant" });
    await step;
    await expect(decoder.forkCache({} as OrtKvCache)).rejects.toMatchObject({
      code: "foreign-cache",
    });
    const forks: OrtKvCache[] = [];
    const filling = async () => {
      for (;;) forks.push(await decoder.forkCache(chat.cache));
    };
    await expect(filling()).rejects.toMatchObject({ code: "out-of-memory" });
    expect(forks.length).toBeGreaterThan(0);
    expect(chat.cache.isRunning).toBe(false);
    for (const cache of [...forks, chat.cache]) cache.free();
    await decoder.close();
  });
});
