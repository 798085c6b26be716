// Decoding over KV in the heap, beside the bare runtime on the unpatched model: equal tokens with delta
// rows and without, over growth, turns, demotion and edits.
import { describe, expect, it } from "vitest";
import { buildDecoder } from "../../examples/chat/model/decoder.js";
import { buildGroupedDecoder } from "../../examples/chat/model/grouped-decoder.js";
import { restride, writeRows } from "../../src/adapters/ort/layout.js";
import type { StepArrays } from "../../src/adapters/ort.js";
import type { Pin } from "../../src/index.js";
import { memoryFileSystem, seededRandom } from "../../src/testing/index.js";
import {
  answersOf,
  bareChat,
  FAMILIES,
  promptsFor,
  SEEDS,
  SIZES,
  TURNS,
} from "../support/decoder-families.js";
import { openMemory, openOn, SEED, withSeed } from "../support/oracle.js";
import {
  bareAnswers,
  Chat,
  CONCAT,
  GROUPED,
  NATIVE,
  open,
  RUNTIMES,
} from "../support/ort-chats.js";

describe.each(RUNTIMES)("$name", (runtime) => {
  const { ort, sessionOptions } = runtime;

  describe.each(FAMILIES)("$name", (family) => {
    it.each(SEEDS)(
      "seed %i answers as the bare runtime, with delta rows and without",
      async (seed) => {
        const memory = await openMemory();
        const model = family.build(seed);
        const expected = await bareAnswers(family, seed, runtime, model);
        for (const mode of ["delta", "plain"] as const) {
          const decoder = await open({ ort, sessionOptions, memory, model, mode });
          const chat = new Chat(decoder);
          expect(await answersOf(chat, seed), mode).toEqual(expected);
          const stats = decoder.stats();
          expect(stats).toMatchObject(
            mode === "delta"
              ? { mode, reason: null, checkedTokens: 8, presentBytes: 0 }
              : { mode, reason: "asked", checkedTokens: 0, rowBytes: 0 },
          );
          // All tokens but the last answer's last, once each.
          const rowBytes = 4 * 2 * SIZES.layers * family.kvHeads * 16;
          if (mode === "delta") expect(stats.rowBytes).toBe((chat.tokens.length - 1) * rowBytes);
          expect(chat.cache.growCount).toBeGreaterThan(2);
          chat.cache.free();
          await decoder.close();
        }
      },
    );
  });
});

describe("known tokens", () => {
  it("of the decoder and of the grouped decoder come out", async () => {
    const memory = await openMemory();
    const tiny = { ...SIZES, kvHeads: 4, seed: 1 };
    const decoder = await open({ memory, model: buildDecoder({ ...tiny, positions: 2048 }) });
    const chat = new Chat(decoder);
    expect(await chat.say([10, 20, 30, 40, 50, 60, 70], 12)).toEqual([
      ...[244, 217, 217, 217, 163, 8, 255, 248, 217, 163, 166, 217],
    ]);
    expect(await chat.say([99, 98, 97], 6)).toEqual([16, 205, 104, 163, 8, 38]);
    const one = buildGroupedDecoder({ ...tiny, layers: 1 });
    expect(one.byteLength).toBe(197_647);
    const groupedDecoder = await open({ memory, model: one });
    const groupedChat = new Chat(groupedDecoder);
    expect(await groupedChat.say([3, 5, 7, 9], 10)).toEqual([
      ...[73, 55, 87, 112, 47, 222, 71, 140, 52, 222],
    ]);
    for (const each of [chat, groupedChat]) {
      each.cache.free();
      await each.decoder.close();
    }
  });
});

describe("a cache", () => {
  it("holds the rows that the bare runtime returns, bit by bit, and zeros behind them", async () => {
    const memory = await openMemory();
    const decoder = await open({ memory });
    const chat = new Chat(decoder, decoder.createCache({ id: "chat" }));
    const { chat: bare, release } = await bareChat(CONCAT, CONCAT.build(1), NATIVE);
    const prompt = promptsFor(1)[0] as number[];
    await chat.say(prompt, 1);
    await bare.say(prompt, 1);
    expect(chat.cache.tokens).toEqual(prompt);
    expect(chat.cache.capacityTokens).toBe(48);
    for (const name of bare.names) {
      const present = bare.present(name);
      const pin = memory.tensor(`chat/${name}`)?.pin({ access: "read" }) as Pin<"f32">;
      const kept = pin.view;
      for (let head = 0; head < 4; head++) {
        const rows = kept.slice(head * 48 * 16, (head * 48 + 37) * 16);
        expect(rows).toEqual(present.slice(head * 37 * 16, (head + 1) * 37 * 16));
        const rest = kept.slice((head * 48 + 37) * 16, (head + 1) * 48 * 16);
        expect(rest.every((value) => value === 0)).toBe(true);
      }
      pin[Symbol.dispose]();
    }
    chat.cache.free();
    await release();
    await decoder.close();
  });

  it("comes back from the tier between two turns", async () => {
    const memory = await openOn(memoryFileSystem());
    const expected = await bareAnswers(CONCAT, 2);
    const decoder = await open({ memory, model: CONCAT.build(2) });
    const chat = new Chat(decoder, decoder.createCache({ id: "chat" }));
    const prompts = promptsFor(2);
    for (const [turn, prompt] of prompts.entries()) {
      expect(await chat.say(prompt, TURNS[turn]?.[1] ?? 0)).toEqual(expected[turn]);
      for (const name of ["0.key", "0.value", "1.key", "1.value"]) {
        expect(await memory.swapOut(`chat/${name}`)).toBe("stored");
      }
    }
    chat.cache.free();
    await decoder.close();
  });

  it("makes room by demoting other caches", async () => {
    const memory = await openOn(memoryFileSystem(), { budgets: { ram: "4MiB", ssd: "64MiB" } });
    const decoder = await open({ memory, pageTokens: 512 });
    const chats = Array.from(
      { length: 12 },
      (_, index) => new Chat(decoder, decoder.createCache({ id: `chat/${index}` })),
    );
    const prompts = promptsFor(1);
    const expected = await bareAnswers(CONCAT, 1);
    for (const [turn, prompt] of prompts.entries()) {
      for (const chat of chats) {
        expect(await chat.say(prompt, TURNS[turn]?.[1] ?? 0)).toEqual(expected[turn]);
      }
    }
    const { swapOutCount, swapInCount } = memory.stats().transfers;
    expect(swapOutCount).toBeGreaterThan(0);
    expect(swapInCount).toBeGreaterThan(0);
    for (const { cache } of chats) cache.free();
    await decoder.close();
  });

  it.each(FAMILIES)("forgets what was edited: $name", async (family) => {
    const memory = await openMemory();
    for (const mode of ["delta", "plain"] as const) {
      const decoder = await open({ memory, model: family.build(3), mode });
      const edited = new Chat(decoder);
      const [first, second] = promptsFor(3) as [number[], number[]];
      await edited.say(first, 12);
      edited.cache.truncate(20);
      edited.tokens.length = 20;
      const fresh = new Chat(decoder);
      const rest = await edited.say(second, 12);
      expect(await fresh.say([...first.slice(0, 20), ...second], 12)).toEqual(rest);
      edited.cache.truncate(0);
      edited.tokens.length = 0;
      expect(await edited.say([...first.slice(0, 20), ...second], 12)).toEqual(rest);
      edited.cache.free();
      fresh.cache.free();
      await decoder.close();
    }
  });

  it("steps beside other caches", async () => {
    const memory = await openMemory();
    const decoder = await open({ memory });
    const expected = await bareAnswers(CONCAT, 1);
    const chats = [1, 2, 3].map(() => new Chat(decoder));
    const answers = await Promise.all(chats.map((chat) => answersOf(chat, 1)));
    for (const each of answers) expect(each).toEqual(expected);
    for (const { cache } of chats) cache.free();
    await decoder.close();
  });

  it("makes nothing in a decode step", async () => {
    const memory = await openMemory();
    for (const family of [CONCAT, GROUPED]) {
      const decoder = await open({ memory, model: family.build(1), pageTokens: 64 });
      const chat = new Chat(decoder);
      await chat.say(promptsFor(1)[0] as number[], 3);
      const before = { ...decoder.stats(), arenas: memory.stats().arenas };
      await chat.say([], 12);
      const after = { ...decoder.stats(), arenas: memory.stats().arenas };
      expect(after.stepCount - before.stepCount).toBe(12);
      expect(after.madeCount).toBe(before.madeCount);
      expect(after.arenas).toEqual(before.arenas);
      chat.cache.free();
      await decoder.close();
    }
  });

  it("feeds ids and masks from where it is told, and gives them back", async () => {
    const memory = await openMemory();
    let openCount = 0;
    let takenCount = 0;
    const arrays: StepArrays = {
      begin: () => {
        openCount += 1;
      },
      take: (type, count) => {
        expect(openCount).toBe(1);
        takenCount += 1;
        return type === "int64"
          ? new BigInt64Array(count).fill(77n)
          : new Int32Array(count).fill(77);
      },
      end: () => {
        openCount -= 1;
      },
    };
    for (const family of FAMILIES) {
      const decoder = await open({ memory, model: family.build(1), arrays });
      const chat = new Chat(decoder);
      expect(await answersOf(chat, 1)).toEqual(await bareAnswers(family, 1));
      chat.cache.free();
      await decoder.close();
    }
    expect(openCount).toBe(0);
    expect(takenCount).toBeGreaterThan(100);
  });

  it("is as it was when there is no room to grow", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" } });
    const decoder = await open({ memory });
    const chat = new Chat(decoder);
    const answer = await chat.say(promptsFor(1)[0] as number[], 5);
    const { capacityTokens } = chat.cache;
    const hog: { free(): void }[] = [];
    for (let bytes = 2 ** 20; bytes >= 64; bytes /= 2) {
      for (;;) {
        const tensor = memory.tryAllocate({ kind: "KV_CACHE", byteLength: bytes });
        if (tensor === null) break;
        hog.push(tensor);
      }
    }
    await expect(chat.say(Array<number>(40).fill(7), 1)).rejects.toMatchObject({
      code: "out-of-memory",
    });
    chat.tokens.length -= 40;
    expect(chat.cache).toMatchObject({ capacityTokens, isRunning: false });
    for (const tensor of hog) tensor.free();
    const { chat: bare, release } = await bareChat(CONCAT, CONCAT.build(1), NATIVE);
    expect(await bare.say(promptsFor(1)[0] as number[], 5)).toEqual(answer);
    expect(await chat.say(promptsFor(1)[1] as number[], 9)).toEqual(
      await bare.say(promptsFor(1)[1] as number[], 9),
    );
    chat.cache.free();
    await release();
    await decoder.close();
  });
});

describe("rows", () => {
  it("lie where a model with other strides would put them", () =>
    withSeed(
      "strides",
      (seed) => {
        const random = seededRandom(seed);
        const upTo = (limit: number) => random.uint32() % (limit + 1);
        for (let count = 0; count < 400; count++) {
          const shape = { heads: 1 + upTo(4), headDim: 1 + upTo(40) };
          const [from, to] = [upTo(30), upTo(30)];
          const usedTokens = upTo(Math.min(from, to));
          const { heads, headDim } = shape;
          const values = new Float32Array(heads * Math.max(from, to) * headDim).fill(Number.NaN);
          const at = (head: number, stride: number, token: number, index: number) =>
            (head * stride + token) * headDim + index;
          const elementAt = (head: number, token: number, index: number) =>
            head * 10_000 + token * 100 + index + 1;
          const each = (tokens: number, visit: (h: number, t: number, i: number) => void) => {
            for (let head = 0; head < heads; head++)
              for (let token = 0; token < tokens; token++)
                for (let index = 0; index < headDim; index++) visit(head, token, index);
          };
          each(usedTokens, (h, t, i) => {
            values[at(h, from, t, i)] = elementAt(h, t, i);
          });
          restride(values, shape, from, to, usedTokens);
          const rowTokens = upTo(to - usedTokens);
          const rows = new Float32Array(heads * rowTokens * headDim);
          each(rowTokens, (h, t, i) => {
            rows[at(h, rowTokens, t, i)] = elementAt(h, usedTokens + t, i);
          });
          writeRows(values, rows, shape, to, usedTokens, rowTokens);
          const expected = new Float32Array(heads * to * headDim);
          each(usedTokens + rowTokens, (h, t, i) => {
            expected[at(h, to, t, i)] = elementAt(h, t, i);
          });
          expect(values.subarray(0, expected.length)).toEqual(expected);
        }
      },
      SEED,
    ));
});
