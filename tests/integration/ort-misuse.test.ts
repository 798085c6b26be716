// What the decoder refuses while it runs: bytes that move or change under a run, caches of others, what is over.
import { describe, expect, it } from "vitest";
import { greedyToken, type OrtKvCache } from "../../src/adapters/ort.js";
import type { Pin } from "../../src/index.js";
import { memoryFileSystem } from "../../src/testing/index.js";
import { promptsFor } from "../support/decoder-families.js";
import { openMemory, openOn } from "../support/oracle.js";
import { bareAnswers, Chat, CONCAT, open } from "../support/ort-chats.js";

describe("misuse", () => {
  async function started() {
    const memory = await openOn(memoryFileSystem());
    const decoder = await open({ memory });
    const chat = new Chat(decoder, decoder.createCache({ id: "chat" }));
    await chat.say(promptsFor(1)[0] as number[], 4);
    const finish = async () => {
      chat.cache[Symbol.dispose]();
      await decoder.close();
    };
    return { memory, decoder, chat, finish };
  }

  it("of bytes under a run: nothing moves, leaves, changes its shape or is freed", async () => {
    const { memory, decoder, chat, finish } = await started();
    const expected = await bareAnswers(CONCAT, 1);
    const id = "chat/0.key";
    const step = decoder.step(chat.cache, chat.tokens);
    expect(chat.cache.isRunning).toBe(true);
    expect(() => memory.free(id)).toThrow(expect.objectContaining({ code: "pinned" }));
    expect(() => memory.tensor(id)?.resize({ shape: [1] })).toThrow(
      expect.objectContaining({ code: "pinned" }),
    );
    await expect(memory.swapOut(id)).rejects.toMatchObject({ code: "pinned" });
    await expect(memory.delete(id)).rejects.toMatchObject({ code: "pinned" });
    expect(() => chat.cache.free()).toThrow(expect.objectContaining({ code: "re-entrant" }));
    expect(() => chat.cache.truncate(1)).toThrow(expect.objectContaining({ code: "re-entrant" }));
    memory.compact();
    await expect(decoder.step(chat.cache, chat.tokens)).rejects.toMatchObject({
      code: "re-entrant",
    });
    chat.tokens.push(greedyToken((await step).logits));
    expect(chat.tokens.slice(37)).toEqual(expected[0]?.slice(0, 5));
    await finish();
  });

  it("of bytes that somebody else writes: before a run, and during it", async () => {
    for (const isDuring of [false, true]) {
      const { memory, decoder, chat, finish } = await started();
      const tokensBefore = chat.cache.tokens;
      const step = isDuring ? decoder.step(chat.cache, chat.tokens) : null;
      const pin = memory.tensor("chat/1.value")?.pin() as Pin<"f32">;
      pin.view.fill(1);
      if (isDuring) pin[Symbol.dispose]();
      await expect(step ?? decoder.step(chat.cache, chat.tokens)).rejects.toMatchObject({
        code: "overwritten",
      });
      pin[Symbol.dispose]();
      // It stays refused: nobody knows what the rows are.
      await expect(decoder.step(chat.cache, chat.tokens)).rejects.toMatchObject({
        code: "overwritten",
      });
      expect(chat.cache.tokens).toEqual(tokensBefore);
      await finish();
    }
  });

  it("of another model's cache, of one of another memory, and of one that is none", async () => {
    const { memory, decoder, chat, finish } = await started();
    const other = await open({ memory, model: CONCAT.build(2) });
    const elsewhere = await open({ memory: await openMemory() });
    for (const each of [other, elsewhere]) {
      await expect(each.step(chat.cache, chat.tokens)).rejects.toMatchObject({
        code: "foreign-cache",
      });
    }
    await expect(decoder.step({} as OrtKvCache, chat.tokens)).rejects.toMatchObject({
      code: "foreign-cache",
    });
    // The same model opened twice shares its caches.
    const twin = await open({ memory });
    expect(twin.fingerprint).toBe(decoder.fingerprint);
    await twin.step(chat.cache, chat.tokens);
    await Promise.all([other.close(), elsewhere.close(), twin.close()]);
    await finish();
  });

  it("of changed tokens", async () => {
    const { decoder, chat, finish } = await started();
    const changed = chat.tokens.with(5, ((chat.tokens[5] as number) + 1) % 256);
    for (const tokens of [changed, chat.tokens.slice(0, -1), chat.tokens.slice(0, 3), []]) {
      await expect(decoder.step(chat.cache, tokens)).rejects.toMatchObject({
        code: "token-mismatch",
      });
    }
    for (const token of [256, -1, 1.5, Number.NaN]) {
      await expect(decoder.step(chat.cache, [...chat.tokens, token])).rejects.toMatchObject({
        code: "bad-option",
      });
    }
    for (const tokenCount of [-1, 1.5, 41]) {
      expect(() => chat.cache.truncate(tokenCount)).toThrow(
        expect.objectContaining({ code: "bad-option" }),
      );
    }
    const expected = await bareAnswers(CONCAT, 1);
    await chat.say([], 16);
    expect(chat.tokens.slice(37)).toEqual(expected[0]);
    await finish();
  });

  it("of what is over", async () => {
    const { memory, decoder, chat } = await started();
    chat.cache.free();
    expect(() => chat.cache.free()).toThrow(expect.objectContaining({ code: "freed" }));
    await expect(decoder.step(chat.cache, chat.tokens)).rejects.toMatchObject({ code: "freed" });
    const named = decoder.createCache({ id: "named" });
    await decoder.step(named, [1, 2]);
    memory.free("named/0.key");
    await expect(decoder.step(named, [1, 2, 3])).rejects.toMatchObject({ code: "freed" });
    named.free();
    const pending = decoder.step(decoder.createCache(), [1, 2, 3]);
    const closing = decoder.close();
    expect((await pending).logits).toHaveLength(256);
    await closing;
    expect(() => decoder.createCache()).toThrow(expect.objectContaining({ code: "closed" }));
    await expect(decoder.step(chat.cache, [1])).rejects.toMatchObject({ code: "closed" });
  });
});
