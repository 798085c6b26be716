/**
 * Builds a small decoder-only transformer as an ONNX file, from a seed: the model of the chat
 * example and of the integration tests. It needs no network and no download. Its weights are
 * random, so its text means nothing; its shapes, its inputs and outputs, and the way it grows its
 * KV cache are those of common ONNX exports. It is not a training tool and quantises nothing.
 *
 * Pre-norm blocks with learned positions; the KV cache grows by `Concat`. With fewer KV heads than
 * query heads it uses grouped-query attention.
 *
 * Sources:
 *   1. Radford et al., "Language Models are Unsupervised Multitask Learners" — the block layout.
 *   2. Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models" — KV heads that
 *      several query heads share.
 */
import { OnnxGraph } from "./onnx-writer.js";

/** Sizes and seed of a decoder. */
export interface DecoderOptions {
  /** Transformer blocks, at least 1. */
  readonly layers: number;
  /** Width of the residual stream, in elements. */
  readonly hidden: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads: a divisor of `heads`. Fewer of them shrink the KV cache. */
  readonly kvHeads: number;
  /** Elements of one head. Default: `hidden / heads`, which must then be whole. */
  readonly headDim?: number;
  /**
   * Factor on the query weights. Default: 1, with which a long context averages out. Higher makes
   * each query look at fewer tokens, so that the next token depends on single rows of the cache.
   */
  readonly attentionSharpness?: number;
  /** Token ids the model knows, from 0. */
  readonly vocabulary: number;
  /** Tokens of the longest sequence, prompt included. */
  readonly positions: number;
  /** Start of the weight generator: an unsigned 32-bit integer. */
  readonly seed: number;
}

type Sizes = Required<DecoderOptions>;

/** Added to the score of a position that attention must not see. */
const MASKED_SCORE = -1e9;

/** Value of `TensorProto.DataType.BOOL`, as the `Cast` operator takes it. */
const CAST_TO_BOOL = 9;

/** Names of the values that every layer shares. */
const SHARED = {
  bias: "bias",
  scale: "scale",
  splitQuery: "split",
  splitGroups: "split_groups",
  splitKeyValue: "split_kv",
  foldGroups: "fold_groups",
  foldedScores: "folded_scores",
  groupedScores: "grouped_scores",
  unfoldGroups: "unfold_groups",
  merge: "merge",
} as const;

/**
 * Returns a generator of uniform numbers in [0, 1).
 *
 * Source: Tommy Ettinger, mulberry32 (public domain) — the mixing steps and constants.
 */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Fills `count` elements from a normal distribution of deviation `scale` (Box–Muller). */
function normal(random: () => number, count: number, scale: number): Float32Array {
  const values = new Float32Array(count);
  for (let index = 0; index < count; index++) {
    // The small term keeps the logarithm finite when the generator yields 0.
    const radius = Math.sqrt(-2 * Math.log(random() + 1e-12));
    values[index] = radius * Math.cos(2 * Math.PI * random()) * scale;
  }
  return values;
}

function checkedSizes(options: DecoderOptions): Sizes {
  const { attentionSharpness = 1, ...given } = options;
  const counts = { ...given, headDim: given.headDim ?? given.hidden / given.heads };
  for (const [name, value] of Object.entries(counts)) {
    const least = name === "seed" ? 0 : 1;
    if (!Number.isInteger(value) || value < least || value > 0xffff_ffff) {
      throw new RangeError(`decoder option ${name} must be a whole number of at least ${least}`);
    }
  }
  if (counts.heads % counts.kvHeads !== 0) {
    throw new RangeError(`kvHeads (${counts.kvHeads}) must divide heads (${counts.heads})`);
  }
  if (!(attentionSharpness > 0 && Number.isFinite(attentionSharpness))) {
    throw new RangeError("decoder option attentionSharpness must be a number above 0");
  }
  return { ...counts, attentionSharpness };
}

/** Builds one decoder; the order of its calls is the order of nodes, weights and random draws. */
class DecoderBuilder {
  readonly #graph = new OnnxGraph();
  readonly #sizes: Sizes;
  readonly #random: () => number;

  constructor(sizes: Sizes) {
    this.#sizes = sizes;
    this.#random = mulberry32(sizes.seed);
  }

  get #isGrouped(): boolean {
    return this.#sizes.kvHeads < this.#sizes.heads;
  }

  build(): Uint8Array<ArrayBuffer> {
    const { hidden, layers, vocabulary } = this.#sizes;
    this.#declareInputs();
    let residual = this.#embed();
    for (let layer = 0; layer < layers; layer++) residual = this.#block(layer, residual);
    this.#ones("gf");
    const normalized = this.#normalize("gf", "lnf", residual);
    const head = this.#weight("head", [hidden, vocabulary], 1 / Math.sqrt(hidden));
    this.#graph.node("MatMul", [normalized, head], "logits");
    this.#declareOutputs();
    return this.#graph.toModel();
  }

  #declareInputs(): void {
    const tokens = ["batch_size", "sequence_length"];
    this.#graph.input("input_ids", "int64", tokens);
    this.#graph.input("attention_mask", "int64", ["batch_size", "total_sequence_length"]);
    this.#graph.input("position_ids", "int64", tokens);
    for (let layer = 0; layer < this.#sizes.layers; layer++) {
      for (const part of ["key", "value"]) {
        const shape = this.#cacheShape("past_sequence_length");
        this.#graph.input(`past_key_values.${layer}.${part}`, "float32", shape);
      }
    }
  }

  #declareOutputs(): void {
    const shape = ["batch_size", "sequence_length", this.#sizes.vocabulary];
    this.#graph.output("logits", "float32", shape);
    for (let layer = 0; layer < this.#sizes.layers; layer++) {
      for (const part of ["key", "value"]) {
        const shape = this.#cacheShape("total_sequence_length");
        this.#graph.output(`present.${layer}.${part}`, "float32", shape);
      }
    }
  }

  /** Shape of one KV tensor: [batch, kvHeads, tokens, headDim]. */
  #cacheShape(tokens: string): (number | string)[] {
    return ["batch_size", this.#sizes.kvHeads, tokens, this.#sizes.headDim];
  }

  /** Embeds tokens and positions, and prepares the shared mask and constants. */
  #embed(): string {
    const graph = this.#graph;
    const { hidden, vocabulary, positions } = this.#sizes;
    this.#weight("wte", [vocabulary, hidden], 0.5);
    this.#weight("wpe", [positions, hidden], 0.1);
    this.#constants();
    graph.node("Gather", ["wte", "input_ids"], "tok");
    graph.node("Gather", ["wpe", "position_ids"], "pos");
    graph.node("Add", ["tok", "pos"], "h0");
    this.#mask();
    if (this.#isGrouped) this.#groupedShapes();
    return "h0";
  }

  #constants(): void {
    const graph = this.#graph;
    const { heads, kvHeads, headDim } = this.#sizes;
    graph.integers("c0", [], [0]);
    graph.integers("c1", [], [1]);
    graph.integers("ax0", [1], [0]);
    graph.integers("ax1", [1], [1]);
    graph.integers("ax12", [2], [1, 2]);
    graph.floats("zero", [], Float32Array.of(0));
    graph.floats("neg", [], Float32Array.of(MASKED_SCORE));
    // In a Reshape, 0 keeps the size at that place and -1 takes what remains.
    graph.integers(SHARED.splitQuery, [4], [0, 0, heads, headDim]);
    graph.integers(SHARED.merge, [3], [0, 0, heads * headDim]);
    graph.floats(SHARED.scale, [], Float32Array.of(1 / Math.sqrt(headDim)));
    if (this.#isGrouped) {
      const groupSize = heads / kvHeads;
      graph.integers(SHARED.splitKeyValue, [4], [0, 0, kvHeads, headDim]);
      graph.integers(SHARED.splitGroups, [5], [0, 0, kvHeads, groupSize, headDim]);
      graph.integers(SHARED.foldGroups, [4], [0, 0, -1, headDim]);
      graph.integers(SHARED.unfoldGroups, [5], [0, 0, groupSize, -1, headDim]);
      graph.integers("keep_fold", [3], [0, 0, -1]);
      graph.integers("keep_group", [3], [0, 0, groupSize]);
    }
  }

  /**
   * Builds the attention bias [batch, 1, sequence, total]: 0 where a query may see a key, else
   * {@link MASKED_SCORE}. A query at position q sees keys up to q that the mask allows.
   */
  #mask(): void {
    const graph = this.#graph;
    graph.node("Shape", ["attention_mask"], "shpT");
    graph.node("Gather", ["shpT", "c1"], "T");
    graph.node("Shape", ["input_ids"], "shpS");
    graph.node("Gather", ["shpS", "c1"], "S");
    graph.node("Sub", ["T", "S"], "P");
    graph.node("Range", ["P", "T", "c1"], "qi");
    graph.node("Range", ["c0", "T", "c1"], "ki");
    graph.node("Unsqueeze", ["qi", "ax1"], "qiu");
    graph.node("Unsqueeze", ["ki", "ax0"], "kiu");
    graph.node("LessOrEqual", ["kiu", "qiu"], "causal");
    graph.node("Unsqueeze", ["attention_mask", "ax12"], "am4");
    graph.node("Cast", ["am4"], "amb", { to: CAST_TO_BOOL });
    graph.node("And", ["causal", "amb"], "allow");
    graph.node("Where", ["allow", "zero", "neg"], this.#isGrouped ? "bias4" : SHARED.bias);
  }

  /** Prepares the shapes and the five-dimensional bias of grouped attention. */
  #groupedShapes(): void {
    const graph = this.#graph;
    graph.node("Unsqueeze", ["bias4", "ax1"], SHARED.bias);
    graph.node("Unsqueeze", ["S", "ax0"], "S1");
    graph.node("Unsqueeze", ["T", "ax0"], "T1");
    graph.node("Concat", ["keep_group", "S1", "T1"], SHARED.groupedScores, { axis: 0 });
    graph.node("Concat", ["keep_fold", "T1"], SHARED.foldedScores, { axis: 0 });
  }

  #block(layer: number, residual: string): string {
    const graph = this.#graph;
    const { hidden, heads, headDim } = this.#sizes;
    const prefix = `l${layer}_`;
    const name = (suffix: string): string => prefix + suffix;
    const scale = 1 / Math.sqrt(hidden);
    this.#ones(name("g1"));
    this.#ones(name("g2"));
    this.#normalize(name("g1"), name("ln1"), residual);
    this.#project(prefix, "q", heads);
    this.#project(prefix, "k", this.#sizes.kvHeads);
    this.#project(prefix, "v", this.#sizes.kvHeads);
    this.#cache(layer, "k", "key");
    this.#cache(layer, "v", "value");
    if (this.#isGrouped) this.#groupedAttention(layer);
    else this.#attention(layer);
    this.#weight(name("wo"), [heads * headDim, hidden], scale);
    graph.node("MatMul", [name("om"), name("wo")], name("ao"));
    graph.node("Add", [residual, name("ao")], name("r1"));
    this.#normalize(name("g2"), name("ln2"), name("r1"));
    this.#weight(name("w1"), [hidden, 4 * hidden], scale);
    this.#weight(name("w2"), [4 * hidden, hidden], 0.5 * scale);
    graph.node("MatMul", [name("ln2"), name("w1")], name("m1"));
    graph.node("Relu", [name("m1")], name("mr"));
    graph.node("MatMul", [name("mr"), name("w2")], name("m2"));
    return graph.node("Add", [name("r1"), name("m2")], name("r2"));
  }

  /** Projects the normalised input to `heads` heads of queries, keys or values. */
  #project(prefix: string, part: "q" | "k" | "v", heads: number): void {
    const { hidden, headDim } = this.#sizes;
    const sharpness = part === "q" ? this.#sizes.attentionSharpness : 1;
    const scale = sharpness / Math.sqrt(hidden);
    this.#weight(`${prefix}w${part}`, [hidden, heads * headDim], scale);
    this.#graph.node("MatMul", [`${prefix}ln1`, `${prefix}w${part}`], `${prefix}${part}`);
  }

  /** Appends the new rows [batch, kvHeads, sequence, headDim] to the past of one KV tensor. */
  #cache(layer: number, part: "k" | "v", cachePart: "key" | "value"): void {
    const graph = this.#graph;
    const rows = `l${layer}_${part}`;
    const split = this.#isGrouped ? SHARED.splitKeyValue : SHARED.splitQuery;
    graph.node("Reshape", [rows, split], `${rows}4`);
    graph.node("Transpose", [`${rows}4`], `${rows}t`, { perm: [0, 2, 1, 3] });
    const past = `past_key_values.${layer}.${cachePart}`;
    graph.node("Concat", [past, `${rows}t`], `present.${layer}.${cachePart}`, { axis: 2 });
  }

  /** Attention with one KV head for each query head. */
  #attention(layer: number): void {
    const graph = this.#graph;
    const name = (suffix: string): string => `l${layer}_${suffix}`;
    graph.node("Reshape", [name("q"), SHARED.splitQuery], name("q4"));
    graph.node("Transpose", [name("q4")], name("qt"), { perm: [0, 2, 1, 3] });
    graph.node("Transpose", [`present.${layer}.key`], name("kT"), { perm: [0, 1, 3, 2] });
    graph.node("MatMul", [name("qt"), name("kT")], name("sc"));
    graph.node("Mul", [name("sc"), SHARED.scale], name("sc2"));
    graph.node("Add", [name("sc2"), SHARED.bias], name("sc3"));
    graph.node("Softmax", [name("sc3")], name("pr"), { axis: -1 });
    graph.node("MatMul", [name("pr"), `present.${layer}.value`], name("o4"));
    graph.node("Transpose", [name("o4")], name("ot"), { perm: [0, 2, 1, 3] });
    graph.node("Reshape", [name("ot"), SHARED.merge], name("om"));
  }

  /**
   * Attention with one KV head for each group of query heads. The queries of a group become rows
   * of one matrix, [batch, kvHeads, group × sequence, headDim], so each KV head is read once and
   * never repeated; the scores take five dimensions only while the bias is added.
   */
  #groupedAttention(layer: number): void {
    const graph = this.#graph;
    const name = (suffix: string): string => `l${layer}_${suffix}`;
    graph.node("Reshape", [name("q"), SHARED.splitGroups], name("q5"));
    graph.node("Transpose", [name("q5")], name("qt"), { perm: [0, 2, 3, 1, 4] });
    graph.node("Reshape", [name("qt"), SHARED.foldGroups], name("qf"));
    graph.node("Transpose", [`present.${layer}.key`], name("kT"), { perm: [0, 1, 3, 2] });
    graph.node("MatMul", [name("qf"), name("kT")], name("sc"));
    graph.node("Mul", [name("sc"), SHARED.scale], name("sc2"));
    graph.node("Reshape", [name("sc2"), SHARED.groupedScores], name("sc5"));
    graph.node("Add", [name("sc5"), SHARED.bias], name("sc3"));
    graph.node("Softmax", [name("sc3")], name("pr"), { axis: -1 });
    graph.node("Reshape", [name("pr"), SHARED.foldedScores], name("pf"));
    graph.node("MatMul", [name("pf"), `present.${layer}.value`], name("of"));
    graph.node("Reshape", [name("of"), SHARED.unfoldGroups], name("o5"));
    graph.node("Transpose", [name("o5")], name("ot"), { perm: [0, 3, 1, 2, 4] });
    graph.node("Reshape", [name("ot"), SHARED.merge], name("om"));
  }

  #normalize(gain: string, output: string, input: string): string {
    return this.#graph.node("LayerNormalization", [input, gain], output, { axis: -1 });
  }

  #ones(name: string): void {
    this.#graph.floats(name, [this.#sizes.hidden], new Float32Array(this.#sizes.hidden).fill(1));
  }

  #weight(name: string, shape: readonly [number, number], scale: number): string {
    return this.#graph.floats(name, shape, normal(this.#random, shape[0] * shape[1], scale));
  }
}

/**
 * Builds a decoder as the bytes of an ONNX file.
 *
 * Inputs: `input_ids` and `position_ids` int64 [batch, sequence], `attention_mask` int64
 * [batch, total], and for each layer N `past_key_values.N.key` and `.value` float32
 * [batch, kvHeads, past, headDim]. Outputs: `logits` float32 [batch, sequence, vocabulary], and
 * `present.N.key` and `.value` float32 [batch, kvHeads, total, headDim].
 *
 * @returns The file, in a buffer of exactly its length; the same options give the same bytes under
 *   one JavaScript engine (`Math.log` and `Math.cos` may differ in their last bit elsewhere).
 * @throws {RangeError} When a size is not a whole number above 0, `kvHeads` does not divide
 *   `heads`, or the sharpness is not above 0.
 * @remarks Takes time and memory in proportion to the number of weights.
 */
export function buildDecoder(options: DecoderOptions): Uint8Array<ArrayBuffer> {
  return new DecoderBuilder(checkedSizes(options)).build();
}
