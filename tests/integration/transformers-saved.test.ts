// Conversations of transformers.js that were saved: found in another process, used as far as the tokens agree, damaged,
// left as they were when there is no room.
import { describe, expect, it } from "vitest";
import type { TinyFamily } from "../../examples/transformers/tiny-model.js";
import { crashStates, type MemoryFileSystem, memoryFileSystem } from "../../src/testing/index.js";
import { closeMemory, openOn } from "../support/oracle.js";
import {
  answer,
  bareAnswer,
  bareChat,
  cacheOn,
  FAMILIES,
  idsIn,
  KEYS,
  modelOf,
  promptsFor,
  rowsOf,
  TURNS,
  useTinyModels,
} from "../support/transformers-chats.js";

useTinyModels();

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
