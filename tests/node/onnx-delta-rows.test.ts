// The ONNX patcher: what it reads from a model's bytes, what it appends, and what it refuses. Whether
// a runtime agrees is shown in tests/integration/ort-adapter.test.ts.
import { describe, expect, it } from "vitest";
import { buildDecoder } from "../../examples/chat/model/decoder.js";
import { buildGroupedDecoder } from "../../examples/chat/model/grouped-decoder.js";
import {
  type ElementType,
  OnnxGraph,
  ProtoMessage,
} from "../../examples/chat/model/onnx-writer.js";
import { readDecoder } from "../../src/adapters/onnx/decoder-graph.js";
import { readGraph } from "../../src/adapters/onnx/graph.js";
import { WireReader, WireWriter } from "../../src/adapters/onnx/wire.js";
import { appendFragment, ModelError, planDeltaRows } from "../../src/adapters/ort.js";
import { seededRandom } from "../../src/testing/index.js";
import { SEED, withSeed } from "../support/oracle.js";

const TINY = { layers: 2, hidden: 32, heads: 4, kvHeads: 4, vocabulary: 32, seed: 1 };
const concatModel = () => buildDecoder({ ...TINY, positions: 64 });
const groupedModel = (lengths: "inputs" | "mask" = "inputs") =>
  buildGroupedDecoder({ ...TINY, lengths });

interface Sketch {
  readonly pastNames?: readonly [key: string, value: string];
  readonly presentNames?: readonly [key: string, value: string];
  readonly kvType?: ElementType;
  readonly kvShape?: readonly (number | string)[];
  readonly inputs?: readonly string[];
  readonly axis?: number;
  readonly operator?: string;
  readonly extraNode?: string;
  readonly isSwapped?: boolean;
  readonly hasLogits?: boolean;
}

/** One layer that concatenates nothing of meaning: enough for a reader of names and shapes. */
function sketch(options: Sketch = {}): Uint8Array {
  const {
    pastNames = ["past_key_values.0.key", "past_key_values.0.value"],
    presentNames = ["present.0.key", "present.0.value"],
    kvType = "float32",
    kvShape = ["batch", 2, "past", 4],
    inputs = ["input_ids", "attention_mask", "position_ids"],
    axis = 2,
    operator = "Concat",
    isSwapped = false,
    hasLogits = true,
  } = options;
  const graph = new OnnxGraph();
  for (const name of inputs) graph.input(name, "int64", ["batch", "sequence"]);
  graph.floats("rows", [1, 2, 1, 4], new Float32Array(8));
  for (const [index, past] of pastNames.entries()) {
    const present = presentNames[index] as string;
    graph.input(past, kvType, kvShape);
    graph.output(present, kvType, ["batch", 2, "total", 4]);
    graph.node(operator, isSwapped ? ["rows", past] : [past, "rows"], present, { axis });
  }
  if (options.extraNode) graph.node("Relu", ["rows"], options.extraNode);
  if (hasLogits) graph.output("logits", "float32", ["batch", "sequence", 32]);
  return graph.toModel();
}

/** The text fields of a fragment's nodes: [operator, output]. */
function nodesOf(fragment: Uint8Array): [operator: string, output: string][] {
  const nodes: [string, string][] = [];
  const model = new WireReader(fragment);
  while (model.next()) {
    expect(model.field).toBe(7);
    const graph = model.message();
    while (graph.next()) {
      if (graph.field !== 1) continue;
      const node = graph.message();
      let operator = "";
      let output = "";
      while (node.next()) {
        if (node.field === 2) output = node.text();
        if (node.field === 4) operator = node.text();
      }
      nodes.push([operator, output]);
    }
  }
  return nodes;
}

describe("planDeltaRows", () => {
  it("finds the KV of a model that concatenates", () => {
    const { decoder, patch, refusal } = planDeltaRows(concatModel());
    expect(refusal).toBeNull();
    expect(decoder.style).toBe("concat");
    expect(decoder.vocabulary).toBe(32);
    expect(decoder.entries.map(({ pastName }) => pastName)).toEqual([
      "past_key_values.0.key",
      "past_key_values.0.value",
      "past_key_values.1.key",
      "past_key_values.1.value",
    ]);
    expect(decoder.entries[3]).toMatchObject({ layer: 1, part: "value", heads: 4, headDim: 8 });
    // What is concatenated is there already: outputs, and no node.
    expect(patch?.rowNames).toEqual(["l0_kt", "l0_vt", "l1_kt", "l1_vt"]);
    expect(nodesOf(patch?.fragment ?? new Uint8Array())).toEqual([]);
    // One fragment for any number of weights.
    expect(patch?.fragment.byteLength).toBeLessThan(1500);
  });

  it("slices the present where no node makes what is concatenated, or it serves twice", () => {
    const model = concatModel();
    const again = appendFragment(model, planDeltaRows(model).patch?.fragment ?? new Uint8Array());
    for (const each of [sketch(), again]) {
      const { patch } = planDeltaRows(each);
      expect(patch?.rowNames[0]).toBe("tierheap.rows.0.key");
      expect(patch?.rowNames.every((name) => !name.startsWith("present"))).toBe(true);
      const operators = nodesOf(patch?.fragment ?? new Uint8Array()).map(([name]) => name);
      expect(operators.filter((name) => name === "Slice")).toHaveLength(
        patch?.rowNames.length ?? -1,
      );
    }
  });

  it.each(["inputs", "mask"] as const)(
    "finds grouped attention with lengths from %s",
    (lengths) => {
      const { decoder, patch } = planDeltaRows(groupedModel(lengths));
      expect(decoder.style).toBe("grouped");
      expect(nodesOf(patch?.fragment ?? new Uint8Array()).map(([operator]) => operator)).toEqual([
        ...["Constant", "Constant", "Shape", "Gather"],
        ...["Cast", "Reshape", "Sub", "Slice", "Slice", "Slice", "Slice"],
      ]);
    },
  );

  it.each([
    ["GenAI", ["past_key_0", "past_value_0"], ["present_key_0", "present_value_0"]],
    [
      "GenAI's decoder halves",
      ["past_key_self_0", "past_value_self_0"],
      ["present_key_self_0", "present_value_self_0"],
    ],
  ] as const)("knows the names of %s", (_, pastNames, presentNames) => {
    const { decoder, patch } = planDeltaRows(sketch({ pastNames, presentNames }));
    expect(decoder.entries.map(({ part }) => part)).toEqual(["key", "value"]);
    expect(decoder.entries.map(({ presentName }) => presentName)).toEqual(presentNames);
    expect(patch).not.toBeNull();
  });

  it("counts an axis from the end, too", () => {
    expect(planDeltaRows(sketch({ axis: -2 })).patch).not.toBeNull();
  });

  it.each([
    ["another axis", { axis: 1 }, "unknown-cache"],
    ["another order", { isSwapped: true }, "unknown-cache"],
    ["another operator", { operator: "Max" }, "unknown-cache"],
    ["no mask", { inputs: ["input_ids", "position_ids"] }, "no-mask"],
    ["no positions", { inputs: ["input_ids", "attention_mask"] }, "no-positions"],
  ] as const)("leaves a model with %s as it is", (_, options, refusal) => {
    expect(planDeltaRows(sketch(options))).toMatchObject({ patch: null, refusal });
  });

  it("leaves operator sets as they are whose Slice takes no computed bounds", () => {
    // The version is the last field of the last message.
    const model = sketch();
    expect(model.at(-1)).toBe(17);
    expect(planDeltaRows(model.with(-1, 10)).refusal).toBeNull();
    expect(planDeltaRows(model.with(-1, 9)).refusal).toBe("operator-set");
  });

  it.each([
    ["no KV", { pastNames: ["mask", "other"], inputs: ["input_ids"] }],
    [
      "half a pair",
      {
        pastNames: ["past_key_values.0.key", "past_key_values.1.key"],
        presentNames: ["present.0.key", "present.1.key"],
      },
    ],
    ["a present of another name", { presentNames: ["present.0.k", "present.0.v"] }],
    ["integers as KV", { kvType: "int64" }],
    ["KV of three dimensions", { kvShape: ["batch", 2, "past"] }],
    ["an open number of heads", { kvShape: ["batch", "heads", "past", 4] }],
    ["a past of fixed length", { kvShape: ["batch", 2, 16, 4] }],
    ["no token ids", { inputs: ["attention_mask"] }],
    ["half of the lengths", { inputs: ["input_ids", "seqlens_k"] }],
    ["an unknown input", { inputs: ["input_ids", "pixel_values"] }],
    ["no logits", { hasLogits: false }],
  ] as const)("refuses %s", (_, options) => {
    let error: unknown;
    try {
      planDeltaRows(sketch(options));
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(ModelError);
    expect(error).toMatchObject({ code: "unsupported" });
  });

  it("takes names that the model does not have", () => {
    const plain = planDeltaRows(sketch()).patch;
    const other = planDeltaRows(sketch({ extraNode: "tierheap.rows.0.key" })).patch;
    expect(plain?.rowNames[0]).toBe("tierheap.rows.0.key");
    expect(other?.rowNames[0]).toBe("tierheap2.rows.0.key");
    // A model that was patched before can be patched again.
    const { patch } = planDeltaRows(appendFragment(sketch(), plain?.fragment ?? new Uint8Array()));
    expect(patch?.rowNames[0]).toBe("tierheap2.rows.0.key");
  });

  it("appends and changes nothing", () => {
    const model = concatModel();
    const { patch } = planDeltaRows(model);
    const patched = appendFragment(model, patch?.fragment ?? new Uint8Array());
    expect(patched.byteLength).toBe(model.byteLength + (patch?.fragment.byteLength ?? 0));
    expect(Buffer.compare(patched.subarray(0, model.byteLength), model)).toBe(0);
    const before = readGraph(model);
    const after = readGraph(patched);
    expect([...after.inputs.keys()]).toEqual([...before.inputs.keys()]);
    expect([...after.outputs.keys()]).toEqual([
      ...before.outputs.keys(),
      ...(patch?.rowNames ?? []),
    ]);
    for (const [name, node] of before.producers) expect(after.producers.get(name)).toEqual(node);
    expect(readDecoder(after).style).toBe("concat");
  });

  it("looks at no weight", () => {
    const weights = new Uint8Array(2 ** 20);
    const big = new ProtoMessage()
      .message(7, new ProtoMessage().message(5, new ProtoMessage().text(8, "w").bytes(9, weights)))
      .toBytes();
    let byteReads = 0;
    const model = new Proxy(appendFragment(big, sketch()), {
      get(target, key) {
        byteReads += 1;
        const value = Reflect.get(target, key, target) as unknown;
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    expect(planDeltaRows(model).patch).not.toBeNull();
    expect(byteReads).toBeGreaterThan(100);
    expect(byteReads).toBeLessThan(2000);
  });
});

describe("hostile bytes", () => {
  const malformed = (bytes: Uint8Array) =>
    expect(() => planDeltaRows(bytes)).toThrow(expect.objectContaining({ code: "malformed" }));
  const inGraph = (graph: WireWriter) => new WireWriter().message(7, graph).toBytes();

  it.each<[string, Uint8Array]>([
    ["nothing", new Uint8Array()],
    ["text", new TextEncoder().encode("<!doctype html>")],
    ["zeros", new Uint8Array(64)],
    ["a model without a graph", new WireWriter().integer(1, 8).toBytes()],
    ["a group", Uint8Array.of(0x3b, 0x3c)],
    ["a field of no number", Uint8Array.of(0x02, 0x00)],
    ["a varint without end", Uint8Array.of(0x08, ...Array<number>(11).fill(0x80))],
    ["a varint cut off", Uint8Array.of(0x08, 0x80)],
    ["a graph that ends behind the file", Uint8Array.of(0x3a, 0x05, 0x0a)],
    ["a length near 2^64", Uint8Array.of(0x3a, ...Array<number>(9).fill(0xff), 0x01)],
    ["a length of 2^63", Uint8Array.of(0x3a, ...Array<number>(9).fill(0x80), 0x01)],
    ["eight bytes cut off", Uint8Array.of(0x39, 1, 2, 3)],
    ["four bytes cut off", Uint8Array.of(0x3d, 1, 2, 3)],
    ["an integer for the graph", new WireWriter().integer(7, 3).toBytes()],
    ["an integer for a node", inGraph(new WireWriter().integer(1, 3))],
    [
      "a name that is not UTF-8",
      inGraph(new WireWriter().message(1, new WireWriter().bytes(4, Uint8Array.of(0xff, 0xfe)))),
    ],
    [
      "a name of a megabyte",
      inGraph(
        new WireWriter().message(1, new WireWriter().bytes(4, new Uint8Array(2 ** 20).fill(65))),
      ),
    ],
    [
      "bytes for an operator set's version",
      new WireWriter().message(8, new WireWriter().text(2, "17")).toBytes(),
    ],
    [
      "two nodes of one output",
      inGraph(
        new WireWriter()
          .message(1, new WireWriter().text(2, "a"))
          .message(1, new WireWriter().text(2, "a")),
      ),
    ],
    [
      "an input declared twice",
      inGraph(
        new WireWriter()
          .message(11, new WireWriter().text(1, "a"))
          .message(11, new WireWriter().text(1, "a")),
      ),
    ],
  ])("refuses %s", (_, bytes) => malformed(bytes));

  it("refuses a model cut off anywhere", () => {
    const model = sketch();
    let refusals = 0;
    for (let length = 0; length < model.byteLength; length++) {
      try {
        const { refusal } = planDeltaRows(model.subarray(0, length));
        // Whole but for the operator set, which is its last field.
        expect(refusal).toBe("operator-set");
      } catch (error) {
        expect(error).toBeInstanceOf(ModelError);
        refusals += 1;
      }
    }
    expect(refusals).toBeGreaterThan(model.byteLength - 10);
  });

  it("answers any damage with a plan or a typed error", () =>
    withSeed(
      "damaged models",
      (seed) => {
        const random = seededRandom(seed);
        const models = [sketch(), groupedModel().slice(0, 1200), sketch({ axis: -2 })];
        const outcomes = { planned: 0, malformed: 0, unsupported: 0 };
        for (let count = 0; count < 6000; count++) {
          const model = (models[random.uint32() % models.length] as Uint8Array).slice();
          for (let damages = 1 + (random.uint32() % 4); damages > 0; damages--) {
            model[random.uint32() % model.byteLength] = random.uint32() & 255;
          }
          try {
            planDeltaRows(model);
            outcomes.planned += 1;
          } catch (error) {
            if (!(error instanceof ModelError)) throw error;
            outcomes[error.code] += 1;
          }
        }
        for (const count of Object.values(outcomes)) expect(count).toBeGreaterThan(100);
      },
      SEED,
    ));
});

describe("WireReader", () => {
  it("reads integers of every length", () => {
    for (const value of [0, 1, 127, 128, 2 ** 31, 2 ** 35, 2 ** 49, 2 ** 53 - 1]) {
      const reader = new WireReader(new WireWriter().integer(3, value).toBytes());
      expect(reader.next()).toBe(true);
      expect(reader.field).toBe(3);
      expect(reader.integer()).toBe(value);
      expect(reader.next()).toBe(false);
    }
    const negative = new ProtoMessage().varint(3, -2).toBytes();
    const reader = new WireReader(negative);
    reader.next();
    expect(reader.integer()).toBe(-2);
  });
});
