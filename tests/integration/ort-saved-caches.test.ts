// Caches that are saved and opened again: what is opened is for exactly the tokens and the model that
// were saved, or it is none. And chats that may be dropped, since they can be computed again.
import * as ort from "onnxruntime-node";
import { afterEach, describe, expect, it } from "vitest";
import { buildDecoder } from "../../examples/chat/model/decoder.js";
import { readSeal, saveSealed } from "../../src/adapters/ort/cache-seal.js";
import {
  greedyToken,
  type OrtDecoder,
  type OrtDecoderOptions,
  type OrtKvCache,
  openOrtDecoder,
} from "../../src/adapters/ort.js";
import type { Tensor, TensorMemory } from "../../src/index.js";
import { manualClock, memoryFileSystem, seededRandom } from "../../src/testing/index.js";
import { BareChat } from "../support/bare-decoder.js";
import { closeMemory, openMemory, openOn, withSeed } from "../support/oracle.js";

const SIZES = { layers: 2, hidden: 64, heads: 4, kvHeads: 2, vocabulary: 256 };
const NAMES = ["0.key", "0.value", "1.key", "1.value"];
const modelOf = (seed: number) =>
  buildDecoder({ ...SIZES, positions: 512, attentionSharpness: 6, seed });
const sessionOptions = { logSeverityLevel: 4 } as const;

const decoders: OrtDecoder[] = [];
afterEach(async () => {
  for (const decoder of decoders.splice(0)) await decoder.close();
});

async function open(memory: TensorMemory, options: Partial<OrtDecoderOptions> = {}) {
  const model = modelOf(1);
  const rest = { ort, memory, model, sessionOptions, pageTokens: 16, checkTokens: 0 };
  const decoder = await openOrtDecoder({ ...rest, ...options });
  decoders.push(decoder);
  return decoder;
}

/** Each process has a later wall clock than the one before. */
let processCount = 0;
function process(files: ReturnType<typeof memoryFileSystem>) {
  processCount += 1;
  const clock = manualClock({ sleeping: "skip", startMs: 1_000_000 + processCount * 10_000 });
  return openOn(files, { seams: { clock } });
}

/** Adds `count` answers to `tokens`. */
async function answer(decoder: OrtDecoder, cache: OrtKvCache, tokens: number[], count: number) {
  const from = tokens.length;
  while (tokens.length < from + count) {
    tokens.push(greedyToken((await decoder.step(cache, tokens)).logits));
  }
  return tokens.slice(from);
}

/** What the bare runtime answers to a prompt. */
async function bareAnswer(prompt: readonly number[], count: number): Promise<number[]> {
  const session = await ort.InferenceSession.create(modelOf(1), sessionOptions);
  const sizes = { layers: SIZES.layers, kvHeads: SIZES.kvHeads, headDim: 16, capacityTokens: 256 };
  const answers = await new BareChat({ ort, session, style: "concat", ...sizes }).say(
    prompt,
    count,
  );
  await session.release();
  return answers;
}

const PROMPT = Array.from({ length: 21 }, (_, index) => (index * 37 + 11) % 256);

/** A chat of 30 tokens, saved as `chat` by a process that has ended. */
async function savedChat(mode: "delta" | "plain" = "delta") {
  const files = memoryFileSystem();
  const memory = await process(files);
  const decoder = await open(memory, { mode });
  const cache = decoder.createCache({ id: "chat" });
  const tokens = [...PROMPT];
  await answer(decoder, cache, tokens, 9);
  expect(await cache.save({ mode: "durable" })).toBe("stored");
  cache.free();
  await closeMemory(memory);
  return { files, tokens, held: tokens.slice(0, -1) };
}

describe("a saved cache", () => {
  it.each(["delta", "plain"] as const)(
    "goes on with what tokens have in common, %s",
    async (mode) => {
      const { files, tokens, held } = await savedChat(mode);
      const memory = await process(files);
      const decoder = await open(memory, { mode });
      const longer = [...tokens, 5, 6, 7];
      const whole = await bareAnswer(longer, 12);
      for (const [given, kept] of [
        [undefined, held],
        [longer, held],
        [held, held],
        [PROMPT, PROMPT],
        [PROMPT.slice(0, 3), PROMPT.slice(0, 3)],
      ]) {
        const cache = await decoder.openCache({ id: "chat", ...(given && { tokens: given }) });
        expect(cache?.tokens).toEqual(kept);
        expect(await answer(decoder, cache as OrtKvCache, [...longer], 12)).toEqual(whole);
        cache?.free();
      }
      expect(await decoder.openCache({ id: "other" })).toBeNull();
    },
  );

  it.each(["delta", "plain"] as const)("that a GPU has sealed goes on, %s", async (mode) => {
    const files = memoryFileSystem();
    const before = await process(files);
    const writer = await open(before, { mode });
    const cache = writer.createCache({ id: "chat" });
    const tokens = [...PROMPT];
    await answer(writer, cache, tokens, 9);
    const held = cache.tokens;
    const stride = mode === "delta" ? cache.capacityTokens : held.length;
    const { fingerprint } = writer;
    const seal = { fingerprint, tokens: held, stride };
    expect(await saveSealed(before, "chat", cache.ids, seal, { mode: "durable" })).toBe("stored");
    await closeMemory(before);

    const memory = await process(files);
    const decoder = await open(memory, { mode });
    const other = await open(memory, { mode, fingerprint: "another" });
    await expect(other.openCache({ id: "chat" })).rejects.toMatchObject({ code: "foreign-cache" });
    await expect(decoder.openCache({ id: "chat", tokens: [1, 2] })).rejects.toMatchObject({
      code: "token-mismatch",
    });
    const again = (await decoder.openCache({ id: "chat" })) as OrtKvCache;
    expect(again.tokens).toEqual(held);
    expect(await readSeal(memory, "chat")).toEqual(seal);
    expect(await answer(decoder, again, tokens, 3)).toEqual(
      (await bareAnswer(PROMPT, 12)).slice(9),
    );
    // Rows behind those that the seal names leave it true, where rows stay where they are.
    expect((await readSeal(memory, "chat")) !== null).toBe(mode === "delta");
    again.truncate(5);
    await answer(decoder, again, [...held.slice(0, 5), 7], 1);
    expect(await readSeal(memory, "chat")).toBeNull();
    again.free();
    expect(await decoder.openCache({ id: "chat" })).toBeNull();
  });

  it("is refused for other tokens, and for another model or mode", async () => {
    const { files, held } = await savedChat();
    const memory = await process(files);
    const decoder = await open(memory);
    for (const index of [0, 17, held.length - 1]) {
      const changed = held.with(index, ((held[index] as number) + 1) % 256);
      await expect(decoder.openCache({ id: "chat", tokens: changed })).rejects.toMatchObject({
        name: "MisuseError",
        code: "token-mismatch",
      });
    }
    const others = [{ model: modelOf(2) }, { fingerprint: "other" }, { mode: "plain" as const }];
    for (const options of others) {
      const other = await open(memory, options);
      await expect(other.openCache({ id: "chat" })).rejects.toMatchObject({
        code: "foreign-cache",
      });
    }
    expect((await decoder.openCache({ id: "chat" }))?.tokens).toEqual(held);
  });

  it("is none when its rows are not those that were saved with the tokens", async () => {
    const { files } = await savedChat();
    // One tensor saved again by itself, with rows of another chat.
    const memory = await process(files);
    const lease = await memory.acquire<"f32">("chat/1.value");
    lease?.view.fill(0.5);
    lease?.[Symbol.dispose]();
    await memory.save("chat/1.value");
    await closeMemory(memory);
    const next = await process(files);
    expect(await (await open(next)).openCache({ id: "chat" })).toBeNull();
  });

  it("is none when its tensors were written since, in this process", async () => {
    const { files } = await savedChat();
    const memory = await process(files);
    const decoder = await open(memory);
    const lease = await memory.acquire("chat/0.key");
    lease?.[Symbol.dispose]();
    expect(await decoder.openCache({ id: "chat" })).toBeNull();
  });

  const spoilt: [string, (memory: TensorMemory) => Promise<unknown>][] = [
    ["its tokens are gone", (memory) => memory.delete("chat/tokens")],
    ["a tensor is gone", (memory) => memory.delete("chat/0.value")],
    ...["", "null", "{", '{"version":2}', '{"version":1,"fingerprint":"a","isTight":false}'].map(
      (text): [string, (memory: TensorMemory) => Promise<unknown>] => [
        `its tokens are ${JSON.stringify(text)}`,
        async (memory) => {
          const bytes = new TextEncoder().encode(text.padEnd(1, "\0"));
          await memory.delete("chat/tokens");
          const { byteLength } = bytes;
          const tensor = memory.allocate({ kind: "KV_CACHE", id: "chat/tokens", byteLength });
          const pin = tensor.pin();
          pin.view.set(bytes);
          pin[Symbol.dispose]();
          await memory.save("chat/tokens");
        },
      ],
    ),
  ];
  it.each(spoilt)("is none when %s", async (_name, spoil) => {
    const { files } = await savedChat();
    const memory = await process(files);
    await spoil(memory);
    await closeMemory(memory);
    const next = await process(files);
    const decoder = await open(next);
    expect(await decoder.openCache({ id: "chat" })).toBeNull();
    // The id is free for a new one.
    const cache = decoder.createCache({ id: "chat" });
    expect(await answer(decoder, cache, [...PROMPT], 3)).toEqual(await bareAnswer(PROMPT, 3));
    expect(await cache.save()).toBe("stored");
  });

  it("needs an id, quiet, and room", async () => {
    const memory = await openMemory();
    const decoder = await open(memory);
    const anonymous = decoder.createCache();
    await expect(anonymous.save()).rejects.toMatchObject({ code: "bad-id" });
    const cache = decoder.createCache({ id: "chat" });
    const step = decoder.step(cache, PROMPT);
    await expect(cache.save()).rejects.toMatchObject({ code: "re-entrant" });
    await step;
    // No tier.
    expect(await cache.save()).toBe("no-space");
    const pin = memory.tensor("chat/0.key")?.pin();
    await expect(cache.save()).rejects.toMatchObject({ code: "overwritten" });
    pin?.[Symbol.dispose]();
    cache.free();
    await expect(cache.save()).rejects.toMatchObject({ code: "freed" });
  });
});

describe("a cache of the same process", () => {
  it("is opened while the other is quiet, and writes alone from then on", async () => {
    const memory = await openMemory();
    const decoder = await open(memory);
    const first = decoder.createCache({ id: "chat" });
    const step = decoder.step(first, PROMPT);
    await expect(decoder.openCache({ id: "chat" })).resolves.toBeNull();
    await step;
    const next = decoder.step(first, [...PROMPT, 1]);
    await expect(decoder.openCache({ id: "chat" })).rejects.toMatchObject({ code: "re-entrant" });
    await next;
    const second = (await decoder.openCache({ id: "chat" })) as OrtKvCache;
    expect(second.tokens).toEqual([...PROMPT, 1]);
    await decoder.step(second, [...PROMPT, 1, 2]);
    const late = decoder.step(first, [...PROMPT, 1, 3]);
    await expect(late).rejects.toMatchObject({ code: "overwritten" });
    expect((await decoder.openCache({ id: "chat" }))?.tokens).toEqual([...PROMPT, 1, 2]);
    const pin = memory.tensor("chat/0.key")?.pin();
    pin?.[Symbol.dispose]();
    const opening = decoder.openCache({ id: "chat" });
    await expect(opening).rejects.toMatchObject({ code: "overwritten" });
    second.free();
    expect(await decoder.openCache({ id: "chat" })).toBeNull();
  });

  it("can be deleted by its id, with what was saved", async () => {
    const { files } = await savedChat();
    const memory = await process(files);
    const decoder = await open(memory);
    expect(await decoder.openCache({ id: "chat" })).not.toBeNull();
    expect(await decoder.deleteCache("chat")).toBe(true);
    expect(await decoder.deleteCache("chat")).toBe(false);
    for await (const { id } of memory.list()) expect(id).toBe("none");
  });
});

describe("a random history", () => {
  const totals = { opened: 0, missed: 0, refused: 0 };
  it.each([1, 2, 3, 4, 5])("never gives a token of other rows (%i)", async (round) => {
    await withSeed("saved caches", async (seed) => {
      const random = seededRandom(seed + round);
      const below = (limit: number) => random.uint32() % limit;
      const files = memoryFileSystem();
      let known: number[] = [];
      for (let life = 0; life < 8; life++) {
        const memory = await process(files);
        const decoder = await open(memory);
        let cache: OrtKvCache | null = null;
        try {
          cache = await decoder.openCache({ id: "chat", tokens: known });
          if (cache === null) totals.missed += 1;
          else totals.opened += 1;
        } catch (error) {
          expect((error as { code: string }).code).toBe("token-mismatch");
          totals.refused += 1;
        }
        cache ??= decoder.createCache({ id: "chat" });
        let tokens = [...known];
        for (let turn = 0; turn < 3; turn++) {
          const way = below(8);
          // Edited text: a shorter past, and other tokens behind it.
          if (way < 3) tokens = tokens.slice(0, below(tokens.length + 1));
          tokens.push(...Array.from({ length: 1 + below(20) }, () => below(256)));
          let common = 0;
          const held = cache.tokens;
          while (common < held.length && held[common] === tokens[common]) common += 1;
          if (common === tokens.length) common -= 1;
          if (common < held.length) cache.truncate(common);
          const { logits } = await decoder.step(cache, tokens);
          const fresh = decoder.createCache();
          const expected = await decoder.step(fresh, tokens);
          fresh.free();
          expect(greedyToken(logits)).toBe(greedyToken(expected.logits));
          if (below(3) === 0) await cache.save();
          if (below(6) === 0) await memory.save(`chat/${NAMES[below(4)]}`);
          if (below(6) === 0) await memory.swapOut(`chat/${NAMES[below(4)]}`);
          if (below(4) === 0) known = [...tokens];
        }
        await closeMemory(memory);
      }
    });
  });

  it("has opened, missed and refused", () => {
    expect(totals.opened).toBeGreaterThan(2);
    expect(totals.missed).toBeGreaterThan(2);
    expect(totals.refused).toBeGreaterThan(2);
  });
});

describe("a disposable cache", () => {
  /** Allocates until a tensor of the cache is gone. */
  function press(memory: TensorMemory): Tensor[] {
    const others: Tensor[] = [];
    while (NAMES.every((name) => memory.tensor(`chat/${name}`)?.isResident === true)) {
      others.push(memory.allocate({ kind: "KV_CACHE", byteLength: 4096 }));
    }
    return others;
  }

  it("is dropped under pressure, and computed again by the next step", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" } });
    const decoder = await open(memory);
    const cache = decoder.createCache({ id: "chat", disposable: true });
    const tokens = [...PROMPT];
    await answer(decoder, cache, tokens, 9);
    const others = press(memory);
    expect(memory.stats().disposables.droppedCount).toBeGreaterThan(0);
    for (const other of others) other.free();
    const whole = await bareAnswer([...tokens, 5], 8);
    expect(await answer(decoder, cache, [...tokens, 5], 8)).toEqual(whole);
    expect(cache.tokenCount).toBe(tokens.length + 8);
    // What is left of one that was dropped is no cache.
    for (const other of press(memory)) other.free();
    expect(await decoder.openCache({ id: "chat" })).toBeNull();
    cache.free();
  });

  it("stays once it was saved, and needs an id", async () => {
    const files = memoryFileSystem();
    const memory = await openOn(files, { budgets: { ram: "4MiB" } });
    const decoder = await open(memory);
    expect(() => decoder.createCache({ disposable: true })).toThrow(/needs an id/);
    const cache = decoder.createCache({ id: "chat", disposable: true });
    const tokens = [...PROMPT];
    await answer(decoder, cache, tokens, 9);
    await cache.save();
    const others = press(memory);
    for (const other of others) other.free();
    const whole = await bareAnswer([...tokens, 5], 8);
    expect(await answer(decoder, cache, [...tokens, 5], 8)).toEqual(whole);
    expect(memory.stats().disposables.droppedCount).toBe(0);
    cache.free();
  });
});
