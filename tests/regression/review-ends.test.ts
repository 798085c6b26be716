// Faults that a review found at the two ends of a memory's life.
import { readFileSync } from "node:fs";
import { createContext, runInContext } from "node:vm";
import { build } from "vite";
import { describe, expect, it } from "vitest";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import { allocateFilled, expectFilled } from "../support/filled.js";
import { abandon, closeMemory, openMemory, openOn } from "../support/oracle.js";
import { gatedTier } from "../support/tiers.js";

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

/** Everything that the browser entry defines, evaluated where `Symbol` has no `dispose`. */
const RUN_WITHOUT_DISPOSE = `
  const RealSymbol = Symbol;
  globalThis.Symbol = Object.assign((description) => RealSymbol(description), {
    for: RealSymbol.for,
    iterator: RealSymbol.iterator,
    asyncIterator: RealSymbol.asyncIterator,
    toStringTag: RealSymbol.toStringTag,
    hasInstance: RealSymbol.hasInstance,
  });
`;

describe("in a realm without Symbol.dispose", () => {
  it("the symbols come first, and bundlers may not drop them", () => {
    const imports = [...read("src/browser.ts").matchAll(/from "([^"]+)"|^import "([^"]+)"/gm)];
    expect(imports[0]?.[2]).toBe("./util/dispose-symbols.js");
    expect(read("src/util/dispose-symbols.ts")).not.toMatch(/^import/m);
    const { sideEffects } = JSON.parse(read("package.json"));
    expect(sideEffects).toContain("./dist/src/util/dispose-symbols.js");
    expect(sideEffects).toContain("./src/util/dispose-symbols.ts");
  });

  it("the bundled browser entry works", async () => {
    const output = await build({
      configFile: false,
      logLevel: "silent",
      build: {
        write: false,
        minify: false,
        lib: {
          entry: new URL("../../src/browser.ts", import.meta.url).pathname,
          formats: ["iife"],
          name: "tierheap",
        },
      },
    });
    const code = (output as { output: { code: string }[] }[])[0]?.output[0]?.code as string;
    const { crypto, performance, setTimeout, clearTimeout, atob, URL: Url } = globalThis;
    const timers = { setTimeout, clearTimeout };
    const platform = { WebAssembly, crypto, performance, ...timers, atob, URL: Url };
    const { Blob, Response, DecompressionStream } = globalThis;
    const text = { TextEncoder, TextDecoder, navigator: {}, Blob, Response, DecompressionStream };
    const context = createContext({ ...platform, ...text });
    runInContext(`${RUN_WITHOUT_DISPOSE}\n${code}\nglobalThis.tierheap = tierheap;`, context);
    const outcome = await runInContext(
      `(async () => {
        const memory = await tierheap.createTensorMemory({ budgets: { ram: "8MiB" } });
        const tensor = memory.allocate({ kind: "KV_CACHE", byteLength: 100 });
        const pin = tensor.pin();
        const pinned = memory.stats().pools[0].pinnedCount;
        pin[Symbol.dispose]();
        const unpinned = memory.stats().pools[0].pinnedCount;
        tensor[Symbol.dispose]();
        memory.scope()[Symbol.dispose]();
        await memory[Symbol.asyncDispose]();
        return [String(Symbol.dispose), pinned, unpinned, tensor.isFreed].join();
      })()`,
      context,
    );
    expect(outcome).toBe("Symbol(Symbol.dispose),1,0,true");
  });
});

describe("a module given as a Response", () => {
  it.each(["application/wasm", "application/wasm; charset=utf-8"])("of type %s", async (type) => {
    const response = (name: string) =>
      new Response(readFileSync(new URL(`../../build/${name}.wasm`, import.meta.url)), {
        headers: { "content-type": type },
      });
    const wasm = { core: response("core"), kernels: response("kernels") };
    if (type === "application/wasm") {
      const memory = await openMemory({ wasm, seams: { tier: memoryTier() } });
      allocateFilled(memory, "a", 1000, 1);
      await memory.swapOut("a");
      await expectFilled(memory, "a", 1000, 1);
    } else {
      await expect(openMemory({ wasm })).rejects.toMatchObject({ code: "bad-option" });
    }
  });
});

describe("after close", () => {
  it("disposing does nothing, whatever it is", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const tensor = memory.allocate({ kind: "KV_CACHE", byteLength: 100, id: "a" });
    const pin = tensor.pin();
    const scope = memory.scope("s");
    scope.allocate({ kind: "KV_CACHE", byteLength: 100 });
    const scopePin = scope.allocate({ kind: "KV_CACHE", byteLength: 100 }).pin();
    abandon(memory);
    await memory.close();
    tensor[Symbol.dispose]();
    scope[Symbol.dispose]();
    pin[Symbol.dispose]();
    scopePin[Symbol.dispose]();
    tensor[Symbol.dispose]();
    scope[Symbol.dispose]();
    expect(() => tensor.free()).toThrowError(expect.objectContaining({ code: "closed" }));
    expect(() => tensor.pin()).toThrowError(expect.objectContaining({ code: "closed" }));
    await memory[Symbol.asyncDispose]();
  });

  it("disposing does nothing while the memory is closing", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    abandon(memory);
    const tensor = allocateFilled(memory, "a", 5000, 1);
    gate.close("write");
    const saved = memory.save("a");
    await gate.waiting;
    const closed = memory.close();
    tensor[Symbol.dispose]();
    gate.open();
    expect(await saved).toBe("stored");
    await closed;
    tensor[Symbol.dispose]();
  });
});

describe("close during", () => {
  it.each([
    ["a load", "acquire"],
    ["the search for a record", "adopt"],
  ])("%s lets it finish or reject, typed", async (_name, call) => {
    const files = memoryFileSystem();
    const first = await openOn(files);
    allocateFilled(first, "a", 2 ** 21, 1);
    await first.save("a");
    if (call === "adopt") await closeMemory(first);
    else await first.swapOut("a");
    const memory = call === "adopt" ? await openOn(files) : first;
    abandon(memory);
    const asked = Promise.all(
      [memory.acquire("a"), memory.acquire("a"), memory.acquire("b")].map((lease) =>
        lease.then(
          (found) => (found === null ? "unknown" : "leased"),
          (error: { code?: unknown }) => error.code,
        ),
      ),
    );
    const reserved = memory.reserve({ kind: "KV_CACHE", bytes: 1000 }).then(
      () => "reserved",
      (error: { code?: unknown }) => error.code,
    );
    await memory.close();
    for (const outcome of await asked) expect(["leased", "unknown", "closed"]).toContain(outcome);
    expect(["reserved", "closed"]).toContain(await reserved);
  });

  it("a load that waits for its tier waits for it", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    abandon(memory);
    allocateFilled(memory, "a", 5000, 1);
    await memory.swapOut("a");
    gate.close("read");
    const lease = memory.acquire("a").catch((error: { code?: unknown }) => error.code);
    await gate.waiting;
    const closed = memory.close();
    gate.open();
    await closed;
    expect(await lease).toSatisfy((found) => found === "closed" || found !== null);
  });
});

/** More events than a listener keeps. */
async function emitMany(memory: TensorMemory): Promise<void> {
  memory.allocate({ kind: "KV_CACHE", byteLength: 10, id: "a" });
  await memory.save("a");
  for (let round = 0; round < 1100; round++) {
    await memory.swapOut("a");
    (await memory.acquire("a", { access: "read" }))?.[Symbol.dispose]();
  }
}

describe("a stream of events that nobody reads", () => {
  it("is counted no more once it has been given back", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const given = memory.events();
    await given.return();
    const controller = new AbortController();
    const aborted = memory.events({ signal: controller.signal });
    controller.abort();
    await emitMany(memory);
    expect(memory.stats().droppedEventCount).toBe(0);
    for (const stream of [given, aborted]) {
      expect(await stream.next()).toEqual({ done: true, value: undefined });
    }
  });

  // `throw` is the other way to end a generator; it does not leave.
  it("is counted no more once it was ended by throw", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    await memory
      .events()
      .throw(new Error("enough"))
      .catch(() => {});
    await emitMany(memory);
    expect(memory.stats().droppedEventCount).toBe(0);
  });
});
