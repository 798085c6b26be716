// Decoders that the adapter has to take as they are: other positions, f16, weights outside of the file.
import { expect } from "vitest";
import { OnnxGraph, ProtoMessage } from "../../examples/chat/model/onnx-writer.js";
import { appendFragment } from "../../src/adapters/ort.js";
import { CONCAT } from "./ort-chats.js";

/** The decoder, but for its positions: those of the mask's last tokens in place of `position_ids`. */
export function buildPositionsFromMask(seed: number): Uint8Array<ArrayBuffer> {
  const model = CONCAT.build(seed);
  const bytes = Buffer.from(model.buffer);
  // The first mention is the node's; another name of that length leaves the file's layout alone.
  const at = bytes.indexOf("position_ids");
  bytes.write("key_place_of", at);
  const node = new ProtoMessage().text(1, "qi").text(2, "key_place_of").text(4, "Identity");
  return appendFragment(
    model,
    new ProtoMessage().message(7, new ProtoMessage().message(1, node)).toBytes(),
  );
}

/** One layer with f16 KV: `Concat`, or another operator of the same inputs. */
export function buildHalf(operator: string): Uint8Array<ArrayBuffer> {
  const graph = new OnnxGraph();
  for (const name of ["input_ids", "attention_mask", "position_ids"]) {
    graph.input(name, "int64", ["batch", name === "attention_mask" ? "total" : "sequence"]);
  }
  const multiples = Float32Array.from({ length: 16 }, (_, at) => (at >> 2) * ((at & 3) + 1));
  graph.floats("table", [4, 4], multiples);
  graph.floats("bias", [4], Float32Array.of(0, 0.5, 99, -1));
  graph.integers("split", [4], [0, 0, 2, 2]);
  graph.node("Gather", ["table", "input_ids"], "x");
  graph.node("Reshape", ["x", "split"], "x4");
  graph.node("Transpose", ["x4"], "xt", { perm: [0, 2, 1, 3] });
  graph.node("Cast", ["xt"], "rows", { to: 10 });
  for (const part of ["key", "value"]) {
    const past = `past_key_values.0.${part}`;
    graph.input(past, "float16", ["batch", 2, "past", 2]);
    const inputs = operator === "Max" ? ["rows"] : [past, "rows"];
    const joined = operator === "Max" ? `joined.${part}` : `present.0.${part}`;
    if (operator === "Max") graph.node("Concat", [past, "rows"], joined, { axis: 2 });
    graph.node(
      ...([operator, operator === "Max" ? [joined] : inputs, `present.0.${part}`] as const),
      operator === "Concat" ? { axis: 2 } : {},
    );
    graph.output(`present.0.${part}`, "float16", ["batch", 2, "total", 2]);
  }
  graph.node("Add", ["x", "bias"], "wide");
  graph.node("Cast", ["wide"], "logits", { to: 10 });
  graph.output("logits", "float16", ["batch", "sequence", 4]);
  return graph.toModel();
}

/** Takes the decoder's last weights out and declares them again, as a file beside the model. */
export function moveHeadOutside(model: Uint8Array<ArrayBuffer>): {
  outside: Uint8Array<ArrayBuffer>;
  data: Uint8Array;
} {
  const dataBytes = 64 * 256 * 4;
  // The last initialiser: its name, the tag and the length of its data, and the data.
  const at = Buffer.from(model.buffer).indexOf(Buffer.from([0x42, 4, ...Buffer.from("head")]));
  expect(at).toBeGreaterThan(0);
  const dataAt = at + 6 + 1 + 3;
  const data = model.slice(dataAt, dataAt + dataBytes);
  const external = (key: string, value: string) => new ProtoMessage().text(1, key).text(2, value);
  const tensor = new ProtoMessage()
    .packed(1, [64, 256])
    .varint(2, 1)
    .text(8, "head")
    .message(13, external("location", "head.bin"))
    .message(13, external("offset", "0"))
    .message(13, external("length", String(dataBytes)))
    .varint(14, 1);
  const without = withoutInitializer(model, "head");
  const fragment = new ProtoMessage().message(7, new ProtoMessage().message(5, tensor)).toBytes();
  return { outside: appendFragment(without, fragment), data };
}

/** Copies a model without one of its initialisers. */
export function withoutInitializer(
  model: Uint8Array<ArrayBuffer>,
  name: string,
): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.from(model.buffer);
  const varint = (at: number): [value: number, next: number] => {
    let value = 0;
    for (let next = at, factor = 1; ; factor *= 128) {
      const byte = bytes[next++] as number;
      value += (byte & 127) * factor;
      if (byte < 128) return [value, next];
    }
  };
  const target = new ProtoMessage();
  for (let at = 0; at < bytes.length; ) {
    const [tag, afterTag] = varint(at);
    const [value, start] = varint(afterTag);
    if (tag % 8 === 0) {
      target.varint(tag >> 3, value);
      at = start;
      continue;
    }
    const payload = model.subarray(start, start + value);
    if (tag >> 3 === 7) target.message(7, graphWithout(payload, name));
    else target.bytes(tag >> 3, payload);
    at = start + value;
  }
  return target.toBytes();

  function graphWithout(graph: Uint8Array, without: string): ProtoMessage {
    const kept = new ProtoMessage();
    const base = graph.byteOffset - model.byteOffset;
    for (let at = base; at < base + graph.length; ) {
      const [tag, afterTag] = varint(at);
      const [length, start] = varint(afterTag);
      const payload = model.subarray(start, start + length);
      const isIt = tag >> 3 === 5 && Buffer.from(payload.slice(0, 40)).includes(`\x04${without}`);
      if (!isIt) kept.bytes(tag >> 3, payload);
      at = start + length;
    }
    return kept;
  }
}
