// Model files in the SSD tier: what a download leaves behind when it is cut, damaged or finds no room, and
// transformers.js loading from it, also without a network.
import { AutoModelForCausalLM, env, Tensor } from "@huggingface/transformers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { tinyModelFiles } from "../../examples/transformers/tiny-model.js";
import {
  createModelCache,
  type ModelCache,
  type ModelCacheOptions,
} from "../../src/adapters/transformers.js";
import type { TensorMemory } from "../../src/index.js";
import { type MemoryFileSystem, memoryFileSystem, seededRandom } from "../../src/testing/index.js";
import { FileServer } from "../support/file-server.js";
import { closeMemory, openOn, SEED, withSeed } from "../support/oracle.js";

const CHUNK_BYTES = 1000;
const PATH = "/model.onnx";

let server: FileServer;
let url: string;

beforeEach(async () => {
  server = await FileServer.start();
  url = `${server.url}${PATH}`;
});

afterEach(() => server.stop());

function contentOf(byteLength: number, seed = SEED): Uint8Array<ArrayBuffer> {
  const random = seededRandom(seed);
  return Uint8Array.from({ length: byteLength }, () => random.uint32() & 255);
}

function offer(byteLength: number, seed = SEED): Uint8Array<ArrayBuffer> {
  const content = contentOf(byteLength, seed);
  server.files.set(PATH, content);
  return content;
}

function cacheOn(memory: TensorMemory, options: ModelCacheOptions = {}): ModelCache {
  return createModelCache(memory, { chunkBytes: CHUNK_BYTES, ...options });
}

async function bytesIn(response: Response | undefined): Promise<Uint8Array | undefined> {
  return response === undefined ? undefined : new Uint8Array(await response.arrayBuffer());
}

/** What the library does in Node for a model file: a stream that is put, and asked for again. */
async function load(cache: ModelCache): Promise<Uint8Array | undefined> {
  const found = await cache.match(url);
  if (found === undefined) await cache.put(url, await fetch(url), undefined);
  return bytesIn(await cache.match(url));
}

async function recordCount(memory: TensorMemory): Promise<number> {
  let count = 0;
  for await (const _ of memory.list()) count += 1;
  return count;
}

/** Downloads until the connection is cut. */
async function loadInPart(cache: ModelCache, cutAfterBytes: number): Promise<void> {
  server.mood.cutAfterBytes = cutAfterBytes;
  await expect(load(cache)).rejects.toThrow();
  server.mood.cutAfterBytes = Number.POSITIVE_INFINITY;
}

describe("a file", () => {
  it.each([0, 1, 999, 1000, 1001, 3000, 12_345])("of %i bytes comes back", async (byteLength) => {
    const content = offer(byteLength);
    const memory = await openOn(memoryFileSystem());
    const cache = cacheOn(memory);
    expect(await cache.match(PATH)).toBeUndefined();
    expect(await load(cache)).toEqual(content);
    const found = await cache.match(url);
    expect(found?.status).toBe(200);
    expect(found?.headers.get("content-length")).toBe(String(byteLength));
    expect(found?.headers.get("etag")).toMatch(/^"[0-9a-f]{64}"$/);
    // Never read: nothing has begun.
    expect(await bytesIn(await cache.match(url))).toEqual(content);
    expect(await cache.match(PATH)).toBeUndefined();
    expect(server.requests).toEqual([`GET ${PATH}`]);
    expect(await cache.delete(url)).toBe(true);
    expect(await cache.delete(url)).toBe(false);
    expect(await recordCount(memory)).toBe(0);
    expect(memory.stats().tensors.hotCount).toBe(0);
  });

  it("is there after a restart, without a network", async () => {
    const files = memoryFileSystem();
    const content = offer(5500);
    const memory = await openOn(files);
    await load(cacheOn(memory));
    await closeMemory(memory);
    await server.stop();
    const cache = cacheOn(await openOn(files));
    expect(await bytesIn(await cache.match(url))).toEqual(content);
    expect(cache.stats()).toMatchObject({ hitCount: 1, missCount: 0 });
  });

  it("that comes as a whole body, as in browsers, is stored as well", async () => {
    const content = contentOf(2500);
    const cache = cacheOn(await openOn(memoryFileSystem()));
    const states: object[] = [];
    const headers = { "content-length": "2500" };
    await cache.put(url, new Response(content, { headers }), (state) => states.push(state));
    expect(states.at(-1)).toEqual({ progress: 100, loaded: 2500, total: 2500 });
    expect(await bytesIn(await cache.match(url))).toEqual(content);
    expect(server.requests).toEqual([]);
  });

  it("can be read twice at the same time, and given up", async () => {
    const content = offer(9000);
    const memory = await openOn(memoryFileSystem());
    const cache = cacheOn(memory);
    await load(cache);
    const [first, second, third] = await Promise.all([1, 2, 3].map(() => cache.match(url)));
    const reader = third?.body?.getReader();
    await reader?.read();
    const both = await Promise.all([bytesIn(first), bytesIn(second), reader?.cancel()]);
    expect(both.slice(0, 2)).toEqual([content, content]);
    expect(memory.stats().tensors.hotCount).toBe(0);
  });

  it("is stored once when two want it at the same time", async () => {
    const content = offer(9000);
    const cache = cacheOn(await openOn(memoryFileSystem()));
    const both = await Promise.all([load(cache), load(cache)]);
    expect(both).toEqual([content, content]);
    expect(await load(cache)).toEqual(content);
  });
});

describe("a download that was cut", () => {
  it("goes on behind the last chunk, in another process", async () => {
    const files = memoryFileSystem();
    const content = offer(7777);
    const memory = await openOn(files);
    await loadInPart(cacheOn(memory), 3456);
    await closeMemory(memory);
    const again = await openOn(files);
    const cache = cacheOn(again);
    expect(await load(cache)).toEqual(content);
    expect(server.requests.at(-1)).toBe(`GET ${PATH} bytes=3000-`);
    expect(cache.stats().resumedBytes).toBe(3000);
    await server.stop();
    expect(await load(cache)).toEqual(content);
    expect(again.stats().tensors.hotCount).toBe(0);
  });

  it("is never given out, and never fetched where that was forbidden", async () => {
    const files = memoryFileSystem();
    offer(7777);
    const memory = await openOn(files);
    await loadInPart(cacheOn(memory), 3456);
    expect(await cacheOn(memory, { fetch: false }).match(url)).toBeUndefined();
    await server.stop();
    const cache = cacheOn(memory);
    await expect(bytesIn(await cache.match(url))).rejects.toThrow();
    await expect(bytesIn(await cache.match(url))).rejects.toThrow();
  });

  it.each([
    ["the file is another one by now", () => offer(7777, SEED + 1)],
    ["the file has another length by now", () => offer(2222, SEED + 1)],
    [
      "the server gives another range",
      () => {
        server.mood.rangeShiftBytes = 100;
        return contentOf(7777);
      },
    ],
    [
      "the server has no ranges",
      () => {
        server.mood.hasRanges = false;
        return contentOf(7777);
      },
    ],
  ])("begins again when %s", async (_, change) => {
    offer(7777);
    const memory = await openOn(memoryFileSystem());
    const cache = cacheOn(memory);
    await loadInPart(cache, 5000);
    const content = change();
    expect(await load(cache)).toEqual(content);
    expect(await load(cache)).toEqual(content);
    expect(cache.stats().resumedBytes).toBe(0);
    expect(await recordCount(memory)).toBe(Math.ceil(content.byteLength / CHUNK_BYTES) + 1);
  });

  it("is a miss when nothing says which version it was of", async () => {
    server.mood.hasVersions = false;
    const content = offer(7777);
    const cache = cacheOn(await openOn(memoryFileSystem()));
    await loadInPart(cache, 5000);
    expect(await cache.match(url)).toBeUndefined();
    expect(await load(cache)).toEqual(content);
  });

  it("and ends short of its length is not whole", async () => {
    const cache = cacheOn(await openOn(memoryFileSystem()), { fetch: false });
    const headers = { "content-length": "2500" };
    const short = new Response(contentOf(2400), { headers });
    await expect(cache.put(url, short)).rejects.toMatchObject({ code: "io" });
    expect(await cache.match(url)).toBeUndefined();
  });

  it("any number of times becomes whole", async () => {
    await withSeed("cuts", async (seed) => {
      const random = seededRandom(seed);
      for (let round = 0; round < 4; round++) {
        const files = memoryFileSystem();
        const content = offer(1 + (random.uint32() % 20_000), random.uint32());
        let isWhole = false;
        for (let attempt = 0; !isWhole; attempt++) {
          expect(attempt).toBeLessThan(100);
          const memory = await openOn(files);
          // Each attempt gets further: a chunk at least.
          server.mood.cutAfterBytes = CHUNK_BYTES + 1 + (random.uint32() % 5000);
          const loaded = await load(cacheOn(memory)).catch(() => undefined);
          if (loaded !== undefined) expect(loaded).toEqual(content);
          isWhole = loaded !== undefined;
          await closeMemory(memory);
        }
      }
    });
  });
});

describe("in browsers", () => {
  /** What the library does there: `env.fetch`, the whole body, then `put` with a copy. */
  async function loadWhole(cache: ModelCache): Promise<Uint8Array> {
    const found = await cache.match(url);
    const response = found ?? (await cache.fetch(url));
    const bytes = new Uint8Array(await response.arrayBuffer());
    if (found === undefined && (await cache.match(url)) === undefined) {
      await cache.put(url, new Response(bytes, { headers: response.headers }));
    }
    return bytes;
  }

  it("a download that was cut goes on as well", async () => {
    const content = offer(7777);
    const cache = cacheOn(await openOn(memoryFileSystem()));
    server.mood.cutAfterBytes = 4500;
    await expect(loadWhole(cache)).rejects.toThrow();
    server.mood.cutAfterBytes = Number.POSITIVE_INFINITY;
    expect(await loadWhole(cache)).toEqual(content);
    expect(cache.stats().resumedBytes).toBe(4000);
    await server.stop();
    expect(await loadWhole(cache)).toEqual(content);
  });

  it("a file without room is not stored, and nothing fails", async () => {
    const content = offer(50_000);
    const memory = await openOn(memoryFileSystem(), { capacityBytes: 20_000 });
    const cache = cacheOn(memory);
    expect(await loadWhole(cache)).toEqual(content);
    expect(await loadWhole(cache)).toEqual(content);
    expect(await recordCount(memory)).toBe(0);
    expect(cache.stats().passedCount).toBeGreaterThan(1);
  });

  it("what is not a whole file passes by", async () => {
    const content = offer(5000);
    const memory = await openOn(memoryFileSystem());
    const cache = cacheOn(memory);
    const part = await cache.fetch(url, { headers: { Range: "bytes=4000-" } });
    expect(await bytesIn(part)).toEqual(content.subarray(4000));
    expect((await cache.fetch(url, { method: "HEAD" })).status).toBe(200);
    expect((await cache.fetch(`${server.url}/none`)).status).toBe(404);
    expect(await recordCount(memory)).toBe(0);
  });
});

describe("without room", () => {
  it.each([0, 3000, 20_000, 49_000])(
    "in Node a file passes through once, with %i bytes in the tier",
    async (capacityBytes) => {
      const content = offer(50_000);
      const memory = await openOn(memoryFileSystem(), { capacityBytes });
      const cache = cacheOn(memory);
      for (const _ of [1, 2]) {
        await cache.put(url, await fetch(url), undefined);
        expect(await bytesIn(await cache.match(url))).toEqual(content);
        expect(await bytesIn(await cache.match(url))).toBeUndefined();
      }
      expect(await recordCount(memory)).toBe(0);
      expect(cache.stats().passedCount).toBe(2);
    },
  );

  it("in RAM it passes through as well", async () => {
    const content = offer(50_000);
    const memory = await openOn(memoryFileSystem(), {
      budgets: { ram: "4MiB" },
      pools: { PARAMETERS: { budget: "1MiB" } },
    });
    const cache = cacheOn(memory, { chunkBytes: "2MiB" });
    expect(await load(cache)).toEqual(content);
    expect(await cache.match(url)).toBeUndefined();
  });

  it("and put by whoever does not ask again, it is dropped", async () => {
    const content = offer(50_000);
    const memory = await openOn(memoryFileSystem(), { capacityBytes: 20_000 });
    const cache = cacheOn(memory);
    await cache.put(url, new Response(content));
    expect(await cache.match(url)).toBeUndefined();
    expect(await recordCount(memory)).toBe(0);
  });
});

describe("wrong bytes", () => {
  /** Changes a byte of one chunk's content in the store. */
  function damage(files: MemoryFileSystem, content: Uint8Array, index: number): void {
    const chunk = content.subarray(index * CHUNK_BYTES, index * CHUNK_BYTES + 32);
    let damagedCount = 0;
    for (const bytes of files.files().values()) {
      const at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).indexOf(chunk);
      if (at < 0) continue;
      bytes[at + 5] = (bytes[at + 5] as number) ^ 64;
      damagedCount += 1;
    }
    expect(damagedCount).toBe(1);
  }

  it("are fetched again", async () => {
    const files = memoryFileSystem();
    const content = offer(5500);
    const memory = await openOn(files);
    const cache = cacheOn(memory);
    await load(cache);
    damage(files, content, 3);
    expect(await load(cache)).toEqual(content);
    expect(server.requests.at(-1)).toBe(`GET ${PATH} bytes=3000-`);
    expect(cache.stats().damagedCount).toBe(1);
    await server.stop();
    expect(await load(cache)).toEqual(content);
  });

  it("are never given out without a network, and then forgotten", async () => {
    const files = memoryFileSystem();
    const content = offer(5500);
    const memory = await openOn(files);
    const cache = cacheOn(memory, { fetch: false });
    await load(cache);
    damage(files, content, 5);
    await expect(bytesIn(await cache.match(url))).rejects.toMatchObject({ code: "io" });
    expect(await cache.match(url)).toBeUndefined();
    expect(await load(cache)).toEqual(content);
  });

  it("are not mended with those of another version", async () => {
    const files = memoryFileSystem();
    const content = offer(5500);
    const memory = await openOn(files);
    const cache = cacheOn(memory);
    await load(cache);
    damage(files, content, 2);
    const other = offer(5500, SEED + 1);
    await expect(bytesIn(await cache.match(url))).rejects.toMatchObject({ code: "io" });
    expect(await load(cache)).toEqual(other);
  });
});

describe("transformers.js", () => {
  const NAME = "tiny/llama";
  const loading = () =>
    AutoModelForCausalLM.from_pretrained(NAME, { dtype: "fp32", device: "cpu" });

  /** The least that the library asks for. */
  function plainCache() {
    const bodies = new Map<string, Uint8Array<ArrayBuffer>>();
    return {
      match: async (key: string) => {
        const body = bodies.get(key);
        return body === undefined ? undefined : new Response(body);
      },
      put: async (key: string, response: Response) => {
        bodies.set(key, new Uint8Array(await response.arrayBuffer()));
      },
    };
  }

  async function answerOf(model: Awaited<ReturnType<typeof loading>>): Promise<string> {
    const input_ids = new Tensor("int64", [1n, 2n, 3n, 4n], [1, 4]);
    const attention_mask = new Tensor("int64", [1n, 1n, 1n, 1n], [1, 4]);
    const options = { input_ids, attention_mask, max_new_tokens: 12, do_sample: false };
    const output = (await model.generate(options as never)) as Tensor;
    await model.dispose();
    return (output.data as BigInt64Array).join();
  }

  beforeEach(() => {
    for (const [path, bytes] of tinyModelFiles("llama", 1)) {
      server.files.set(`/${NAME}/resolve/main/${path}`, bytes);
    }
    env.allowLocalModels = false;
    env.useFSCache = false;
    env.useCustomCache = true;
    env.remoteHost = server.url;
  });

  it("loads a model through the cache, and then without a network", async () => {
    const files = memoryFileSystem();
    env.customCache = plainCache();
    const expected = await answerOf(await loading());
    const memory = await openOn(files);
    env.customCache = cacheOn(memory, { chunkBytes: "16KiB" }) as never;
    expect(await answerOf(await loading())).toBe(expected);
    await closeMemory(memory);
    await server.stop();
    const cache = cacheOn(await openOn(files));
    env.customCache = cache as never;
    expect(await answerOf(await loading())).toBe(expected);
    expect(cache.stats().hitCount).toBeGreaterThan(2);
    expect(new Set(expected.split(",")).size).toBeGreaterThan(8);
  });

  it("goes on with a download that was cut, and does not notice a full tier", async () => {
    env.customCache = plainCache();
    const expected = await answerOf(await loading());
    const memory = await openOn(memoryFileSystem());
    const cache = cacheOn(memory, { chunkBytes: "16KiB" });
    env.customCache = cache as never;
    server.mood.cutAfterBytes = 100_000;
    await expect(loading()).rejects.toThrow();
    server.mood.cutAfterBytes = Number.POSITIVE_INFINITY;
    expect(await answerOf(await loading())).toBe(expected);
    // A platform may drop what it has not given out when the connection ends.
    expect(cache.stats().resumedBytes).toBeGreaterThanOrEqual(16 * 1024);
    const full = await openOn(memoryFileSystem(), { capacityBytes: 50_000 });
    const crowded = cacheOn(full, { chunkBytes: "16KiB" });
    env.customCache = crowded as never;
    expect(await answerOf(await loading())).toBe(expected);
    expect(crowded.stats().passedCount).toBeGreaterThan(0);
  });
});

it("refuses options that mean nothing", async () => {
  const memory = await openOn(memoryFileSystem());
  const code = (expected: string) => expect.objectContaining({ code: expected });
  expect(() => createModelCache(memory, { size: 1 } as never)).toThrow(code("bad-option"));
  expect(() => createModelCache(memory, { fetch: true } as never)).toThrow(code("bad-option"));
  expect(() => createModelCache(memory, { chunkBytes: 0 })).toThrow(code("bad-size"));
  expect(() => createModelCache(memory, { prefix: 1 } as never)).toThrow(code("bad-id"));
  await expect(cacheOn(memory).match(1 as never)).rejects.toEqual(code("bad-id"));
  await expect(cacheOn(memory, { fetch: false }).fetch(url)).rejects.toEqual(code("unsupported"));
});
