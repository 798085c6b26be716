// KV caches after a restart: pages by tokens, saved chats, damage.
import { describe, expect, it } from "vitest";
import { memoryFileSystem } from "../../src/testing/index.js";
import { count, expectHolds, extend, open } from "../support/kv-chats.js";
import { MIXED_LAYERS, rowsOf } from "../support/kv-model.js";
import { closeMemory, openOn } from "../support/oracle.js";

describe("a restart", () => {
  it("finds pages by tokens, and a saved chat to the token", async () => {
    const fileSystem = memoryFileSystem();
    const before = await openOn(fileSystem);
    const writer = open(before);
    const tokens = count(15);
    const extras = [{ name: "image", value: "cat", at: 13 }];
    const cache = writer.create();
    await cache.append(count(12), rowsOf(MIXED_LAYERS, tokens, 0, 12));
    await cache.append(count(3, 12), rowsOf(MIXED_LAYERS, tokens, 12), { extras });
    expect(await writer.save(cache, "alice")).toBe("stored");
    cache.free();
    await closeMemory(before);

    const after = await openOn(fileSystem);
    const reader = open(after);
    expect(await reader.match({ tokens })).toBe(12);
    for (const [query, expected] of [
      [{ id: "alice" }, 15],
      [{ id: "alice", tokens, extras }, 15],
      [{ id: "alice", tokens: [...tokens.slice(0, 14), 99], extras }, 14],
      [{ id: "alice", tokens }, 12],
      [{ id: "alice", tokens: [...count(8), 99, ...count(6)], extras }, 8],
      [{ id: "bob", tokens }, 12],
      [{ id: "bob" }, 0],
      [{ tokens: [5, ...tokens] }, 0],
    ] as const) {
      const restored = await reader.restore(query);
      expect(restored.tokenCount, JSON.stringify(query)).toBe(expected);
      await expectHolds(restored, tokens.slice(0, expected));
      restored.free();
    }
    // Other models, and other shapes, find nothing.
    for (const options of [{ fingerprint: "other" }, { salt: "s" }, { pageTokens: 5 }]) {
      const other = await open(after, options).restore({ tokens, id: "alice", extras });
      expect(other.tokenCount).toBe(0);
      other.free();
    }
    const again = await reader.restore({ id: "alice" });
    await again.truncate(13);
    await extend(again, [...count(13), 70, 71, 72, 73]);
    expect(await reader.save(again, "alice")).toBe("stored");
    again.free();
    const replaced = await reader.restore({ id: "alice" });
    await expectHolds(replaced, [...count(13), 70, 71, 72, 73]);
    replaced.free();
    expect(await reader.deleteSaved("alice")).toBe(true);
    expect((await reader.restore({ id: "alice" })).tokenCount).toBe(0);
    reader.close();
    expect(await reader.match({ tokens }).catch((error) => error.code)).toBe("closed");
  });

  it("takes a damaged page as a miss", async () => {
    const fileSystem = memoryFileSystem();
    const before = await openOn(fileSystem, { packedBytesMax: 0 });
    const writer = open(before);
    const cache = writer.create();
    await extend(cache, count(14));
    await writer.save(cache, "a");
    cache.free();
    await closeMemory(before);
    const files = [...fileSystem.files()].map(([path, bytes]) => [path, bytes.slice()] as const);
    const found: number[] = [];
    for (const [damaged, { length }] of files) {
      const other = memoryFileSystem();
      for (const [path, bytes] of files) {
        const copy = bytes.slice();
        if (path === damaged && length > 0) copy[length - 9] = (copy[length - 9] as number) ^ 1;
        other.plant(path, copy);
      }
      const after = await openOn(other, { packedBytesMax: 0 });
      const reader = open(after);
      const restored = await reader.restore({ id: "a", tokens: count(14) });
      await expectHolds(restored, count(restored.tokenCount));
      found.push(restored.tokenCount);
      restored.free();
    }
    // Each of three pages, and the rows behind them.
    expect([...new Set(found)].sort((a, b) => a - b)).toEqual([0, 4, 8, 12]);
  });
});
