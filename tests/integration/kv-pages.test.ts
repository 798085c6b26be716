// A chat whose KV lies in pages between its turns: tokens equal those of the bare runtime, in one process
// and over restarts, for chats that begin alike, and with a cache of another model refused.
import * as native from "onnxruntime-node";
import * as web from "onnxruntime-web";
import { describe, expect, it } from "vitest";
import { buildDecoder } from "../../examples/chat/model/decoder.js";
import { buildGroupedDecoder } from "../../examples/chat/model/grouped-decoder.js";
import { greedyToken, type OrtDecoder, openOrtDecoder } from "../../src/adapters/ort.js";
import { type KvCaches, openKvCaches, windowLayout } from "../../src/kv.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryFileSystem, seededRandom } from "../../src/testing/index.js";
import { BareChat, type BareStyle } from "../support/bare-decoder.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";

const SIZES = { layers: 2, hidden: 64, heads: 4, vocabulary: 256, kvHeads: 2 };
const CAPACITY = 256;
const PAGE = 16;
const SEEDS = [1, 2, 3, 4, 5];

interface Family {
  readonly name: string;
  readonly style: BareStyle;
  readonly build: (seed: number) => Uint8Array<ArrayBuffer>;
}

const CONCAT: Family = {
  name: "Concat",
  style: "concat",
  build: (seed) => buildDecoder({ ...SIZES, positions: 512, attentionSharpness: 6, seed }),
};
const GROUPED: Family = {
  name: "GQA",
  style: "grouped-inputs",
  build: (seed) => buildGroupedDecoder({ ...SIZES, lengths: "inputs", seed }),
};

const RUNTIMES = [
  { name: "onnxruntime-node", ort: native, sessionOptions: { logSeverityLevel: 4 } },
  {
    name: "onnxruntime-web (wasm)",
    ort: web,
    sessionOptions: { executionProviders: ["wasm"], logSeverityLevel: 4 },
  },
] as const;
type Runtime = (typeof RUNTIMES)[number];
const [NATIVE] = RUNTIMES;

/** [prompt, answer] lengths: over a page's end, inside a page, to a page's end. */
const TURNS = [
  [37, 20],
  [4, 9],
  [1, 3],
  [21, 14],
] as const;

function promptsFor(seed: number): number[][] {
  const random = seededRandom(seed);
  return TURNS.map(([length]) => Array.from({ length }, () => random.uint32() % 256));
}

async function bareAnswers(family: Family, seed: number, runtime: Runtime): Promise<number[][]> {
  const { ort, sessionOptions } = runtime;
  const session = await ort.InferenceSession.create(family.build(seed), sessionOptions);
  const sizes = { layers: SIZES.layers, kvHeads: SIZES.kvHeads, headDim: 16 };
  const { style } = family;
  const chat = new BareChat({ ort, session, style, ...sizes, capacityTokens: CAPACITY });
  const answers: number[][] = [];
  for (const [turn, prompt] of promptsFor(seed).entries()) {
    answers.push(await chat.say(prompt, TURNS[turn]?.[1] ?? 0));
  }
  await session.release();
  expect(new Set(answers.flat()).size).toBeGreaterThan(5);
  return answers;
}

function openDecoder(
  memory: TensorMemory,
  model: Uint8Array<ArrayBuffer>,
  { ort, sessionOptions }: Runtime,
  mode: "delta" | "plain" = "delta",
): Promise<OrtDecoder> {
  return openOrtDecoder({
    ort,
    sessionOptions,
    memory,
    model,
    mode,
    pageTokens: 8,
    checkTokens: 4,
  });
}

function openCaches(memory: TensorMemory, decoder: OrtDecoder): KvCaches {
  const { fingerprint, kvLayers: layers } = decoder;
  return openKvCaches(memory, { fingerprint, layers, pageTokens: PAGE });
}

/** A turn over what is known of the chat. @returns The answer, and how many tokens were known. */
async function takeTurn(
  decoder: OrtDecoder,
  caches: KvCaches,
  { tokens, prompt, answerTokens }: { tokens: number[]; prompt: number[]; answerTokens: number },
  id?: string,
): Promise<{ answer: number[]; knownTokens: number }> {
  tokens.push(...prompt);
  const pages = await caches.restore({ tokens, ...(id === undefined ? {} : { id }) });
  if (pages.tokenCount === tokens.length) await pages.truncate(tokens.length - 1);
  const knownTokens = pages.tokenCount;
  const cache = await decoder.restoreCache(pages);
  expect(cache.tokens).toEqual(tokens.slice(0, knownTokens));
  const first = tokens.length;
  while (tokens.length < first + answerTokens) {
    tokens.push(greedyToken((await decoder.step(cache, tokens)).logits));
  }
  await decoder.storeCache(cache, pages);
  expect(pages.tokens).toEqual(cache.tokens);
  if (id !== undefined) expect(await caches.save(pages, id)).toBe("stored");
  cache.free();
  pages.free();
  return { answer: tokens.slice(first), knownTokens };
}

describe.each(RUNTIMES)("$name", (runtime) => {
  describe.each([CONCAT, GROUPED])("$name", (family) => {
    it.each(SEEDS)("seed %i answers as the bare runtime, turn by turn from pages", async (seed) => {
      const model = family.build(seed);
      const expected = await bareAnswers(family, seed, runtime);
      for (const mode of ["delta", "plain"] as const) {
        const memory = await openMemory();
        const decoder = await openDecoder(memory, model, runtime, mode);
        const caches = openCaches(memory, decoder);
        const tokens: number[] = [];
        for (const [turn, prompt] of promptsFor(seed).entries()) {
          const before = tokens.length;
          const answerTokens = TURNS[turn]?.[1] ?? 0;
          const { answer, knownTokens } = await takeTurn(decoder, caches, {
            ...{ tokens, prompt, answerTokens },
          });
          expect(answer, `${mode}, turn ${turn}`).toEqual(expected[turn]);
          expect(knownTokens).toBe(PAGE * Math.floor(Math.max(0, before - 1) / PAGE));
        }
        caches.close();
        await decoder.close();
      }
    });
  });
});

describe("pages", () => {
  it("carry a chat over restarts, to the token", async () => {
    const fileSystem = memoryFileSystem();
    const expected = await bareAnswers(CONCAT, 2, NATIVE);
    const tokens: number[] = [];
    for (const [turn, prompt] of promptsFor(2).entries()) {
      const memory = await openOn(fileSystem);
      const decoder = await openDecoder(memory, CONCAT.build(2), NATIVE);
      const caches = openCaches(memory, decoder);
      const before = tokens.length;
      const answerTokens = TURNS[turn]?.[1] ?? 0;
      const taken = await takeTurn(decoder, caches, { tokens, prompt, answerTokens }, "alice");
      expect(taken).toEqual({ answer: expected[turn], knownTokens: Math.max(0, before - 1) });
      caches.close();
      await decoder.close();
      await closeMemory(memory);
    }
  });

  it("are shared by chats that begin alike, and a prompt that is all known is answered", async () => {
    const memory = await openMemory();
    const decoder = await openDecoder(memory, CONCAT.build(1), NATIVE);
    const caches = openCaches(memory, decoder);
    const prompt = Array.from({ length: 2 * PAGE }, (_, index) => (index * 7) % 256);
    const ask = async (tail: number[]) =>
      takeTurn(decoder, caches, { tokens: [], prompt: [...prompt, ...tail], answerTokens: 4 });
    const first = await ask([]);
    const again = await ask([]);
    expect([first.knownTokens, again.knownTokens]).toEqual([0, 2 * PAGE - 1]);
    expect(again.answer).toEqual(first.answer);
    expect((await ask([1, 2])).knownTokens).toBe(2 * PAGE);
    expect(caches.stats()).toMatchObject({ writtenCount: 2, heldCount: 0 });
    caches.close();
    await decoder.close();
  });

  it("are all that is in the runtime's tensors, and zeros behind them", async () => {
    const memory = await openMemory();
    for (const mode of ["delta", "plain"] as const) {
      const decoder = await openDecoder(memory, CONCAT.build(1), NATIVE, mode);
      const caches = openCaches(memory, decoder);
      const cache = decoder.createCache({ id: "made" });
      await decoder.step(cache, [1, 2, 3, 4, 5]);
      using pages = caches.create();
      await decoder.storeCache(cache, pages);
      // What an earlier owner left must not be seen.
      const dirty = memory.allocate({ kind: "KV_CACHE", byteLength: 2 ** 16 });
      {
        using pin = dirty.pin();
        pin.bytes.fill(0xff);
      }
      dirty.free();
      const restored = await decoder.restoreCache(pages, { id: "restored", capacityTokens: 40 });
      const [one, other] = ["made", "restored"].map((id) => {
        using pin = memory.tryAcquire<"f32">(`${id}/1.key`, { access: "read" });
        if (pin === null) throw new Error(`${id} is not resident`);
        return { shape: pin.shape, view: pin.view.slice() };
      });
      expect(other?.view.length).toBeGreaterThan(one?.view.length ?? 0);
      const used = mode === "delta" ? (other?.shape[2] as number) : 5;
      const usedOfOne = mode === "delta" ? (one?.shape[2] as number) : 5;
      let elements = 0;
      for (let head = 0; head < SIZES.kvHeads; head++) {
        const rows = other?.view.subarray(head * used * 16, (head * used + 5) * 16);
        expect(rows).toEqual(one?.view.slice(head * usedOfOne * 16, (head * usedOfOne + 5) * 16));
        elements += rows?.length ?? 0;
        rows?.fill(0);
      }
      expect(elements).toBe(SIZES.kvHeads * 5 * 16);
      expect(other?.view.every((value) => value === 0)).toBe(true);
      cache.free();
      restored.free();
      caches.close();
      await decoder.close();
    }
  });

  it("of another model, of other tokens or with gaps are refused", async () => {
    const memory = await openMemory();
    const decoder = await openDecoder(memory, CONCAT.build(1), NATIVE);
    const { fingerprint, kvLayers: layers } = decoder;
    const cache = decoder.createCache();
    const tokens = Array.from({ length: 40 }, (_, index) => index);
    await decoder.step(cache, tokens);
    const other = openKvCaches(memory, { fingerprint: "other", layers, pageTokens: PAGE });
    using foreign = other.create();
    await expect(decoder.restoreCache(foreign)).rejects.toMatchObject({ code: "foreign-cache" });
    await expect(decoder.storeCache(cache, foreign)).rejects.toMatchObject({
      code: "foreign-cache",
    });
    const caches = openCaches(memory, decoder);
    using pages = caches.create();
    await decoder.storeCache(cache, pages);
    await pages.truncate(20);
    cache.truncate(19);
    await expect(decoder.storeCache(cache, pages)).rejects.toMatchObject({
      code: "token-mismatch",
    });
    await decoder.step(cache, [...tokens.slice(0, 19), 77, 78]);
    await expect(decoder.storeCache(cache, pages)).rejects.toMatchObject({
      code: "token-mismatch",
    });
    const layout = windowLayout({ sinkPages: 0, recentPages: 1 });
    const windows = openKvCaches(memory, { fingerprint, layers, pageTokens: 4, layout });
    using window = windows.create();
    await decoder.storeCache(cache, window).catch((error) => error);
    await expect(decoder.restoreCache(window)).rejects.toMatchObject({ code: "unsupported" });
    expect(cache.tokenCount).toBe(21);
    const running = decoder.step(cache, [...cache.tokens, 1]);
    using empty = caches.create();
    await expect(decoder.storeCache(cache, empty)).rejects.toMatchObject({ code: "re-entrant" });
    await running;
    expect(empty.tokenCount).toBe(0);
    cache.free();
    await decoder.close();
  });

  it("leave everything as it was when there is no room for the runtime's copy", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" } });
    const decoder = await openDecoder(memory, GROUPED.build(1), NATIVE);
    const caches = openCaches(memory, decoder);
    const cache = decoder.createCache();
    await decoder.step(cache, [1, 2, 3]);
    const pages = caches.create();
    await decoder.storeCache(cache, pages);
    cache.free();
    const tensors: { free(): void }[] = [];
    for (;;) {
      const tensor = memory.tryAllocate({ kind: "KV_CACHE", byteLength: 512 });
      if (tensor === null) break;
      tensors.push(tensor);
    }
    await expect(decoder.restoreCache(pages)).rejects.toMatchObject({ code: "out-of-memory" });
    for (const tensor of tensors) tensor.free();
    const restored = await decoder.restoreCache(pages);
    expect(restored.tokens).toEqual([1, 2, 3]);
    restored.free();
    pages.free();
    await decoder.close();
  });
});
