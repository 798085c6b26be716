// A model directory for transformers.js, made from a seed: weights, configuration and a tokenizer whose
// words are `t0`, `t1`, … It has the form of a Llama: grouped-query attention, lengths from the mask.
import { buildDecoder } from "../chat/model/decoder.js";
import { buildGroupedDecoder } from "../chat/model/grouped-decoder.js";

const VOCABULARY = 256;
const SIZES = { layers: 2, hidden: 64, heads: 4, vocabulary: VOCABULARY } as const;
/** Never generated: the model does not know it. */
const END_TOKEN = 999;

export type TinyFamily = "llama" | "gpt2";

function configOf(family: TinyFamily, kvHeads: number): object {
  const ends = { eos_token_id: END_TOKEN, bos_token_id: 0 };
  if (family === "gpt2") {
    return {
      model_type: "gpt2",
      architectures: ["GPT2LMHeadModel"],
      n_embd: SIZES.hidden,
      n_head: SIZES.heads,
      n_layer: SIZES.layers,
      n_positions: 2048,
      vocab_size: VOCABULARY,
      ...ends,
    };
  }
  return {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    hidden_size: SIZES.hidden,
    num_attention_heads: SIZES.heads,
    num_key_value_heads: kvHeads,
    num_hidden_layers: SIZES.layers,
    max_position_embeddings: 2048,
    vocab_size: VOCABULARY,
    ...ends,
  };
}

function tokenizerOf(): object {
  const vocab = Object.fromEntries(Array.from({ length: VOCABULARY }, (_, id) => [`t${id}`, id]));
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "WhitespaceSplit" },
    post_processor: null,
    decoder: null,
    model: { type: "WordLevel", vocab, unk_token: "t0" },
  };
}

/** The files of a model directory by their paths in it. The same seed gives the same bytes. */
export function tinyModelFiles(
  family: TinyFamily,
  seed: number,
): Map<string, Uint8Array<ArrayBuffer>> {
  const kvHeads = family === "llama" ? 2 : SIZES.heads;
  const model =
    family === "llama"
      ? buildGroupedDecoder({ ...SIZES, kvHeads, lengths: "mask", seed })
      : buildDecoder({ ...SIZES, kvHeads, positions: 2048, attentionSharpness: 6, seed });
  const json = (value: object) => new TextEncoder().encode(JSON.stringify(value));
  return new Map([
    ["config.json", json(configOf(family, kvHeads))],
    ["generation_config.json", json({ eos_token_id: END_TOKEN, bos_token_id: 0 })],
    ["tokenizer.json", json(tokenizerOf())],
    ["tokenizer_config.json", json({ tokenizer_class: "PreTrainedTokenizerFast" })],
    ["onnx/model.onnx", model],
  ]);
}
