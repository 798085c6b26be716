// Keys, values, queries and activations of the chat example's decoder while it reads a text: the model is
// built from its seed, and run once with more outputs than it has.
import { readFile } from "node:fs/promises";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { buildDecoder } from "../../../build/examples/chat/model/decoder.js";

/** The sizes of the chat example. */
const SIZES = { layers: 4, hidden: 512, heads: 8, kvHeads: 2, vocabulary: 256, positions: 2048 };
const HEAD_DIM = SIZES.hidden / SIZES.heads;
const TOKENS = 1024;
const LAYER = 2;
const QUERIES = 128;

const varint = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...varint(value >> 7)]);
/** A length-delimited field of protocol buffers. */
const field = (number, bytes) => [(number << 3) | 2, ...varint(bytes.length), ...bytes];

/**
 * The model with one more output. A message that is given twice is merged: ModelProto.graph is field 7,
 * GraphProto.output 12, ValueInfoProto.name 1 and type 2, tensor_type 1, elem_type 1 (float is 1).
 */
function withOutput(model, name) {
  const info = [...field(1, Buffer.from(name)), ...field(2, field(1, [8, 1]))];
  return Buffer.concat([model, Buffer.from(field(7, field(12, info)))]);
}

/** Matrices of f32 as the decoder made them; the keys with queries that look at them. */
export async function capture() {
  const inner = { relu: `l${LAYER}_mr`, residual: `l${LAYER}_r2`, queries: `l${LAYER}_qf` };
  let model = buildDecoder({ ...SIZES, attentionSharpness: 6, seed: 1 });
  for (const name of Object.values(inner)) model = withOutput(model, name);
  const session = await InferenceSession.create(model);
  const text = await readFile(new URL("../../../docs/architecture.md", import.meta.url));
  const ids = BigInt64Array.from(text.subarray(0, TOKENS), BigInt);
  const positions = BigInt64Array.from({ length: TOKENS }, (_, index) => BigInt(index));
  const feeds = {
    input_ids: new Tensor("int64", ids, [1, TOKENS]),
    position_ids: new Tensor("int64", positions, [1, TOKENS]),
    attention_mask: new Tensor("int64", new BigInt64Array(TOKENS).fill(1n), [1, TOKENS]),
  };
  for (let layer = 0; layer < SIZES.layers; layer++) {
    for (const part of ["key", "value"]) {
      const empty = new Tensor("float32", new Float32Array(0), [1, SIZES.kvHeads, 0, HEAD_DIM]);
      feeds[`past_key_values.${layer}.${part}`] = empty;
    }
  }
  const results = await session.run(feeds);
  const valuesOf = (name) => Float32Array.from(results[name].data);
  await session.release();
  // The first head of keys and values, and the last queries of its group's first head.
  const headValues = TOKENS * HEAD_DIM;
  const queries = valuesOf(inner.queries).subarray(headValues - QUERIES * HEAD_DIM, headValues);
  const keys = valuesOf(`present.${LAYER}.key`).slice(0, headValues);
  const values = valuesOf(`present.${LAYER}.value`).slice(0, headValues);
  return {
    keys: { values: keys, columns: HEAD_DIM, partner: values, queries },
    values: { values, columns: HEAD_DIM, keys, queries },
    relu: { values: valuesOf(inner.relu).slice(0, 256 * 2048), columns: 2048 },
    residual: {
      values: valuesOf(inner.residual).slice(0, 512 * SIZES.hidden),
      columns: SIZES.hidden,
    },
  };
}
