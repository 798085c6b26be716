// Shapes of models, as far as they say how many bytes chats take. Published configurations are data; any
// other shape is given by the caller.
import { MisuseError } from "../errors.js";
import { describe } from "../types.js";

/** What of a model decides how long its tensors are. */
export interface ModelShape {
  /** For people. */
  readonly name: string;
  /** Layers that keep KV, 1 or more. */
  readonly layers: number;
  /** KV heads of a layer (not query heads), 1 or more. */
  readonly kvHeads: number;
  /** Elements of a head, 1 or more. */
  readonly headDim: number;
  /** Element type of the KV as the model makes it. */
  readonly dtype: KvDtype;
  /** Weights, all of them. Default: unknown, and they cannot be planned. */
  readonly parameterCount?: number;
  /** Default: none, and images cannot be planned. */
  readonly vision?: VisionShape;
}

export type KvDtype = "f32" | "f16" | "bf16";

/** What an image becomes. */
export interface VisionShape {
  /** Pixels along the side of the square that becomes one token. */
  readonly tokenPixels: number;
  /** Elements of one token's features. */
  readonly featureDim: number;
  /** Feature tensors of that length for each image: the last layer's, and those that go deeper. */
  readonly featureCount: number;
}

/** The fields of a published `config.json` that count here, by other names. */
interface PublishedConfig {
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediate: number;
  readonly vocabulary: number;
  /** The output layer is the embedding. */
  readonly isTied: boolean;
  readonly vision: {
    readonly depth: number;
    readonly hidden: number;
    readonly intermediate: number;
    readonly patch: number;
    readonly temporalPatch: number;
    /** Patches along the side of a token. */
    readonly merge: number;
    readonly positions: number;
    /** Layers whose features enter the text model too. */
    readonly deepstackLayers: readonly number[];
  };
}

const CHANNELS = 3;

/** Weights and biases of a Qwen3-VL model, norms included. */
function parameterCountOf(config: PublishedConfig): number {
  const { hidden, layers, heads, kvHeads, headDim, intermediate, vocabulary, vision } = config;
  const attention = 2 * hidden * heads * headDim + 2 * hidden * kvHeads * headDim + 2 * headDim;
  const layer = attention + 3 * hidden * intermediate + 2 * hidden;
  const text = (config.isTied ? 1 : 2) * vocabulary * hidden + layers * layer + hidden;
  const wide = vision.hidden * vision.merge ** 2;
  const merger = wide * wide + wide + wide * hidden + hidden;
  // The norm of the last merger is before its patches are joined, those of the others after.
  const deeper = vision.deepstackLayers.length * (merger + 2 * wide);
  const block =
    4 * vision.hidden ** 2 +
    4 * vision.hidden +
    (2 * vision.hidden + 1) * vision.intermediate +
    vision.hidden +
    4 * vision.hidden;
  const patch = CHANNELS * vision.temporalPatch * vision.patch ** 2 * vision.hidden + vision.hidden;
  const encoder = patch + vision.positions * vision.hidden + vision.depth * block;
  return text + encoder + merger + 2 * vision.hidden + deeper;
}

function published(name: string, config: PublishedConfig): ModelShape {
  const { layers, kvHeads, headDim, hidden, vision } = config;
  return {
    ...{ name, layers, kvHeads, headDim, dtype: "bf16" },
    parameterCount: parameterCountOf(config),
    vision: {
      tokenPixels: vision.patch * vision.merge,
      featureDim: hidden,
      featureCount: 1 + vision.deepstackLayers.length,
    },
  };
}

const SMALL_VISION: PublishedConfig["vision"] = {
  ...{ depth: 24, hidden: 1024, intermediate: 4096 },
  ...{ patch: 16, temporalPatch: 2, merge: 2, positions: 2304 },
  deepstackLayers: [5, 11, 17],
};
const TEXT = { kvHeads: 8, headDim: 128, vocabulary: 151_936 };

/**
 * Published models by name.
 *
 * Source: Qwen team, `config.json` of Qwen3-VL-2B-, 4B- and 8B-Instruct — counts of layers, heads and elements.
 */
export const MODEL_SHAPES: ReadonlyMap<string, ModelShape> = new Map(
  [
    published("qwen3-vl-2b", {
      ...TEXT,
      ...{ layers: 28, hidden: 2048, heads: 16, intermediate: 6144, isTied: true },
      vision: SMALL_VISION,
    }),
    published("qwen3-vl-4b", {
      ...TEXT,
      ...{ layers: 36, hidden: 2560, heads: 32, intermediate: 9728, isTied: true },
      vision: SMALL_VISION,
    }),
    published("qwen3-vl-8b", {
      ...TEXT,
      ...{ layers: 36, hidden: 4096, heads: 32, intermediate: 12_288, isTied: false },
      vision: {
        ...SMALL_VISION,
        ...{ depth: 27, hidden: 1152, intermediate: 4304, deepstackLayers: [8, 16, 24] },
      },
    }),
  ].map((shape) => [shape.name, shape]),
);

const DTYPES: readonly unknown[] = ["f32", "f16", "bf16"];

/**
 * A published model by its name, or the caller's shape.
 *
 * @throws {MisuseError} `bad-option` — no such model; `bad-shape` — a count is no integer of at least 1;
 *   `bad-dtype`.
 */
export function checkModel(model: unknown): ModelShape {
  if (typeof model === "string") {
    const shape = MODEL_SHAPES.get(model);
    if (shape !== undefined) return shape;
    const names = [...MODEL_SHAPES.keys()].join(", ");
    throw new MisuseError("bad-option", `unknown model ${describe(model)}; there are ${names}`);
  }
  if (typeof model !== "object" || model === null) {
    throw new MisuseError("bad-option", "model is a published model's name, or a shape");
  }
  const shape = model as Partial<ModelShape>;
  const { name = "a model", layers, kvHeads, headDim, dtype = "f16" } = shape;
  const { parameterCount, vision } = shape;
  const counts = { layers, kvHeads, headDim, ...vision, ...(parameterCount && { parameterCount }) };
  for (const [key, count] of Object.entries(counts)) {
    if (Number.isSafeInteger(count) && (count as number) >= 1) continue;
    throw new MisuseError("bad-shape", `${key} of a model is an integer of at least 1`);
  }
  if (!DTYPES.includes(dtype)) {
    throw new MisuseError("bad-dtype", "the KV of a model is f32, f16 or bf16");
  }
  const rest = { name: String(name), dtype, ...(vision && { vision }) };
  const required = { layers, kvHeads, headDim } as Pick<
    ModelShape,
    "layers" | "kvHeads" | "headDim"
  >;
  return { ...rest, ...required, ...(parameterCount && { parameterCount }) };
}
