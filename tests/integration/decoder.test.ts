/**
 * The generated decoder on real ONNX runtimes: known bytes, known tokens, and equal tokens whether
 * the KV cache is reused, recomputed or kept in a WebAssembly memory.
 */
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildDecoder, type DecoderOptions } from "../../examples/chat/model/decoder.js";
import { type ElementType, OnnxGraph } from "../../examples/chat/model/onnx-writer.js";
import {
  type DecoderRuntime,
  type KvViews,
  NATIVE_RUNTIME,
  openRuntime,
  type RuntimeCandidate,
  WASM_RUNTIME,
} from "../../examples/chat/runtime.js";

const TINY: DecoderOptions = {
  layers: 2,
  hidden: 64,
  heads: 4,
  kvHeads: 4,
  vocabulary: 256,
  positions: 2048,
  seed: 1,
};
const GROUPED: DecoderOptions = {
  ...TINY,
  hidden: 96,
  heads: 6,
  kvHeads: 2,
  headDim: 8,
  seed: 3,
  attentionSharpness: 6,
};

const PROMPT = [10, 20, 30, 40, 50, 60, 70];
const ANSWER = [244, 217, 217, 217, 163, 8, 255, 248, 217, 163, 166, 217];
const SECOND_PROMPT = [99, 98, 97];
const SECOND_ANSWER = [16, 205, 104, 163, 8, 38];

/** Where a test keeps the KV between two steps. */
type KeepPast = (present: KvViews) => KvViews;

/** A chat that reuses its KV: the last token generated is not in the cache until it is fed. */
class Chat {
  past: KvViews = [];
  pastTokens = 0;
  logitGapMin = Number.POSITIVE_INFINITY;
  readonly #runtime: DecoderRuntime;
  readonly #keep: KeepPast;
  #pending: number[] = [];

  constructor(runtime: DecoderRuntime, keep: KeepPast = (present) => present) {
    this.#runtime = runtime;
    this.#keep = keep;
  }

  async say(prompt: readonly number[], answerTokens: number): Promise<number[]> {
    const answer: number[] = [];
    let input = [...this.#pending, ...prompt];
    while (answer.length < answerTokens) {
      const result = await this.#runtime.step(input, this.past, this.pastTokens);
      this.past = this.#keep(result.present);
      this.pastTokens += input.length;
      this.logitGapMin = Math.min(this.logitGapMin, result.logitGap);
      input = [result.nextToken];
      answer.push(result.nextToken);
    }
    this.#pending = input;
    return answer;
  }
}

/** Generates without any cache: each token from the whole sequence. */
async function recompute(
  runtime: DecoderRuntime,
  prompt: readonly number[],
  answerTokens: number,
): Promise<number[]> {
  const sequence = [...prompt];
  for (let index = 0; index < answerTokens; index++) {
    sequence.push((await runtime.step(sequence, [], 0)).nextToken);
  }
  return sequence.slice(prompt.length);
}

function digest(views: readonly ArrayBufferView[]): string {
  const hash = createHash("sha256");
  for (const { buffer, byteOffset, byteLength } of views) {
    hash.update(new Uint8Array(buffer, byteOffset, byteLength));
  }
  return hash.digest("hex");
}

function kvBytes(views: KvViews): number {
  return views.reduce((sum, view) => sum + view.byteLength, 0);
}

describe("buildDecoder", () => {
  it("writes the known file", () => {
    const model = buildDecoder(TINY);
    expect(model.byteLength).toBe(1_055_180);
    expect(model.buffer.byteLength).toBe(model.byteLength);
    expect(digest([model])).toMatch(/^0dbe8e008119f40f/);
  });

  it("gives equal bytes for equal options, and other bytes for another seed", () => {
    const hash = digest([buildDecoder(GROUPED)]);
    expect(digest([buildDecoder(GROUPED)])).toBe(hash);
    expect(digest([buildDecoder({ ...GROUPED, seed: 4 })])).not.toBe(hash);
  });

  it("refuses sizes that no decoder has", () => {
    const wrong: Partial<DecoderOptions>[] = [
      { layers: 0 },
      { hidden: 66 },
      { heads: 4, kvHeads: 3 },
      { headDim: 1.5 },
      { seed: -1 },
      { attentionSharpness: 0 },
    ];
    for (const options of wrong) {
      expect(() => buildDecoder({ ...TINY, ...options }), JSON.stringify(options)).toThrow(
        RangeError,
      );
    }
  });
});

describe.each([
  [NATIVE_RUNTIME.name, NATIVE_RUNTIME],
  [WASM_RUNTIME.name, WASM_RUNTIME],
])("%s", (_name, candidate) => {
  let tiny: DecoderRuntime;
  let grouped: DecoderRuntime;

  beforeAll(async () => {
    tiny = await openRuntime({ model: buildDecoder(TINY), candidates: [candidate] });
    grouped = await openRuntime({ model: buildDecoder(GROUPED), candidates: [candidate] });
  });

  afterAll(async () => {
    await tiny.close();
    await grouped.close();
  });

  it("reports its name and the shape of the KV", () => {
    expect(tiny.name).toBe(candidate.name);
    expect(tiny.kv).toEqual({ layers: 2, kvHeads: 4, headDim: 16, dtype: "f32" });
    expect(grouped.kv).toEqual({ layers: 2, kvHeads: 2, headDim: 8, dtype: "f32" });
  });

  it("generates the known tokens over two turns of a reused cache", async () => {
    const chat = new Chat(tiny);
    expect(await chat.say(PROMPT, ANSWER.length)).toEqual(ANSWER);
    expect(chat.pastTokens).toBe(18);
    expect(chat.logitGapMin).toBeGreaterThan(0.04);
    expect(await chat.say(SECOND_PROMPT, SECOND_ANSWER.length)).toEqual(SECOND_ANSWER);
    expect(chat.pastTokens).toBe(27);
    expect(kvBytes(chat.past)).toBe(27 * 1024);
  });

  it("generates the same tokens from views over a WebAssembly memory", async () => {
    const memory = new WebAssembly.Memory({ initial: 2, maximum: 2 });
    const chat = new Chat(tiny, (present) => {
      let address = 64;
      return present.map((source) => {
        const target = new Float32Array(memory.buffer, address, source.length);
        target.set(source);
        address += Math.ceil(source.byteLength / 64) * 64;
        return target;
      });
    });
    expect(await chat.say(PROMPT, ANSWER.length)).toEqual(ANSWER);
    expect(await chat.say(SECOND_PROMPT, SECOND_ANSWER.length)).toEqual(SECOND_ANSWER);
  });

  it("leaves the past it was given, and the results it gave, unchanged", async () => {
    const first = await tiny.step(PROMPT, [], 0);
    const before = digest(first.present);
    await tiny.step([first.nextToken], first.present, PROMPT.length);
    await tiny.step([1, 2, 3], [], 0);
    expect(digest(first.present)).toBe(before);
  });

  it("takes a Uint8Array as tokens", async () => {
    const { nextToken } = await tiny.step(Uint8Array.from(PROMPT), [], 0);
    expect(nextToken).toBe(ANSWER[0]);
  });

  it("repeats itself bit by bit", async () => {
    const runs = [new Chat(grouped), new Chat(grouped)];
    const [first, second] = [await runs[0]?.say(PROMPT, 40), await runs[1]?.say(PROMPT, 40)];
    expect(second).toEqual(first);
    expect(digest(runs[1]?.past ?? [])).toBe(digest(runs[0]?.past ?? []));
  });

  it("decodes grouped heads from the cache as from the whole sequence", async () => {
    const chat = new Chat(grouped);
    const answer = await chat.say(PROMPT, 24);
    expect(answer).toEqual(await recompute(grouped, PROMPT, 24));
    expect(new Set(answer).size).toBeGreaterThan(3);
    const elements = 2 * 8 * chat.pastTokens;
    expect(chat.past.map((view) => view.length)).toEqual([elements, elements, elements, elements]);
  });

  it("answers differently over another chat's cache", async () => {
    const own = await grouped.step(PROMPT, [], 0);
    const foreign = await grouped.step([200, 4, 77, 31, 150, 9, 70], [], 0);
    const results = [];
    for (const { present } of [own, foreign]) {
      results.push(await grouped.step([1, 2, 3], present, PROMPT.length));
    }
    expect(digest(results[0]?.present ?? [])).not.toBe(digest(results[1]?.present ?? []));
    expect(results[0]?.logitGap).not.toBe(results[1]?.logitGap);
  });

  it.each([
    ["no token", [], [], 0],
    ["a token beyond the vocabulary", [256], [], 0],
    ["a negative token", [-1], [], 0],
    ["half a token", [1.5], [], 0],
    ["a past without views", [1], [], 3],
    ["views of another length", [1], [1, 2, 3, 4].map(() => new Float32Array(63)), 1],
    ["views of another type", [1], [1, 2, 3, 4].map(() => new Uint16Array(64)), 1],
    ["a negative past", [1], [], -1],
  ])("refuses %s", async (_, tokens, past, pastTokens) => {
    await expect(tiny.step(tokens, past, pastTokens)).rejects.toMatchObject({ code: "bad-input" });
  });

  it("reports a sequence longer than the model's positions, and goes on", async () => {
    const tooLong = tiny.step(new Uint8Array(2049), [], 0);
    await expect(tooLong).rejects.toMatchObject({ code: "run-failed" });
    expect((await tiny.step(PROMPT, [], 0)).nextToken).toBe(ANSWER[0]);
  });

  it("runs half-precision KV and tells merged exports when to use the cache", async () => {
    const runtime = await openRuntime({ model: buildHalfModel(), candidates: [candidate] });
    expect(runtime.kv).toEqual({ layers: 1, kvHeads: 2, headDim: 2, dtype: "f16" });
    const first = await runtime.step([1, 2], [], 0);
    expect(first.nextToken).toBe(2);
    expect(first.logitGap).toBeCloseTo(0.5, 6);
    expect(first.present.every((view) => view instanceof Uint16Array)).toBe(true);
    const second = await runtime.step([1], first.present, 2);
    expect(second.nextToken).toBe(3);
    // Rows of token 1 are the halves 1, 2, 3, 4; of token 2, twice that.
    const [h1, h2, h3, h4, h6, h8] = [0x3c00, 0x4000, 0x4200, 0x4400, 0x4600, 0x4800];
    const rows = [h1, h2, h2, h4, h1, h2, h3, h4, h6, h8, h3, h4];
    expect(Array.from(second.present[0] ?? [])).toEqual(rows);
    await runtime.close();
  });

  it("refuses work after it is closed, and closes twice", async () => {
    const runtime = await openRuntime({ model: buildDecoder(TINY), candidates: [candidate] });
    await runtime.close();
    await runtime.close();
    await expect(runtime.step([1], [], 0)).rejects.toMatchObject({ code: "closed" });
  });

  describe("opening", () => {
    let directory: string;

    beforeAll(async () => {
      directory = await mkdtemp(join(tmpdir(), "decoder-"));
    });

    afterAll(() => rm(directory, { recursive: true }));

    it("reads a model by path", async () => {
      const path = join(directory, "model.onnx");
      await writeFile(path, buildDecoder(TINY));
      const runtime = await openRuntime({ model: path, candidates: [candidate] });
      expect((await runtime.step(PROMPT, [], 0)).nextToken).toBe(ANSWER[0]);
      await runtime.close();
    });

    it("reports a missing model", async () => {
      const opening = openRuntime({ model: join(directory, "none"), candidates: [candidate] });
      await expect(opening).rejects.toMatchObject({ name: "RuntimeError", code: "model-missing" });
    });

    it("reports a folder, and files that are cut or foreign", async () => {
      const foreign = join(directory, "foreign.onnx");
      await writeFile(foreign, "no model");
      for (const model of [directory, foreign, buildDecoder(TINY).subarray(0, 500_000)]) {
        const opening = openRuntime({ model, candidates: [candidate] });
        await expect(opening).rejects.toMatchObject({ code: "model-unreadable" });
      }
    });

    it.each([
      ["an unknown operator", { operator: "NoSuchOperator" }],
      ["an unknown input", { extraInput: "encoder_hidden_states" }],
      ["no KV", { pastNames: [] }],
      ["a key without a value", { pastNames: ["past_key_values.0.key"] }],
      ["a gap in its layers", { pastNames: ["past_key_values.1.key", "past_key_values.1.value"] }],
      ["KV of integers", { type: "int64" as const }],
      ["KV with an open number of heads", { heads: "heads" }],
    ])("refuses a model with %s", async (_, options) => {
      const opening = openRuntime({ model: buildOddModel(options), candidates: [candidate] });
      await expect(opening).rejects.toMatchObject({ code: "model-unsupported" });
      await expect(opening).rejects.toThrow(/^[^\n]+$/);
    });
  });
});

describe("openRuntime", () => {
  const broken: RuntimeCandidate = {
    ...NATIVE_RUNTIME,
    load: () => Promise.reject(new Error("cannot open shared object file")),
  };

  it("falls back to WebAssembly where the native library cannot load", async () => {
    const candidates = [broken, WASM_RUNTIME];
    const runtime = await openRuntime({ model: buildDecoder(TINY), candidates });
    expect(runtime.name).toBe("onnxruntime-web");
    await runtime.close();
  });

  it("says what to install where nothing loads", async () => {
    const opening = openRuntime({ model: buildDecoder(TINY), candidates: [broken] });
    await expect(opening).rejects.toMatchObject({ code: "runtime-missing" });
    await expect(opening).rejects.toThrow("npm install onnxruntime-node");
  });

  it("rejects with the reason of its signal", async () => {
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    await expect(openRuntime({ model: buildDecoder(TINY), signal })).rejects.toBe(reason);
  });

  it("ends between its stages", async () => {
    const controller = new AbortController();
    const slow: RuntimeCandidate = {
      ...NATIVE_RUNTIME,
      load: () => {
        controller.abort();
        return NATIVE_RUNTIME.load();
      },
    };
    const { signal } = controller;
    const opening = openRuntime({ model: buildDecoder(TINY), candidates: [slow], signal });
    await expect(opening).rejects.toMatchObject({ name: "AbortError" });
  });
});

/**
 * A model of one layer with f16 KV and f16 logits, in the form of a merged export: token 2 without
 * the cache, token 3 with it. The KV row of token t is t times 1, 2, 3, 4.
 */
function buildHalfModel(): Uint8Array<ArrayBuffer> {
  const graph = new OnnxGraph();
  graph.input("input_ids", "int64", ["batch_size", "sequence_length"]);
  graph.input("use_cache_branch", "bool", [1]);
  graph.floats(
    "table",
    [4, 4],
    Float32Array.from({ length: 16 }, (_, at) => (at >> 2) * ((at & 3) + 1)),
  );
  graph.floats("without", [4], Float32Array.of(0, 0.5, 1, -1));
  graph.floats("with", [4], Float32Array.of(0, 0.5, -1, 1));
  graph.floats("nothing", [1, 1, 4], new Float32Array(4));
  graph.integers("split", [4], [0, 0, 2, 2]);
  graph.node("Gather", ["table", "input_ids"], "x");
  graph.node("Reshape", ["x", "split"], "x4");
  graph.node("Transpose", ["x4"], "xt", { perm: [0, 2, 1, 3] });
  graph.node("Cast", ["xt"], "rows", { to: 10 });
  for (const part of ["key", "value"]) {
    const past = `past_key_values.0.${part}`;
    graph.input(past, "float16", ["batch_size", 2, "past_sequence_length", 2]);
    graph.node("Concat", [past, "rows"], `present.0.${part}`, { axis: 2 });
    graph.output(`present.0.${part}`, "float16", ["batch_size", 2, "total_sequence_length", 2]);
  }
  graph.node("Mul", ["x", "nothing"], "zeros");
  graph.node("Where", ["use_cache_branch", "with", "without"], "choice");
  graph.node("Add", ["zeros", "choice"], "wide");
  graph.node("Cast", ["wide"], "logits", { to: 10 });
  graph.output("logits", "float16", ["batch_size", "sequence_length", 4]);
  return graph.toModel();
}

/** A model that differs from a decoder in one point. */
function buildOddModel(options: {
  operator?: string;
  extraInput?: string;
  pastNames?: readonly string[];
  type?: ElementType;
  heads?: string;
}): Uint8Array<ArrayBuffer> {
  const { operator = "Identity", extraInput, type = "float32", heads = 2 } = options;
  const { pastNames = ["past_key_values.0.key", "past_key_values.0.value"] } = options;
  const graph = new OnnxGraph();
  graph.input("input_ids", "int64", ["batch_size", "sequence_length"]);
  if (extraInput !== undefined) graph.input(extraInput, "float32", ["batch_size"]);
  graph.floats("table", [4, 4], new Float32Array(16));
  graph.node("Gather", ["table", "input_ids"], "logits");
  graph.output("logits", "float32", ["batch_size", "sequence_length", 4]);
  for (const past of pastNames) {
    const present = past.replace("past_key_values", "present");
    graph.input(past, type, ["batch_size", heads, "past_sequence_length", 2]);
    graph.node(operator, [past], present);
    graph.output(present, type, ["batch_size", heads, "past_sequence_length", 2]);
  }
  return graph.toModel();
}
