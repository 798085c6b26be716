// Wrong arguments to every public call: a MisuseError with its code, before anything changes.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { MisuseError } from "../../src/index.js";
import { createTensorMemory } from "../../src/node.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier } from "../../src/testing/index.js";
import { webgpuTier } from "../../src/webgpu.js";
import { temporaryDirectory } from "../support/directories.js";
import { openMemory } from "../support/oracle.js";

// biome-ignore lint/suspicious/noExplicitAny: wrong types are the point of this file.
type Any = any;

const NOT_SIZES: readonly [string, unknown][] = [
  ["NaN", Number.NaN],
  ["-1", -1],
  ["0", 0],
  ["1.5", 1.5],
  ["2^53", 2 ** 53],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["a BigInt", 7n],
  ['"7"', "7"],
  ["{}", {}],
  ["null", null],
  ["a symbol", Symbol("size")],
];
const TOO_LONG: readonly [string, unknown][] = [
  ["2^32", 2 ** 32],
  ["2^32+5", 2 ** 32 + 5],
];

/** What a caller can see of a memory's state. */
const stateOf = (memory: TensorMemory) => JSON.stringify([memory.stats(), memory.verify()]);

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof MisuseError) return error.code;
    throw error;
  }
  return "no error";
}

async function expectMisuse(memory: TensorMemory, code: string, work: () => unknown) {
  const before = stateOf(memory);
  expect(await codeOf(work)).toBe(code);
  expect(stateOf(memory)).toBe(before);
}

describe("allocate", () => {
  const bad: readonly [string, string, unknown][] = [
    ...[...NOT_SIZES, ...TOO_LONG].map(([name, byteLength]): [string, string, unknown] => [
      `byteLength ${name}`,
      "bad-size",
      { byteLength },
    ]),
    ...NOT_SIZES.map(([name, length]): [string, string, unknown] => [
      `shape [${name}]`,
      "bad-shape",
      { shape: [length], dtype: "f32" },
    ]),
    ["2^31 elements of f32", "bad-size", { shape: [2 ** 31], dtype: "f32" }],
    [
      "an overflow that wraps to 4",
      "bad-shape",
      { shape: [4194305, 4194305, 211106198978564], dtype: "u8" },
    ],
    ["rank 0", "bad-shape", { shape: [], dtype: "f32" }],
    ["rank 9", "bad-shape", { shape: Array(9).fill(1), dtype: "f32" }],
    ["a million dimensions", "bad-shape", { shape: Array(1e6).fill(1), dtype: "f32" }],
    ["a shape that is no array", "bad-shape", { shape: { length: 1, 0: 4 }, dtype: "f32" }],
    ["a sparse shape", "bad-shape", { shape: new Array(2), dtype: "f32" }],
    ["a typed array as shape", "bad-shape", { shape: Int32Array.of(1, 2), dtype: "f32" }],
    ...["__proto__", "constructor", "toString", "F32", "", 1, null, {}].map(
      (dtype): [string, string, unknown] => [
        `dtype ${String(dtype)}`,
        "bad-dtype",
        { shape: [1], dtype },
      ],
    ),
    ["no dtype", "bad-dtype", { shape: [1] }],
    ["neither shape nor byteLength", "bad-dtype", {}],
    ["both shape and byteLength", "bad-option", { byteLength: 4, shape: [4], dtype: "u8" }],
    ["byteLength and dtype", "bad-option", { byteLength: 4, dtype: "u8" }],
    ...["__proto__", "kv_cache", "", 0, null, undefined].map((kind): [string, string, unknown] => [
      `kind ${String(kind)}`,
      "bad-kind",
      { byteLength: 1, kind },
    ]),
    ...["rows", "__proto__", 1].map((layout): [string, string, unknown] => [
      `layout ${layout}`,
      "bad-layout",
      { byteLength: 1, layout },
    ]),
    ...[0, 3, -8, 131072, Number.NaN, 1.5, "8", 8n].map((alignment): [string, string, unknown] => [
      `alignment ${alignment}`,
      "bad-alignment",
      { byteLength: 1, alignment },
    ]),
    ...[null, 7, {}, "\ud800", "a\udc00b", "x".repeat(49153)].map(
      (id): [string, string, unknown] => [
        `id ${String(id).slice(0, 9)}`,
        "bad-id",
        { byteLength: 1, id },
      ],
    ),
    ["a tag that is no text", "bad-option", { byteLength: 1, tag: 7 }],
    ["zero that is no boolean", "bad-option", { byteLength: 1, zero: 1 }],
    ["an unknown option", "bad-option", { byteLength: 1, size: 7 }],
  ];

  it.each(bad)("refuses %s with %s", async (_name, code, options) => {
    const memory = await openMemory();
    const given: Any = { kind: "ACTIVATIONS", ...(options as object) };
    await expectMisuse(memory, code, () => memory.allocate(given));
    await expectMisuse(memory, code, () => memory.tryAllocate(given));
    await expectMisuse(memory, code, () => memory.scope("s").allocate(given));
  });

  it.each([null, undefined, 7, "x", true])(
    "refuses %s in place of options",
    async (options: Any) => {
      const memory = await openMemory();
      await expectMisuse(memory, "bad-option", () => memory.allocate(options));
      await expectMisuse(memory, "bad-option", () => memory.scope("s").allocate(options));
    },
  );

  it("copies the shape before it trusts it", async () => {
    const memory = await openMemory();
    const shape = [4, 4];
    const tensor = memory.allocate({ kind: "ACTIVATIONS", shape, dtype: "f32" });
    shape[0] = 1000;
    expect(tensor.shape).toEqual([4, 4]);
    expect(Object.isFrozen(tensor.shape)).toBe(true);
    let reads = 0;
    const hostile = new Proxy([2, 2], {
      get: (target, key) => (key === "0" && ++reads > 1 ? 2 ** 40 : Reflect.get(target, key)),
    });
    const careful = memory.allocate({ kind: "ACTIVATIONS", shape: hostile, dtype: "u8" });
    expect(careful.shape.reduce((product, length) => product * length)).toBe(careful.byteLength);
  });

  it("refuses an id that is in use", async () => {
    const memory = await openMemory();
    memory.allocate({ kind: "KV_CACHE", byteLength: 1, id: "a" });
    await expectMisuse(memory, "duplicate-id", () =>
      memory.allocate({ kind: "KV_CACHE", byteLength: 1, id: "a" }),
    );
  });
});

describe("the other calls", () => {
  const calls: readonly [string, string, (memory: Any) => unknown][] = [
    ...[null, 7, "\ud800", undefined, {}].flatMap(
      (id): [string, string, (memory: Any) => unknown][] =>
        ["free", "tensor", "acquire", "tryAcquire", "save", "swapOut", "delete"].map((call) => [
          `${call}(${String(id)})`,
          "bad-id",
          (memory) => memory[call](id),
        ]),
    ),
    ...["free", "save", "swapOut"].map((call): [string, string, (memory: Any) => unknown] => [
      `${call} of nothing`,
      "unknown-id",
      (memory) => memory[call]("nothing"),
    ]),
    ...[null, 7, { acces: "read" }, { access: "rw" }].flatMap(
      (options): [string, string, (memory: Any) => unknown][] => [
        [
          `acquire(${JSON.stringify(options)})`,
          "bad-option",
          (memory) => memory.acquire("a", options),
        ],
        [
          `tryAcquire(${JSON.stringify(options)})`,
          "bad-option",
          (memory) => memory.tryAcquire("a", options),
        ],
        [
          `pin(${JSON.stringify(options)})`,
          "bad-option",
          (memory) => memory.tensor("a").pin(options),
        ],
        [
          `acquireChain(${JSON.stringify(options)})`,
          "bad-option",
          (memory) => memory.acquireChain(["a"], options),
        ],
      ],
    ),
    ["acquire, stream 7", "bad-option", (memory) => memory.acquire("a", { stream: 7 })],
    ["acquire, signal 7", "bad-option", (memory) => memory.acquire("a", { signal: 7 })],
    ["acquireChain(7)", "bad-option", (memory) => memory.acquireChain(7)],
    ["acquireChain([7])", "bad-id", (memory) => memory.acquireChain(["a", 7])],
    ["touchChain(null)", "bad-option", (memory) => memory.touchChain(null)],
    ["touchChain, turn 0", "bad-option", (memory) => memory.touchChain([], { turn: 0 })],
    ["touchChain, new −1", "bad-option", (memory) => memory.touchChain([], { newBlocks: -1 })],
    ["touchChain, stream", "bad-option", (memory) => memory.touchChain([], { stream: "s" })],
    ["prefetch, stream 7", "bad-option", (memory) => memory.prefetch(["a"], { stream: 7 })],
    ["prefetch(null)", "bad-option", (memory) => memory.prefetch(null)],
    ["prefetch([7])", "bad-id", (memory) => memory.prefetch([7])],
    ["prefetch, signal {}", "bad-option", (memory) => memory.prefetch(["a"], { signal: {} })],
    ["save, mode durabel", "bad-option", (memory) => memory.save("a", { mode: "durabel" })],
    ["save(a, 7)", "bad-option", (memory) => memory.save("a", 7)],
    ["list, prefix 7", "bad-option", (memory) => memory.list({ prefix: 7 }).next()],
    ["list(null)", "bad-option", (memory) => memory.list(null).next()],
    ["events, signal 7", "bad-option", (memory) => memory.events({ signal: 7 })],
    ["scope(7)", "bad-option", (memory) => memory.scope(7)],
    ["compact(null)", "bad-option", (memory) => memory.compact(null)],
    ["compact, unknown option", "bad-option", (memory) => memory.compact({ bytes: 7 })],
    ...NOT_SIZES.map(([name, bytesMovedMax]): [string, string, (memory: Any) => unknown] => [
      `compact, bytesMovedMax ${name}`,
      "bad-size",
      (memory) => memory.compact({ bytesMovedMax }),
    ]),
    ...[...NOT_SIZES, ...TOO_LONG].map(
      ([name, bytes]): [string, string, (memory: Any) => unknown] => [
        `reserve, bytes ${name}`,
        "bad-size",
        (memory) => memory.reserve({ kind: "KV_CACHE", bytes }),
      ],
    ),
    ...NOT_SIZES.filter(([, count]) => count !== null).map(
      ([name, count]): [string, string, (memory: Any) => unknown] => [
        `reserve, count ${name}`,
        "bad-size",
        (memory) => memory.reserve({ kind: "KV_CACHE", bytes: 1, count }),
      ],
    ),
    ["reserve, kind", "bad-kind", (memory) => memory.reserve({ kind: "KV", bytes: 1 })],
    [
      "reserve, alignment",
      "bad-alignment",
      (memory) => memory.reserve({ kind: "KV_CACHE", bytes: 1, alignment: 3 }),
    ],
    ["reserve(null)", "bad-option", (memory) => memory.reserve(null)],
    [
      "reserve, unknown option",
      "bad-option",
      (memory) => memory.reserve({ kind: "KV_CACHE", bytes: 1, x: 1 }),
    ],
    [
      "reserve, signal 7",
      "bad-option",
      (memory) => memory.reserve({ kind: "KV_CACHE", bytes: 1, signal: 7 }),
    ],
  ];

  it.each(calls)("%s is %s", async (_name, code, call) => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    memory.allocate({ kind: "KV_CACHE", byteLength: 64, id: "a" });
    await expectMisuse(memory, code, () => call(memory));
  });

  it("refuses every call once the memory is closed", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const tensor = memory.allocate({ kind: "KV_CACHE", byteLength: 64, id: "a" });
    await memory.close();
    await memory.close();
    for (const call of [
      () => memory.allocate({ kind: "KV_CACHE", byteLength: 1 }),
      () => memory.reserve({ kind: "KV_CACHE", bytes: 1 }),
      () => memory.free("a"),
      () => tensor.pin(),
      () => memory.acquire("a"),
      () => memory.tryAcquire("a"),
      () => memory.prefetch(["a"]),
      () => memory.save("a"),
      () => memory.swapOut("a"),
      () => memory.delete("a"),
      () => memory.list().next(),
      () => memory.compact(),
      () => memory.trim(),
    ]) {
      expect(await codeOf(call), String(call)).toBe("closed");
    }
    expect((await memory.events().next()).done).toBe(true);
  });
});

describe("createTensorMemory", () => {
  const bad: readonly [string, string, unknown][] = [
    ...[...NOT_SIZES.filter(([, ram]) => ram !== null), ["1 GB", "1 GB"], ["1e3MiB", "1e3MiB"]].map(
      ([name, ram]): [string, string, unknown] => [
        `ram ${String(name)}`,
        "bad-size",
        { budgets: { ram } },
      ],
    ),
    ["ram below 4 MiB", "bad-size", { budgets: { ram: "4095KiB" } }],
    ["ram that no table can describe", "bad-option", { budgets: { ram: "4096TiB" } }],
    ["ssd 0", "bad-size", { budgets: { ssd: 0 } }],
    ["a budget of no gpu", "bad-option", { budgets: { gpu: "1GiB" } }],
    ["a gpu that is no factory", "bad-option", { gpu: {} }],
    [
      "a budget of the gpu",
      "bad-size",
      { budgets: { gpu: "much" }, gpu: webgpuTier({ device: {} }) },
    ],
    ["a warm tier longer than ram", "bad-size", { budgets: { ram: "8MiB", warm: "1GiB" } }],
    ["hdd 0", "bad-size", { budgets: { hdd: 0 } }],
    ["hdd in no directory", "bad-option", { hdd: { directory: "" } }],
    ["remote that is no factory", "bad-option", { remote: {} }],
    ["a budget of no remote", "bad-option", { budgets: { remote: "1GiB" } }],
    ["an unknown budget", "bad-option", { budgets: { tape: "1GiB" } }],
    ["a pool of no kind", "bad-option", { pools: { KV: { budget: "1MiB" } } }],
    ["a pool of __proto__", "bad-option", { pools: JSON.parse('{"__proto__":{"budget":"2MiB"}}') }],
    ["a pool without a budget", "bad-size", { pools: { KV_CACHE: {} } }],
    ["a pool below 1 MiB", "bad-size", { pools: { KV_CACHE: { budget: "1KiB" } } }],
    ["profile", "bad-option", { profile: "mainframe" }],
    ["profile __proto__", "bad-option", { profile: "__proto__" }],
    ["profile {}", "bad-option", { profile: {} }],
    ["profile 7", "bad-option", { profile: 7 }],
    ["mode", "bad-option", { ssd: { mode: "fast" } }],
    ["an empty directory", "bad-option", { ssd: { directory: "" } }],
    ["a directory with NUL", "bad-option", { ssd: { directory: "a\0b" } }],
    ["a tenant with a lone surrogate", "bad-option", { namespace: { tenant: "\ud800" } }],
    ["a fingerprint that is no text", "bad-option", { namespace: { fingerprint: 7 } }],
    ["debug that is no boolean", "bad-option", { debug: 1 }],
    ["a signal that is none", "bad-option", { signal: 7 }],
    ["unknown seams", "bad-option", { seams: { disk: {} } }],
    ["a tier that is none", "bad-option", { seams: { tier: 7 } }],
    ["an unknown option", "bad-option", { ram: "1GiB" }],
    ["a number", "bad-option", 7],
    ["null", "bad-option", null],
  ];

  it.each(bad)("refuses %s with %s", async (_name, code, options) => {
    expect(await codeOf(async () => (await createTensorMemory(options as Any)).close())).toBe(code);
  });

  it("refuses a signal that was aborted before", async () => {
    await expect(openMemory({ signal: AbortSignal.abort("no") })).rejects.toMatchObject({
      code: "aborted",
      cause: "no",
    });
  });
});

describe("any well-formed id", () => {
  const ids = [
    "",
    ".",
    "..",
    "../x",
    "../../etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "CON",
    "nul.",
    "x.",
    "x".repeat(10_000),
    "caf\u00e9",
    "cafe\u0301",
    "A",
    "a",
    "\u{1f9e0}",
    "__proto__",
    "constructor",
    "\ufffd",
    "\ufeff",
    " ",
  ];

  it("round-trips, with files only inside the directory", async () => {
    const parent = await temporaryDirectory();
    const directory = join(parent, "store");
    const memory = await openMemory({
      budgets: { ram: "16MiB", ssd: "64MiB" },
      ssd: { directory },
    });
    for (const [index, id] of ids.entries()) {
      const tensor = memory.allocate({ kind: "KV_CACHE", shape: [3], dtype: "u8", id });
      using pin = tensor.pin();
      pin.view.set([index, 1, 2]);
    }
    for (const id of ids) expect(await memory.swapOut(id)).toBe("stored");
    for (const [index, id] of ids.entries()) {
      using lease = await memory.acquire(id, { access: "read" });
      expect([...(lease?.bytes ?? [])], id).toEqual([index, 1, 2]);
    }
    expect(await readdir(parent)).toEqual(["store"]);
    for (const name of await readdir(directory)) {
      expect(name).toMatch(/^([0-9a-f]{16}\.[0-9a-f]{32}\.1\.segment|lock\.[0-9]+)$/);
    }
  });
});
