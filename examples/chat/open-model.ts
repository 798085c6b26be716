/**
 * Opens the model of an example: the caller's file, or a small decoder that is built from a seed.
 */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { buildDecoder } from "./model/decoder.js";
import { type DecoderRuntime, openRuntime } from "./runtime.js";

/** Sharpened attention: at 1 a random model hardly looks at its KV, and would prove little. */
const MODEL = {
  layers: 4,
  hidden: 512,
  heads: 8,
  kvHeads: 2,
  vocabulary: 256,
  positions: 2048,
  attentionSharpness: 6,
};

/** A model on the runtime by itself. */
export interface OpenedModel {
  readonly runtime: DecoderRuntime;
  readonly fingerprint: string;
  readonly name: string;
  /** Its bytes, or the path of its file. */
  readonly model: Uint8Array<ArrayBuffer> | string;
}

/**
 * The model, and the fingerprint under which its KV is kept. Two runtimes give the same tokens but
 * not the same bits, so they share no KV.
 */
export async function openModel(
  options: { readonly model: string | undefined; readonly seed: number },
  signal?: AbortSignal,
): Promise<OpenedModel> {
  const model = options.model ?? buildDecoder({ ...MODEL, seed: options.seed });
  const runtime = await openRuntime({ model, ...(signal && { signal }) });
  const bytes = typeof model === "string" ? await readFile(model) : model;
  const digest = createHash("sha256").update(bytes).digest("hex");
  const name = options.model ?? `seeded decoder, seed ${options.seed}`;
  return { runtime, fingerprint: `${digest.slice(0, 32)}@${runtime.name}`, name, model };
}
