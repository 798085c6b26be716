// Safetensors files into the heap and out of it: equal both ways, by every option, and without a file in memory.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type ByteRangeReader,
  loadSafetensors,
  saveSafetensors,
} from "tierheap/adapters/safetensors";
import { describe, expect, it } from "vitest";
import { loadSafetensors as loadInBrowser } from "../../src/adapters/safetensors.js";
import { MisuseError } from "../../src/errors.js";
import type { Tensor } from "../../src/index.js";
import { memoryFileSystem, seededRandom } from "../../src/testing/index.js";
import { DTYPE_NAMES } from "../../src/types.js";
import { temporaryDirectory } from "../support/directories.js";
import { openMemory, openOn, SEED, withSeed } from "../support/oracle.js";
import { entryOf, fileOf } from "../support/safetensors.js";
import {
  allocationCount,
  bytesOf,
  collect,
  everyDtype,
  randomBytes,
} from "../support/safetensors-loads.js";

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
          const path = join(await temporaryDirectory(), "model.safetensors");
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
    const path = join(await temporaryDirectory(), "long.safetensors");
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
    const path = join(await temporaryDirectory(), "shared.safetensors");
    await writeFile(path, file);
    const loaded = await loadSafetensors(memory, path);
    const bytes = await bytesOf(memory, loaded);
    for (const [name, expected] of parts)
      expect(bytes.get(name) ?? new Uint8Array()).toEqual(expected);
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
