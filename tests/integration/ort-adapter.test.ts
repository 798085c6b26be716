// Decoding over KV in the heap, beside the bare runtime on the unpatched model: equal tokens with delta
// rows and without, over growth, turns, demotion and edits; and what the decoder refuses.
import * as native from "onnxruntime-node";
import * as web from "onnxruntime-web";
import { describe, expect, it } from "vitest";
import { buildDecoder } from "../../examples/chat/model/decoder.js";
import { buildGroupedDecoder } from "../../examples/chat/model/grouped-decoder.js";
import { OnnxGraph, ProtoMessage } from "../../examples/chat/model/onnx-writer.js";
import { restride, writeRows } from "../../src/adapters/ort/layout.js";
import {
  appendFragment,
  greedyToken,
  type OrtDecoder,
  type OrtDecoderOptions,
  type OrtKvCache,
  type OrtNamespace,
  openOrtDecoder,
  type StepArrays,
} from "../../src/adapters/ort.js";
import type { Pin, TensorMemory } from "../../src/index.js";
import { memoryFileSystem, seededRandom } from "../../src/testing/index.js";
import {
  answersOf,
  bareChat,
  FAMILIES,
  type Family,
  promptsFor,
  SEEDS,
  SIZES,
  TURNS,
} from "../support/decoder-families.js";
import { closeMemory, openMemory, openOn, SEED, withSeed } from "../support/oracle.js";

const [CONCAT, , GROUPED] = FAMILIES as [Family, Family, Family];

const retiredBytesOf = (memory: TensorMemory) => memory.stats().budget.byCategory.retired;

const RUNTIMES = [
  { name: "onnxruntime-node", ort: native, sessionOptions: { logSeverityLevel: 4 } },
  {
    name: "onnxruntime-web (wasm)",
    ort: web,
    sessionOptions: { executionProviders: ["wasm"], logSeverityLevel: 4 },
  },
] as const;
const [NATIVE] = RUNTIMES;

/** Adds answers to a conversation: each token is the model's best. */
class Chat {
  readonly tokens: number[] = [];
  readonly decoder: OrtDecoder;
  readonly cache: OrtKvCache;

  constructor(decoder: OrtDecoder, cache = decoder.createCache()) {
    this.decoder = decoder;
    this.cache = cache;
  }

  async say(prompt: readonly number[], answerTokens: number): Promise<number[]> {
    this.tokens.push(...prompt);
    const from = this.tokens.length;
    while (this.tokens.length < from + answerTokens) {
      const { logits } = await this.decoder.step(this.cache, this.tokens);
      this.tokens.push(greedyToken(logits));
    }
    return this.tokens.slice(from);
  }
}

/** Bare answers to the prompts of a seed. */
async function bareAnswers(
  family: Family,
  seed: number,
  runtime: (typeof RUNTIMES)[number] = NATIVE,
  model = family.build(seed),
): Promise<number[][]> {
  const { chat, release } = await bareChat(family, model, runtime);
  const answers = await answersOf(chat, seed);
  await release();
  // A family whose answers hardly depend on its KV would prove nothing.
  expect(new Set(answers.flat()).size).toBeGreaterThan(5);
  return answers;
}

async function open(
  options: Partial<OrtDecoderOptions> & { memory: TensorMemory },
): Promise<OrtDecoder> {
  const { ort, sessionOptions } = NATIVE;
  const model = CONCAT.build(1);
  return openOrtDecoder({ ort, sessionOptions, model, pageTokens: 16, ...options });
}

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

describe("opening", () => {
  /** A runtime whose calls are changed on their way. */
  function wrapped(change: {
    readonly create?: (model: Uint8Array) => void;
    readonly run?: (names: readonly string[]) => void;
  }): OrtNamespace & { createCount: number } {
    const namespace = {
      createCount: 0,
      Tensor: native.Tensor,
      InferenceSession: {
        create: async (model: Uint8Array, options: never) => {
          namespace.createCount += 1;
          change.create?.(model);
          const session = await native.InferenceSession.create(model, options);
          return {
            release: () => session.release(),
            run: (feeds: Record<string, native.Tensor>, names: readonly string[]) => {
              change.run?.(names);
              return session.run(feeds, names as string[]);
            },
          };
        },
      },
    };
    return namespace;
  }

  it("refuses what is no model before it asks the runtime", async () => {
    const memory = await openMemory();
    const ort = wrapped({});
    const cases = [new Uint8Array(9), CONCAT.build(1).slice(0, 5000), new OnnxGraph().toModel()];
    for (const model of cases) {
      await expect(open({ memory, ort, model })).rejects.toMatchObject({
        code: expect.stringMatching(/^(malformed|unsupported)$/),
      });
    }
    await expect(open({ memory, ort, checkTokens: -1 })).rejects.toMatchObject({
      code: "bad-option",
    });
    await expect(open({ memory, ort, pageTokens: 0 })).rejects.toMatchObject({
      code: "bad-option",
    });
    expect(ort.createCount).toBe(0);
    const refused = open({
      memory,
      ort: wrapped({
        create: () => {
          throw new Error("no");
        },
      }),
    });
    await expect(refused).rejects.toMatchObject({ code: "unsupported" });
  });

  it("is plain where the runtime refuses the patched model", async () => {
    const memory = await openMemory();
    const model = CONCAT.build(1);
    const ort = wrapped({
      create: ({ byteLength }) => {
        if (byteLength > model.byteLength) throw new Error("no patched models");
      },
    });
    const decoder = await open({ memory, ort, model });
    expect(decoder.stats()).toMatchObject({ mode: "plain", reason: "load-failed" });
    const chat = new Chat(decoder);
    expect(await answersOf(chat, 1)).toEqual(await bareAnswers(CONCAT, 1));
    chat.cache.free();
    await decoder.close();
  });

  it("is plain where the runtime cannot run the patched model", async () => {
    const memory = await openMemory();
    const ort = wrapped({
      run: (names) => {
        if (!names.some((name) => name.startsWith("present"))) throw new Error("no rows");
      },
    });
    const decoder = await open({ memory, ort });
    expect(decoder.stats()).toMatchObject({ mode: "plain", reason: "run-failed" });
    await decoder.close();
  });

  it("is plain where positions come from the length of the mask", async () => {
    const memory = await openMemory();
    const model = buildPositionsFromMask(4);
    const decoder = await open({ memory, model });
    expect(decoder.stats()).toMatchObject({ mode: "plain", reason: "check-failed" });
    const chat = new Chat(decoder);
    const expected = await bareAnswers(CONCAT, 4, NATIVE, model);
    expect(await answersOf(chat, 4)).toEqual(expected);
    // Unchecked, the same model gives other tokens: the check has something to find.
    const unchecked = new Chat(await open({ memory, model, checkTokens: 0 }));
    expect(unchecked.decoder.stats()).toMatchObject({ mode: "delta", checkedTokens: 0 });
    expect(await answersOf(unchecked, 4)).not.toEqual(expected);
    for (const { cache, decoder: each } of [chat, unchecked]) {
      cache.free();
      await each.close();
    }
  });

  it("is plain where the graph is not one that is known", async () => {
    const memory = await openMemory();
    const model = buildHalf("Max");
    await expect(open({ memory, model: buildHalf("Nonsense") })).rejects.toMatchObject({
      code: "unsupported",
    });
    const decoder = await open({ memory, model });
    expect(decoder.stats()).toMatchObject({ mode: "plain", reason: "unknown-cache" });
    await decoder.close();
  });

  it("keeps KV of f16 as it is", async () => {
    const memory = await openMemory();
    const kept: Uint16Array[] = [];
    for (const mode of ["delta", "plain"] as const) {
      const decoder = await open({ memory, model: buildHalf("Concat"), mode, pageTokens: 8 });
      expect(decoder.stats().mode).toBe(mode);
      const cache = decoder.createCache({ id: mode });
      await decoder.step(cache, [1, 2, 3]);
      await decoder.step(cache, [1, 2, 3, 1]);
      const { logits } = await decoder.step(cache, [1, 2, 3, 1, 2, 0, 3, 2]);
      expect(logits).toBeInstanceOf(Uint16Array);
      expect(greedyToken(logits)).toBe(2);
      const pin = memory.tensor(`${mode}/0.key`)?.pin({ access: "read" }) as Pin<"f16">;
      kept.push(pin.view.slice());
      pin[Symbol.dispose]();
      cache.free();
      await decoder.close();
    }
    const halves = [0x3c00, 0x4000, 0x4000, 0x4400];
    expect([...(kept[0] as Uint16Array).slice(0, 4)]).toEqual(halves);
    expect(kept[1]).toEqual(kept[0]);
  });

  it("leaves weights where they are outside of the file", async () => {
    const memory = await openMemory();
    const model = CONCAT.build(5);
    const expected = await bareAnswers(CONCAT, 5);
    const { outside, data } = moveHeadOutside(model);
    expect(outside.byteLength).toBeLessThan(model.byteLength);
    const sessionOptions = { ...NATIVE.sessionOptions, externalData: [{ path: "head.bin", data }] };
    const decoder = await open({ memory, model: outside, sessionOptions });
    expect(decoder.stats().mode).toBe("delta");
    const chat = new Chat(decoder);
    expect(await answersOf(chat, 5)).toEqual(expected);
    chat.cache.free();
    await decoder.close();
  });

  it("refuses a shared memory", async () => {
    const memory = await openMemory({ shared: true });
    await expect(open({ memory })).rejects.toMatchObject({ code: "unsupported" });
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

/** The decoder, but for its positions: those of the mask's last tokens in place of `position_ids`. */
function buildPositionsFromMask(seed: number): Uint8Array<ArrayBuffer> {
  const model = CONCAT.build(seed);
  const bytes = Buffer.from(model.buffer);
  // The first mention is the node's; another name of that length leaves the file's layout alone.
  const at = bytes.indexOf("position_ids");
  bytes.write("key_place_of", at);
  const node = new ProtoMessage().text(1, "qi").text(2, "key_place_of").text(4, "Identity");
  return appendFragment(
    model,
    new ProtoMessage().message(7, new ProtoMessage().message(1, node)).toBytes(),
  );
}

/** One layer with f16 KV: `Concat`, or another operator of the same inputs. */
function buildHalf(operator: string): Uint8Array<ArrayBuffer> {
  const graph = new OnnxGraph();
  for (const name of ["input_ids", "attention_mask", "position_ids"]) {
    graph.input(name, "int64", ["batch", name === "attention_mask" ? "total" : "sequence"]);
  }
  const multiples = Float32Array.from({ length: 16 }, (_, at) => (at >> 2) * ((at & 3) + 1));
  graph.floats("table", [4, 4], multiples);
  graph.floats("bias", [4], Float32Array.of(0, 0.5, 99, -1));
  graph.integers("split", [4], [0, 0, 2, 2]);
  graph.node("Gather", ["table", "input_ids"], "x");
  graph.node("Reshape", ["x", "split"], "x4");
  graph.node("Transpose", ["x4"], "xt", { perm: [0, 2, 1, 3] });
  graph.node("Cast", ["xt"], "rows", { to: 10 });
  for (const part of ["key", "value"]) {
    const past = `past_key_values.0.${part}`;
    graph.input(past, "float16", ["batch", 2, "past", 2]);
    const inputs = operator === "Max" ? ["rows"] : [past, "rows"];
    const joined = operator === "Max" ? `joined.${part}` : `present.0.${part}`;
    if (operator === "Max") graph.node("Concat", [past, "rows"], joined, { axis: 2 });
    graph.node(
      ...([operator, operator === "Max" ? [joined] : inputs, `present.0.${part}`] as const),
      operator === "Concat" ? { axis: 2 } : {},
    );
    graph.output(`present.0.${part}`, "float16", ["batch", 2, "total", 2]);
  }
  graph.node("Add", ["x", "bias"], "wide");
  graph.node("Cast", ["wide"], "logits", { to: 10 });
  graph.output("logits", "float16", ["batch", "sequence", 4]);
  return graph.toModel();
}

/** Takes the decoder's last weights out and declares them again, as a file beside the model. */
function moveHeadOutside(model: Uint8Array<ArrayBuffer>): {
  outside: Uint8Array<ArrayBuffer>;
  data: Uint8Array;
} {
  const dataBytes = 64 * 256 * 4;
  // The last initialiser: its name, the tag and the length of its data, and the data.
  const at = Buffer.from(model.buffer).indexOf(Buffer.from([0x42, 4, ...Buffer.from("head")]));
  expect(at).toBeGreaterThan(0);
  const dataAt = at + 6 + 1 + 3;
  const data = model.slice(dataAt, dataAt + dataBytes);
  const external = (key: string, value: string) => new ProtoMessage().text(1, key).text(2, value);
  const tensor = new ProtoMessage()
    .packed(1, [64, 256])
    .varint(2, 1)
    .text(8, "head")
    .message(13, external("location", "head.bin"))
    .message(13, external("offset", "0"))
    .message(13, external("length", String(dataBytes)))
    .varint(14, 1);
  const without = withoutInitializer(model, "head");
  const fragment = new ProtoMessage().message(7, new ProtoMessage().message(5, tensor)).toBytes();
  return { outside: appendFragment(without, fragment), data };
}

/** Copies a model without one of its initialisers. */
function withoutInitializer(model: Uint8Array<ArrayBuffer>, name: string): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.from(model.buffer);
  const varint = (at: number): [value: number, next: number] => {
    let value = 0;
    for (let next = at, factor = 1; ; factor *= 128) {
      const byte = bytes[next++] as number;
      value += (byte & 127) * factor;
      if (byte < 128) return [value, next];
    }
  };
  const target = new ProtoMessage();
  for (let at = 0; at < bytes.length; ) {
    const [tag, afterTag] = varint(at);
    const [value, start] = varint(afterTag);
    if (tag % 8 === 0) {
      target.varint(tag >> 3, value);
      at = start;
      continue;
    }
    const payload = model.subarray(start, start + value);
    if (tag >> 3 === 7) target.message(7, graphWithout(payload, name));
    else target.bytes(tag >> 3, payload);
    at = start + value;
  }
  return target.toBytes();

  function graphWithout(graph: Uint8Array, without: string): ProtoMessage {
    const kept = new ProtoMessage();
    const base = graph.byteOffset - model.byteOffset;
    for (let at = base; at < base + graph.length; ) {
      const [tag, afterTag] = varint(at);
      const [length, start] = varint(afterTag);
      const payload = model.subarray(start, start + length);
      const isIt = tag >> 3 === 5 && Buffer.from(payload.slice(0, 40)).includes(`\x04${without}`);
      if (!isIt) kept.bytes(tag >> 3, payload);
      at = start + length;
    }
    return kept;
  }
}
