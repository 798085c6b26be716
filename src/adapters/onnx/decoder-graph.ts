// Reads a graph as a decoder: which inputs hold its past, which outputs its present, and what else it
// wants to be fed. Knows the names that exporters use, and nothing about runtimes.
//
// Sources:
//   1. Hugging Face Optimum and transformers.js, exported decoders — `past_key_values.N.key`,
//      `present.N.key`, `use_cache_branch`, `num_logits_to_keep`.
//   2. ONNX Runtime GenAI, genai_config.json — the same names, and older ones: `past_key_N`,
//      `past_key_self_N`.
//   3. ONNX Runtime, operator com.microsoft.GroupQueryAttention — its inputs and outputs by place.
import type { GraphNode, OnnxGraph, ValueInfo } from "./graph.js";
import { ModelError } from "./model-error.js";

export type KvPart = "key" | "value";

/** One KV tensor of a decoder: [1, heads, tokens, headDim]. */
export interface KvEntry {
  readonly layer: number;
  readonly part: KvPart;
  readonly pastName: string;
  readonly presentName: string;
  readonly heads: number;
  readonly headDim: number;
  readonly dtype: "f32" | "f16";
}

/**
 * How a graph makes its present. `concat`: the past and the new rows, one behind the other, so it has
 * as many tokens as the past and the input together. `grouped`: by GroupQueryAttention, which is told
 * how many rows count, so the past may be longer than what it holds.
 */
export type CacheStyle = "concat" | "grouped";

/** What an input beside the KV wants: its meaning, and how it is declared. */
export interface ControlInput {
  readonly name: string;
  readonly role: ControlRole;
  readonly type: "int64" | "int32" | "bool";
  readonly rank: number;
}

export type ControlRole =
  | "tokens"
  | "mask"
  | "positions"
  | "last-index"
  | "total-tokens"
  | "cache-branch"
  | "logit-count";

export interface DecoderGraph {
  readonly graph: OnnxGraph;
  /** 0.key, 0.value, 1.key, … */
  readonly entries: readonly KvEntry[];
  readonly controls: readonly ControlInput[];
  readonly logitsName: string;
  /** Token ids from 0; null when the model does not say. */
  readonly vocabulary: number | null;
  /** By the nodes that make the present; null when they are others than the two that are known. */
  readonly style: CacheStyle | null;
}

const FLOAT32 = 1;
const INT32 = 6;
const INT64 = 7;
const BOOL = 9;
const FLOAT16 = 10;
const CONTROL_TYPES = new Map<number, ControlInput["type"]>([
  [INT32, "int32"],
  [INT64, "int64"],
  [BOOL, "bool"],
]);

/** Dimensions of a KV tensor: batch, heads, tokens, headDim. */
const KV_RANK = 4;
const TOKEN_AXIS = 2;

/** Names of past and present, and the name of the present that belongs to a past. */
const CONVENTIONS: readonly { past: RegExp; present: (layer: string, part: string) => string }[] = [
  {
    past: /^past_key_values\.(\d{1,5})\.(key|value)$/,
    present: (layer, part) => `present.${layer}.${part}`,
  },
  {
    past: /^past_(key|value)_(\d{1,5})$/,
    present: (layer, part) => `present_${part}_${layer}`,
  },
  {
    past: /^past_(key|value)_self_(\d{1,5})$/,
    present: (layer, part) => `present_${part}_self_${layer}`,
  },
];

const ROLES = new Map<string, ControlRole>([
  ["input_ids", "tokens"],
  ["attention_mask", "mask"],
  ["position_ids", "positions"],
  ["seqlens_k", "last-index"],
  ["total_sequence_length", "total-tokens"],
  ["use_cache_branch", "cache-branch"],
  ["num_logits_to_keep", "logit-count"],
]);

/** Places of GroupQueryAttention's inputs and outputs. */
export const GROUPED = {
  operator: "GroupQueryAttention",
  domain: "com.microsoft",
  pastInputs: { key: 3, value: 4 },
  totalTokensInput: 6,
  presentOutputs: { key: 1, value: 2 },
} as const;

/**
 * Finds the KV of a decoder and what it wants to be fed.
 *
 * @throws {ModelError} `unsupported` — no KV that any convention names, KV of an open or a fixed
 *   number of tokens where the other is needed, an element type other than f32 and f16, an input that
 *   nothing here can fill, or no logits.
 */
export function readDecoder(graph: OnnxGraph): DecoderGraph {
  const entries: KvEntry[] = [];
  const controls: ControlInput[] = [];
  for (const input of graph.inputs.values()) {
    const entry = tryReadEntry(graph, input);
    if (entry !== null) entries.push(entry);
    else controls.push(readControl(input));
  }
  checkLayers(entries);
  const roles = new Set(controls.map(({ role }) => role));
  if (!roles.has("tokens")) throw unsupported("it has no input input_ids");
  if (roles.has("last-index") !== roles.has("total-tokens")) {
    throw unsupported("seqlens_k and total_sequence_length come together or not at all");
  }
  const logits = graph.outputs.get("logits");
  if (logits?.elementType !== FLOAT32 && logits?.elementType !== FLOAT16) {
    throw unsupported("it has no floating-point output logits");
  }
  const vocabulary = logits.shape[2];
  return {
    graph,
    entries,
    controls,
    logitsName: logits.name,
    vocabulary: typeof vocabulary === "number" && vocabulary > 0 ? vocabulary : null,
    style: styleOf(graph, entries),
  };
}

function unsupported(problem: string): ModelError {
  return new ModelError("unsupported", `the model is no decoder that is known here: ${problem}`);
}

function tryReadEntry(graph: OnnxGraph, input: ValueInfo): KvEntry | null {
  for (const { past, present } of CONVENTIONS) {
    const [, first, second] = past.exec(input.name) ?? [];
    if (first === undefined || second === undefined) continue;
    const [layer, part] = /^\d/.test(first) ? [first, second] : [second, first];
    const presentName = present(layer, part);
    if (!graph.outputs.has(presentName)) throw unsupported(`it has no output ${presentName}`);
    const { elementType, shape } = input;
    const [, heads, tokens, headDim] = shape;
    if (elementType !== FLOAT32 && elementType !== FLOAT16) {
      throw unsupported(`the elements of ${input.name} are neither f32 nor f16`);
    }
    const isShaped = typeof heads === "number" && typeof headDim === "number";
    if (shape.length !== KV_RANK || !isShaped || heads < 1 || headDim < 1) {
      throw unsupported(`${input.name} is not [batch, heads, tokens, headDim]`);
    }
    if (typeof tokens === "number") throw unsupported(`${input.name} has a fixed length`);
    const dtype = elementType === FLOAT32 ? "f32" : "f16";
    const names = { pastName: input.name, presentName };
    return { layer: Number(layer), part: part as KvPart, ...names, heads, headDim, dtype };
  }
  return null;
}

function readControl({ name, elementType, shape }: ValueInfo): ControlInput {
  const role = ROLES.get(name);
  const type = CONTROL_TYPES.get(elementType);
  if (role === undefined || type === undefined || (type === "bool") !== (role === "cache-branch")) {
    throw unsupported(`it wants an unknown input ${JSON.stringify(name)}`);
  }
  return { name, role, type, rank: shape.length };
}

/** Puts the entries in order. Each layer has a key and a value; numbers may have gaps. */
function checkLayers(entries: KvEntry[]): void {
  if (entries.length === 0) throw unsupported("it has no KV inputs");
  entries.sort((one, other) => one.layer - other.layer || (one.part === "key" ? -1 : 1));
  for (let index = 0; index < entries.length; index += 2) {
    const [key, value] = [entries[index], entries[index + 1]];
    const isPair = key?.part === "key" && value?.part === "value" && key.layer === value.layer;
    if (!isPair) throw unsupported("its KV inputs do not come in pairs");
  }
}

function styleOf(graph: OnnxGraph, entries: readonly KvEntry[]): CacheStyle | null {
  const styles = new Set(
    entries.map((entry) => {
      const node = graph.producers.get(entry.presentName);
      if (node === undefined) return null;
      if (isGrouped(node, entry)) return "grouped";
      return isConcat(node, entry) ? "concat" : null;
    }),
  );
  const [style] = styles;
  return styles.size === 1 ? (style ?? null) : null;
}

function isGrouped(node: GraphNode, { part, pastName, presentName }: KvEntry): boolean {
  return (
    node.operator === GROUPED.operator &&
    node.domain === GROUPED.domain &&
    node.inputs[GROUPED.pastInputs[part]] === pastName &&
    node.outputs[GROUPED.presentOutputs[part]] === presentName &&
    (node.inputs[GROUPED.totalTokensInput] ?? "") !== ""
  );
}

function isConcat(node: GraphNode, { pastName }: KvEntry): boolean {
  const isTokenAxis = node.axis === TOKEN_AXIS || node.axis === TOKEN_AXIS - KV_RANK;
  const isPair = node.inputs.length === 2 && node.inputs[0] === pastName;
  return node.operator === "Concat" && node.domain === "" && isTokenAxis && isPair;
}
