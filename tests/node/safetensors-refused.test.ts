// Safetensors files that are refused, judged before anything is allocated; loads that fail, of which nothing stays; and
// models in several files, loaded whole or not at all.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type ByteRangeReader,
  loadSafetensors,
  loadShardedSafetensors,
  SafetensorsError,
} from "tierheap/adapters/safetensors";
import { describe, expect, it } from "vitest";
import { TierError } from "../../src/errors.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { seededRandom } from "../../src/testing/index.js";
import { temporaryDirectory } from "../support/directories.js";
import { openMemory, withSeed } from "../support/oracle.js";
import { entryOf, fileOf, HEADER_BYTES, MALFORMED_FILES } from "../support/safetensors.js";
import { allocationCount, bytesOf, everyDtype } from "../support/safetensors-loads.js";

describe("malformed files", () => {
  it.each(MALFORMED_FILES)("%s: %s, before anything is allocated", async (_what, code, file) => {
    const memory = await openMemory();
    const before = memory.stats().budget.usedBytes;
    await expect(loadSafetensors(memory, file)).rejects.toMatchObject({
      name: "SafetensorsError",
      code,
    });
    expect(allocationCount(memory)).toBe(0);
    expect(memory.stats().budget.usedBytes).toBe(before);
  });

  it("are of every code that a header can have", () => {
    const codes = new Set(MALFORMED_FILES.map(([, code]) => code));
    expect(MALFORMED_FILES.length).toBeGreaterThanOrEqual(12);
    expect([...codes].sort()).toEqual([
      ...["bad-dtype", "bad-entry", "bad-metadata", "bad-name", "bad-offsets", "bad-shape"],
      ...["duplicate-name", "header-json", "header-length", "header-text", "overflow"],
      ...["size-mismatch", "too-short", "trailing-bytes"],
    ]);
  });

  it("what is unusual but valid is loaded", async () => {
    const memory = await openMemory();
    const header =
      `{${entryOf("b", "U8", [2], [4, 6])},${entryOf("a", "U8", [4], [0, 4])},` +
      `"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[6,7],"extra":{"x":[1]}}} \n`;
    const { tensors } = await loadSafetensors(
      memory,
      fileOf(header, Uint8Array.of(1, 2, 3, 4, 5, 6, 7)),
    );
    expect([...tensors.keys()]).toEqual(["a", "b", "__proto__"]);
    const pin = tensors.get("__proto__")?.tensor?.pin({ access: "read" });
    expect(pin?.bytes[0]).toBe(7);
    pin?.[Symbol.dispose]();
    expect((await loadSafetensors(memory, fileOf("{}"))).tensors.size).toBe(0);
    expect((await loadSafetensors(memory, fileOf('{"__metadata__":{}}'))).metadata).toEqual({});
  });

  it("the header's limit can be lowered", async () => {
    const memory = await openMemory();
    const file = fileOf("{}".padEnd(100, " "));
    await expect(loadSafetensors(memory, file, { headerBytesMax: 99 })).rejects.toMatchObject({
      code: "header-length",
    });
    await loadSafetensors(memory, file, { headerBytesMax: 100 });
  });

  it("mutated files are refused or loaded, and nothing else happens", async () => {
    await withSeed("mutated safetensors", async (seed) => {
      const random = seededRandom(seed);
      const memory = await openMemory();
      const { file: whole } = everyDtype(seed);
      const headerBytes = Number(new DataView(whole.buffer).getBigUint64(0, true));
      let refused = 0;
      let accepted = 0;
      const codes = new Set<string>();
      for (let round = 0; round < 3000; round++) {
        let file = whole.slice();
        for (let count = 1 + (random.uint32() % 3); count > 0; count--) {
          const place = random.uint32() % (8 + headerBytes);
          const noise = HEADER_BYTES[random.uint32() % HEADER_BYTES.byteLength] as number;
          const way = random.uint32() % 8;
          if (way === 0) file = file.slice(0, random.uint32() % file.byteLength);
          else if (way === 1) file = Uint8Array.from([...file, noise]);
          else if (place < file.byteLength) {
            file[place] = way < 5 ? noise : (file[place] as number) ^ (1 << (random.uint32() % 8));
          }
        }
        const before = allocationCount(memory);
        try {
          const loaded = await loadSafetensors(memory, file, { foreign: "bytes" });
          accepted += 1;
          const bytes = [...loaded.tensors.values()].reduce(
            (sum, each) => sum + each.byteLength,
            0,
          );
          // What is accepted accounts for every byte of the file.
          const header = Number(new DataView(file.buffer).getBigUint64(0, true));
          expect(8 + header + bytes).toBe(file.byteLength);
          for (const { tensor } of loaded.tensors.values()) tensor?.free();
        } catch (error) {
          if (!(error instanceof SafetensorsError)) throw error;
          codes.add(error.code);
          refused += 1;
          expect(allocationCount(memory)).toBe(before);
        }
      }
      // It reaches both sides, and most of the rules.
      expect(accepted).toBeGreaterThan(100);
      expect(refused).toBeGreaterThan(1000);
      expect(codes.size).toBeGreaterThanOrEqual(8);
    });
  });
});

describe("all or nothing", () => {
  const partBytes = 2 ** 20;
  const names = ["a", "b", "c"];
  const file = fileOf(
    `{${names.map((name, at) => entryOf(name, "U8", [partBytes], [at * partBytes, (at + 1) * partBytes])).join(",")}}`,
    3 * partBytes,
  );
  const readerThat = (atThird: () => Promise<number>): ByteRangeReader => ({
    byteLength: file.byteLength,
    readInto: async (target, offset) => {
      if (offset > file.byteLength - partBytes - 1) return atThird();
      target.set(file.subarray(offset, offset + target.byteLength));
      return target.byteLength;
    },
  });

  it.each([false, true])("a failed load frees what it loaded (shared: %s)", async (share) => {
    const memory = await openMemory();
    const controller = new AbortController();
    const cases: [ByteRangeReader, (error: unknown) => boolean][] = [
      [readerThat(async () => 0), (error) => (error as SafetensorsError).code === "truncated"],
      [
        readerThat(() => Promise.reject(new Error("network"))),
        (error) => (error as Error).message === "network",
      ],
      [
        readerThat(async () => {
          controller.abort();
          return partBytes;
        }),
        (error) => error instanceof TierError && error.code === "aborted",
      ],
    ];
    for (const [reader, isExpected] of cases) {
      const { signal } = controller;
      const error = await loadSafetensors(memory, reader, { share, signal }).catch((each) => each);
      expect(isExpected(error), String(error)).toBe(true);
      expect(memory.stats().tensors).toMatchObject({ count: 0, hotCount: 0 });
    }
  });

  it("so does one that finds no room", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" } });
    const held = memory.allocate({ kind: "PARAMETERS", byteLength: partBytes });
    const loading = loadSafetensors(memory, file, { ids: () => null });
    await expect(loading).rejects.toMatchObject({ code: "out-of-memory" });
    expect(memory.stats().tensors.hotCount).toBe(1);
    held.free();
  });

  it("a path that leads nowhere is an error of the environment", async () => {
    const memory = await openMemory();
    const loading = loadSafetensors(memory, join(await temporaryDirectory(), "none.safetensors"));
    await expect(loading).rejects.toMatchObject({ name: "TierError", code: "io" });
  });
});

describe("a model in several files", () => {
  const one = fileOf(
    `{"__metadata__":{"format":"pt"},${entryOf("a", "U8", [2], [0, 2])}}`,
    Uint8Array.of(1, 2),
  );
  const two = fileOf(
    `{${entryOf("b", "U8", [1], [0, 1])},${entryOf("c", "U8", [1], [1, 2])}}`,
    Uint8Array.of(3, 4),
  );
  const map = { a: "m-1.safetensors", b: "m-2.safetensors", c: "m-2.safetensors" };
  const indexOf = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  const shards = new Map([
    ["m-1.safetensors", one],
    ["m-2.safetensors", two],
  ]);
  const open = (fileName: string) => shards.get(fileName) as Uint8Array;

  it("is loaded by its index, from a path and from anywhere", async () => {
    const index = indexOf({ metadata: { total_size: 4.0 }, weight_map: map });
    const directory = await temporaryDirectory();
    for (const [name, file] of shards) await writeFile(join(directory, name), file);
    const path = join(directory, "model.safetensors.index.json");
    await writeFile(path, index);
    for (const load of [
      (memory: TensorMemory) => loadSafetensors(memory, path),
      (memory: TensorMemory) => loadShardedSafetensors(memory, { index, open }),
    ]) {
      const memory = await openMemory();
      const loaded = await load(memory);
      expect(loaded.metadata).toEqual({ format: "pt" });
      const bytes = await bytesOf(memory, loaded);
      expect([...bytes].map(([name, [byte]]) => [name, byte])).toEqual([
        ["a", 1],
        ["b", 3],
        ["c", 4],
      ]);
    }
  });

  const wrong: [string, unknown][] = [
    ["no object", []],
    ["no map", { weight_map: 1 }],
    ["an empty map", { weight_map: {} }],
    ["a file that is no text", { weight_map: { ...map, a: 1 } }],
    ["a folder above", { weight_map: { ...map, a: "../m-1.safetensors" } }],
    ["an absolute path", { weight_map: { ...map, a: "/etc/passwd" } }],
    ["a path of Windows", { weight_map: { ...map, a: "C:\\m-1" } }],
    ["only dots", { weight_map: { ...map, a: ".." } }],
    ["a name that the file has not", { weight_map: { ...map, d: "m-1.safetensors" } }],
    ["a name that the index has not", { weight_map: { a: map.a, b: map.b } }],
    ["a name in the wrong file", { weight_map: { ...map, c: "m-1.safetensors" } }],
  ];
  it.each(wrong)(
    "an index with %s is refused before anything is allocated",
    async (_name, value) => {
      const memory = await openMemory();
      const loading = loadShardedSafetensors(memory, { index: indexOf(value), open });
      await expect(loading).rejects.toMatchObject({ code: "bad-index" });
      expect(allocationCount(memory)).toBe(0);
    },
  );

  it("a damaged second file is found before the first is loaded", async () => {
    const memory = await openMemory();
    const index = indexOf({ weight_map: map });
    const openCut = (name: string) =>
      open(name).subarray(0, name === "m-2.safetensors" ? 40 : undefined);
    const loading = loadShardedSafetensors(memory, { index, open: openCut });
    await expect(loading).rejects.toMatchObject({ code: "header-length" });
    expect(allocationCount(memory)).toBe(0);
  });
});
