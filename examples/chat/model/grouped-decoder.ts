/**
 * Builds a small decoder around ONNX Runtime's GroupQueryAttention, from a seed. The operator keeps the
 * KV in a buffer of fixed capacity and is told how many rows of it count; that is what distinguishes
 * this model from the one in `decoder.ts`, so it has no norms, no feed-forward part and no positions.
 *
 * Source: ONNX Runtime, contrib operators — com.microsoft.GroupQueryAttention, its inputs and outputs.
 */
import { OnnxGraph } from "./onnx-writer.js";

/** Sizes and seed of a grouped decoder; all whole numbers. */
export interface GroupedDecoderOptions {
  /** At least 1. */
  readonly layers: number;
  /** Width of the residual stream, in elements; a multiple of `heads`. */
  readonly hidden: number;
  readonly heads: number;
  /** Key and value heads: a divisor of `heads`. */
  readonly kvHeads: number;
  /** Token ids the model knows, from 0. */
  readonly vocabulary: number;
  /** Start of the weight generator: an unsigned 32-bit integer. */
  readonly seed: number;
  /**
   * Where the operator's lengths come from. `"inputs"`: `seqlens_k` and `total_sequence_length`.
   * `"mask"`: computed from `attention_mask`, as newer exports do. Default: `"inputs"`.
   */
  readonly lengths?: "inputs" | "mask";
}

const DOMAIN = "com.microsoft";
/** Value of `TensorProto.DataType.INT32`, as the `Cast` operator takes it. */
const CAST_TO_INT32 = 6;
const WEIGHT_SCALES = { embedding: 1, projection: 0.2, head: 0.3 } as const;

/**
 * Returns a generator of uniform numbers in [−0.5, 0.5).
 *
 * Source: Press et al., "Numerical Recipes" — the multiplier and increment of its quick generator.
 */
function linearCongruential(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
}

/**
 * Builds a grouped decoder as the bytes of an ONNX file.
 *
 * Inputs: `input_ids` int64 [batch, sequence]; the lengths, either as `seqlens_k` int32 [B] and
 * `total_sequence_length` int32 [1], or as `attention_mask` int64 [batch, total]; and for each layer
 * `past_key_values.N.key` and `.value` float32 [batch, kvHeads, capacity, headDim]. Outputs: `logits`
 * float32 [batch, sequence, vocabulary] and the presents, as long as the pasts.
 *
 * @returns The file, in a buffer of exactly its length; the same options give the same bytes.
 */
export function buildGroupedDecoder(options: GroupedDecoderOptions): Uint8Array<ArrayBuffer> {
  const { layers, hidden, heads, kvHeads, vocabulary, seed, lengths = "inputs" } = options;
  const headDim = hidden / heads;
  const graph = new OnnxGraph();
  const random = linearCongruential(seed);
  const weight = (name: string, shape: readonly [number, number], scale: number): string => {
    const values = Float32Array.from({ length: shape[0] * shape[1] }, () => random() * 2 * scale);
    return graph.floats(name, shape, values);
  };
  // transformers.js knows the batch by this name.
  const batch = lengths === "mask" ? "batch_size" : "B";
  const cacheShape = (tokens: string) => [batch, kvHeads, tokens, headDim];
  const layerNumbers = Array.from({ length: layers }, (_, layer) => layer);
  const partsOf = (prefix: string, layer: number) =>
    [`${prefix}.${layer}.key`, `${prefix}.${layer}.value`] as const;

  graph.input("input_ids", "int64", ["batch_size", "sequence_length"]);
  if (lengths === "inputs") {
    graph.input("seqlens_k", "int32", ["B"]);
    graph.input("total_sequence_length", "int32", [1]);
  } else {
    graph.input("attention_mask", "int64", ["batch_size", "total_sequence_length"]);
  }
  for (const layer of layerNumbers) {
    for (const name of partsOf("past_key_values", layer)) {
      graph.input(name, "float32", cacheShape("M"));
    }
  }
  const [lastIndex, totalTokens] =
    lengths === "inputs" ? ["seqlens_k", "total_sequence_length"] : addLengths(graph);
  weight("wte", [vocabulary, hidden], WEIGHT_SCALES.embedding);
  let residual = graph.node("Gather", ["wte", "input_ids"], "x0");
  for (const layer of layerNumbers) {
    const name = (suffix: string): string => `l${layer}${suffix}`;
    for (const part of ["q", "k", "v"]) {
      const width = part === "q" ? hidden : kvHeads * headDim;
      weight(name(`w${part}`), [hidden, width], WEIGHT_SCALES.projection);
      graph.node("MatMul", [residual, name(`w${part}`)], name(part));
    }
    const past = partsOf("past_key_values", layer);
    const inputs = [name("q"), name("k"), name("v"), ...past, lastIndex, totalTokens];
    const outputs = [name("ao"), ...partsOf("present", layer)] as const;
    const attributes = { num_heads: heads, kv_num_heads: kvHeads };
    graph.node("GroupQueryAttention", inputs, outputs, attributes, DOMAIN);
    weight(name("wo"), [hidden, hidden], WEIGHT_SCALES.projection);
    graph.node("MatMul", [name("ao"), name("wo")], name("o"));
    residual = graph.node("Add", [residual, name("o")], name("r"));
  }
  weight("head", [hidden, vocabulary], WEIGHT_SCALES.head);
  graph.node("MatMul", [residual, "head"], "logits");
  graph.output("logits", "float32", ["batch_size", "sequence_length", vocabulary]);
  for (const layer of layerNumbers) {
    for (const name of partsOf("present", layer)) graph.output(name, "float32", cacheShape("M2"));
  }
  return graph.toModel();
}

/** Adds the nodes that read both lengths from the mask. @returns Their names. */
function addLengths(graph: OnnxGraph): [lastIndex: string, totalTokens: string] {
  graph.integers("ax1", [1], [1]);
  graph.integers("one", [], [1]);
  graph.node("ReduceSum", ["attention_mask", "ax1"], "mask_sum", { keepdims: 0 });
  graph.node("Sub", ["mask_sum", "one"], "last_index");
  graph.node("Cast", ["last_index"], "last_index_32", { to: CAST_TO_INT32 });
  graph.node("Shape", ["attention_mask"], "mask_shape");
  graph.node("Gather", ["mask_shape", "one"], "total_tokens");
  graph.node("Cast", ["total_tokens"], "total_tokens_32", { to: CAST_TO_INT32 });
  return ["last_index_32", "total_tokens_32"];
}
