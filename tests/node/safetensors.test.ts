// Safetensors files into the heap and out of it: equal both ways, judged before anything is allocated,
// all or nothing, and without a file in memory.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type ByteRangeReader,
  type LoadedSafetensors,
  loadSafetensors,
  loadShardedSafetensors,
  SafetensorsError,
  saveSafetensors,
} from "tierheap/adapters/safetensors";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadSafetensors as loadInBrowser } from "../../src/adapters/safetensors.js";
import { MisuseError, TierError } from "../../src/errors.js";
import type { Tensor } from "../../src/index.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryFileSystem, seededRandom } from "../../src/testing/index.js";
import { DTYPE_NAMES, dtypeTraits } from "../../src/types.js";
import { openMemory, openOn, SEED, withSeed } from "../support/oracle.js";
import { entryOf, fileOf, HEADER_BYTES, MALFORMED_FILES } from "../support/safetensors.js";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "tierheap-safetensors-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return new Uint8Array(Buffer.concat(parts));
}

function randomBytes(random: { uint32(): number }, byteLength: number): Uint8Array {
  return Uint8Array.from({ length: byteLength }, () => random.uint32() & 0xff);
}

/** The bytes of each tensor by name; tensors that left RAM come back for it. */
async function bytesOf(memory: TensorMemory, loaded: LoadedSafetensors) {
  const all = new Map<string, Uint8Array>();
  for (const { name, tensor } of loaded.tensors.values()) {
    if (tensor === null) continue;
    const pin =
      tensor.id === null
        ? tensor.pin({ access: "read" })
        : await memory.acquire(tensor.id, { access: "read" });
    if (pin === null) throw new Error(`${name} is gone`);
    all.set(name, pin.bytes.slice());
    pin[Symbol.dispose]();
  }
  return all;
}

function allocationCount(memory: TensorMemory): number {
  return memory.stats().pools.reduce((sum, pool) => sum + pool.allocationCount, 0);
}

/** A file with one tensor of each of our element types, an empty one and a single value. */
function everyDtype(seed: number) {
  const random = seededRandom(seed);
  const names = [...DTYPE_NAMES].map((dtype) => [dtype.toUpperCase(), dtype] as const);
  const shapes = new Map<string, number[]>();
  const parts = new Map<string, Uint8Array>();
  const members: string[] = [];
  let offset = 0;
  const add = (name: string, dtype: string, elementBytes: number, shape: number[]) => {
    const byteLength = shape.reduce((product, length) => product * length, elementBytes);
    shapes.set(name, shape);
    parts.set(name, randomBytes(random, byteLength));
    members.push(entryOf(name, dtype, shape, [offset, offset + byteLength]));
    offset += byteLength;
  };
  for (const [name, dtype] of names) {
    const { elementBytes } = dtypeTraits(dtype);
    add(`layer.${dtype}`, name, elementBytes, [1 + (random.uint32() % 3), 5, 2]);
  }
  add("scale", "F32", 4, []);
  add("none", "BF16", 2, [3, 0]);
  const data = new Uint8Array(Buffer.concat([...parts.values()]));
  const header = `{"__metadata__":{"format":"pt","note":"é"},${members.join(",")}}`;
  return { file: fileOf(header, data), parts, shapes };
}

describe("round trip", () => {
  const sources: [string, (file: Uint8Array) => Promise<Parameters<typeof loadSafetensors>[1]>][] =
    [
      ["bytes", async (file) => file],
      ["a Blob", async (file) => new Blob([new Uint8Array(file)])],
      [
        "a reader that gives little at a time",
        async (file) => ({
          byteLength: file.byteLength,
          readInto: async (target: Uint8Array, offset: number) => {
            const part = file.subarray(offset, offset + Math.min(3, target.byteLength));
            target.set(part);
            return part.byteLength;
          },
        }),
      ],
      [
        "a path",
        async (file) => {
          const path = join(directory, "model.safetensors");
          await writeFile(path, file);
          return path;
        },
      ],
    ];
  it.each(sources)("is equal from %s, for every dtype", async (_name, sourceOf) => {
    await withSeed("round trip", async (seed) => {
      const memory = await openMemory();
      const { file, parts, shapes } = everyDtype(seed);
      const loaded = await loadSafetensors(memory, await sourceOf(file));
      expect(loaded.tensors.size).toBe(DTYPE_NAMES.length + 2);
      expect(loaded.metadata).toEqual({ format: "pt", note: "é" });
      for (const { name, shape, tensor } of loaded.tensors.values()) {
        expect(shape).toEqual(shapes.get(name));
        expect(tensor?.kind ?? "PARAMETERS").toBe("PARAMETERS");
        expect(tensor?.shape).toEqual(
          name === "scale" ? [1] : name === "none" ? undefined : shapes.get(name),
        );
      }
      const saved = await collect(
        saveSafetensors(memory, loaded.tensors.values(), { metadata: loaded.metadata }),
      );
      const other = await openMemory();
      const again = await loadSafetensors(other, saved);
      expect(again.metadata).toEqual(loaded.metadata);
      const [first, second] = [await bytesOf(memory, loaded), await bytesOf(other, again)];
      for (const [name, bytes] of parts) {
        expect(first.get(name) ?? new Uint8Array(), name).toEqual(bytes);
        expect(second.get(name) ?? new Uint8Array(), name).toEqual(bytes);
        expect(again.tensors.get(name)?.shape).toEqual(shapes.get(name));
      }
      // Whatever order they come in, the file is the same.
      const reversed = [...again.tensors.values()].reverse();
      const metadata = { note: "é", format: "pt" };
      expect(await collect(saveSafetensors(other, reversed, { metadata }))).toEqual(saved);
    });
  });

  it("writes the bytes that the format's own library writes", async () => {
    const memory = await openMemory();
    const one = memory.allocate({ kind: "PARAMETERS", shape: [2], dtype: "u8" });
    const two = memory.allocate({ kind: "PARAMETERS", shape: [2, 1], dtype: "i32", zero: true });
    const pin = one.pin();
    pin.view.set([1, 2]);
    pin[Symbol.dispose]();
    const tensors = [
      { name: "10", tensor: one },
      { name: "b", tensor: two },
    ];
    const saved = await collect(saveSafetensors(memory, tensors));
    // The longer elements first, fields in this order, blanks up to a multiple of 8.
    const header =
      '{"b":{"dtype":"I32","shape":[2,1],"data_offsets":[0,8]},' +
      '"10":{"dtype":"U8","shape":[2],"data_offsets":[8,10]}}';
    const padded = header.padEnd(Math.ceil(header.length / 8) * 8, " ");
    expect(saved).toEqual(fileOf(padded, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 1, 2)));
    one.free();
    two.free();
  });

  it("loads a file that is longer than the budget, and writes it again", async () => {
    const memory = await openOn(memoryFileSystem(), {
      budgets: { ram: "4MiB" },
      codecs: { default: "raw" },
    });
    const random = seededRandom(SEED);
    const partBytes = 700_001;
    const names = Array.from({ length: 12 }, (_, index) => `w.${String(index).padStart(2, "0")}`);
    const members = names.map((name, index) =>
      entryOf(name, "U8", [partBytes], [index * partBytes, (index + 1) * partBytes]),
    );
    const file = fileOf(`{${members.join(",")}}`, randomBytes(random, names.length * partBytes));
    const path = join(directory, "long.safetensors");
    await writeFile(path, file);
    const loaded = await loadSafetensors(memory, path);
    expect(memory.stats().transfers.swapOutCount).toBeGreaterThan(0);
    await writeFile(`${path}.copy`, saveSafetensors(memory, loaded.tensors.values()));
    const other = await loadSafetensors(await openMemory(), `${path}.copy`);
    expect(other.tensors.size).toBe(names.length);
    const copy = await readFile(`${path}.copy`);
    expect(
      Buffer.compare(
        copy.subarray(-names.length * partBytes),
        file.subarray(-names.length * partBytes),
      ),
    ).toBe(0);
  });

  it("reads straight into the block, a mebibyte at a time", async () => {
    const memory = await openMemory();
    const byteLength = 3 * 2 ** 20 + 5;
    const file = fileOf(`{${entryOf("w", "U8", [byteLength], [0, byteLength])}}`, byteLength);
    const targets: Uint8Array[] = [];
    const reader: ByteRangeReader = {
      byteLength: file.byteLength,
      readInto: async (target, offset) => {
        target.set(file.subarray(offset, offset + target.byteLength));
        targets.push(target);
        return target.byteLength;
      },
    };
    const { tensors } = await loadSafetensors(memory, reader);
    const pin = (await memory.acquire("w", { access: "read" }))!;
    const [length, header, ...chunks] = targets;
    expect([length?.byteLength, header?.byteLength]).toEqual([8, file.byteLength - byteLength - 8]);
    expect(chunks.map((chunk) => chunk.byteLength)).toEqual([2 ** 20, 2 ** 20, 2 ** 20, 5]);
    expect(chunks.every((chunk) => chunk.buffer === pin.bytes.buffer)).toBe(true);
    pin[Symbol.dispose]();
    tensors.get("w")?.tensor?.free();
  });

  it("reads a file into shared memory", async () => {
    const memory = await openMemory({ shared: true });
    const { file, parts } = everyDtype(SEED);
    const path = join(directory, "shared.safetensors");
    await writeFile(path, file);
    const loaded = await loadSafetensors(memory, path);
    const bytes = await bytesOf(memory, loaded);
    for (const [name, expected] of parts)
      expect(bytes.get(name) ?? new Uint8Array()).toEqual(expected);
  });
});

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

describe("what tensors do not have", () => {
  const file = fileOf(
    `{${entryOf("w", "F8_E4M3", [2, 3], [0, 6])},${entryOf("x", "F4", [4], [6, 8])},` +
      `${entryOf("y", "C64", [1], [8, 16])}}`,
    randomBytes(seededRandom(1), 16),
  );
  it("is refused, or loaded as bytes and written as it was", async () => {
    const memory = await openMemory();
    await expect(loadSafetensors(memory, file)).rejects.toMatchObject({ code: "unsupported" });
    expect(allocationCount(memory)).toBe(0);
    const loaded = await loadSafetensors(memory, file, { foreign: "bytes" });
    expect(loaded.tensors.get("w")).toMatchObject({ dtype: "F8_E4M3", shape: [2, 3] });
    expect(loaded.tensors.get("w")?.tensor).toMatchObject({ dtype: "u8", shape: [6] });
    const other = await openMemory();
    const saved = await collect(saveSafetensors(memory, loaded.tensors.values()));
    const again = await loadSafetensors(other, saved, { foreign: "bytes" });
    expect(await bytesOf(other, again)).toEqual(await bytesOf(memory, loaded));
    expect(again.tensors.get("x")).toMatchObject({ dtype: "F4", shape: [4] });
  });

  it("nine dimensions and four gibibytes are refused", async () => {
    const memory = await openMemory();
    const rank = fileOf(`{${entryOf("w", "U8", Array(9).fill(1), [0, 1])}}`, 1);
    await expect(loadSafetensors(memory, rank)).rejects.toMatchObject({ code: "unsupported" });
    const byteLength = 2 ** 32;
    const header = fileOf(`{${entryOf("w", "U8", [byteLength], [0, byteLength])}}`);
    const reader: ByteRangeReader = {
      byteLength: header.byteLength + byteLength,
      readInto: async (target, offset) => {
        target.set(header.subarray(offset, offset + target.byteLength));
        return target.byteLength;
      },
    };
    await expect(loadSafetensors(memory, reader)).rejects.toMatchObject({ code: "unsupported" });
    expect(allocationCount(memory)).toBe(0);
  });
});

describe("options", () => {
  const file = fileOf(
    `{${entryOf("a", "F32", [2], [0, 8])},${entryOf("b", "F32", [2], [8, 16])},` +
      `${entryOf("c", "U8", [8], [16, 24])}}`,
    Uint8Array.from({ length: 24 }, (_, index) => index % 8),
  );

  it("ids, kinds and a filter", async () => {
    const memory = await openMemory();
    const loaded = await loadSafetensors(memory, file, {
      ids: (name) => (name === "a" ? null : `model/${name}`),
      kinds: (name) => (name === "a" ? "TEXT_EMBEDDINGS" : "PARAMETERS"),
      filter: ({ dtype }) => dtype === "F32",
    });
    expect([...loaded.tensors.keys()]).toEqual(["a", "b"]);
    expect(loaded.byteLength).toBe(16);
    expect(loaded.tensors.get("a")?.tensor).toMatchObject({ id: null, kind: "TEXT_EMBEDDINGS" });
    expect(memory.tensor("model/b")?.kind).toBe("PARAMETERS");
    loaded.tensors.get("a")?.tensor?.free();
  });

  it("equal contents share one block", async () => {
    const memory = await openMemory();
    const loaded = await loadSafetensors(memory, file, { share: true });
    expect(memory.stats().sharing).toMatchObject({
      sharedCount: 3,
      contentCount: 2,
      savedBytes: 8,
    });
    const bytes = await bytesOf(memory, loaded);
    expect(bytes.get("a")).toEqual(bytes.get("b"));
    expect(memory.stats().tensors.hotBytes).toBe(16);
  });

  it("disposable tensors are dropped, and can be loaded again", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" } });
    const byteLength = 300_000;
    const long = fileOf(`{${entryOf("w", "U8", [byteLength], [0, byteLength])}}`, byteLength);
    await loadSafetensors(memory, long, { disposable: true });
    const others: Tensor[] = [];
    while (memory.tensor("w")?.isResident === true) {
      others.push(memory.allocate({ kind: "PARAMETERS", byteLength }));
    }
    expect(await memory.acquire("w")).toBeNull();
    for (const other of others) other.free();
    await loadSafetensors(memory, long, { disposable: true });
    expect(memory.tensor("w")?.isResident).toBe(true);
  });

  const misuses: [string, object, string][] = [
    ["an unknown option", { id: "a" }, "bad-option"],
    ["an id for two", { ids: () => "same" }, "duplicate-id"],
    ["an id in use", { ids: (name: string) => (name === "c" ? "used" : name) }, "duplicate-id"],
    ["an id that is none", { ids: () => "\ud800" }, "bad-id"],
    ["a kind that is none", { kinds: () => "WEIGHTS" }, "bad-kind"],
    ["a filter that is none", { filter: "a" }, "bad-option"],
    ["shared and disposable", { share: true, disposable: true }, "bad-option"],
    ["shared without an id", { share: true, ids: () => null }, "bad-id"],
    ["a foreign rule that is none", { foreign: "skip" }, "bad-option"],
    ["no header at all", { headerBytesMax: 0 }, "bad-size"],
  ];
  it.each(misuses)("%s is refused before anything is allocated", async (_name, options, code) => {
    const memory = await openMemory();
    const used = memory.allocate({ kind: "PARAMETERS", id: "used", byteLength: 1 });
    await expect(loadSafetensors(memory, file, options)).rejects.toMatchObject({ code });
    expect(allocationCount(memory)).toBe(1);
    used.free();
  });

  it("a source that is none is refused", async () => {
    const memory = await openMemory();
    for (const source of [null, 1, {}, { byteLength: -1, readInto: () => 0 }, "path"]) {
      const loading = loadInBrowser(memory, source as never);
      await expect(loading).rejects.toMatchObject({ code: "bad-option" });
    }
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
    const loading = loadSafetensors(memory, join(directory, "none.safetensors"));
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

describe("saving", () => {
  it("refuses at once what cannot be written", async () => {
    const memory = await openMemory();
    const other = await openMemory();
    const tensor = memory.allocate({ kind: "PARAMETERS", id: "w", shape: [2], dtype: "f32" });
    const freed = memory.allocate({ kind: "PARAMETERS", byteLength: 1 });
    freed.free();
    const save = (saved: object, options = {}, heap = memory) => {
      try {
        saveSafetensors(heap, [saved as never].flat(), options);
        return "taken";
      } catch (error) {
        return (error as { code?: string }).code;
      }
    };
    expect(save({ name: "w", tensor })).toBe("taken");
    expect(save({ name: "__metadata__", tensor })).toBe("bad-name");
    expect(save({ name: "\ud800", tensor })).toBe("bad-name");
    expect(
      save([
        { name: "w", tensor },
        { name: "w", tensor },
      ]),
    ).toBe("duplicate-name");
    expect(save({ name: "w", tensor: freed })).toBe("freed");
    expect(save({ name: "w", tensor }, {}, other)).toBe("foreign-handle");
    expect(save({ name: "w", tensor, dtype: "F7" })).toBe("bad-dtype");
    expect(save({ name: "w", tensor, dtype: "F16" })).toBe("size-mismatch");
    expect(save({ name: "w", tensor, dtype: "F16", shape: [4] })).toBe("taken");
    expect(save({ name: "w", tensor, shape: [-2] })).toBe("bad-shape");
    expect(save({ name: "w", tensor: null })).toBe("bad-dtype");
    expect(save({ name: "w", tensor: null, dtype: "F32", shape: [0] })).toBe("taken");
    expect(save({ name: "w", tensor, id: "w" })).toBe("bad-option");
    expect(save({ name: "w", tensor }, { metadata: { step: 1 } })).toBe("bad-metadata");
    expect(save({ name: "w", tensor }, { meta: {} })).toBe("bad-option");
  });

  it("notices a writer, frees its pin, and stops at the signal", async () => {
    const memory = await openMemory();
    const byteLength = 3 * 2 ** 20;
    const tensor = memory.allocate({ kind: "PARAMETERS", id: "w", byteLength });
    const saved = [{ name: "w", tensor }];
    const written = saveSafetensors(memory, saved);
    await written.next();
    await written.next();
    const pin = tensor.pin();
    await expect(written.next()).rejects.toBeInstanceOf(MisuseError);
    pin[Symbol.dispose]();
    // Half a file, and the iteration ends.
    for await (const chunk of saveSafetensors(memory, saved)) if (chunk.byteLength > 1000) break;
    const controller = new AbortController();
    const stopped = saveSafetensors(memory, saved, { signal: controller.signal });
    await stopped.next();
    controller.abort();
    await expect(stopped.next()).rejects.toMatchObject({ code: "aborted" });
    tensor.free();
    const gone = saveSafetensors(memory, [
      { name: "w", tensor: memory.allocate({ kind: "PARAMETERS", id: "v", byteLength: 1 }) },
    ]);
    memory.free("v");
    await gone.next();
    await expect(gone.next()).rejects.toMatchObject({ code: "freed" });
  });
});
