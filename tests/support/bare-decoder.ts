// What tierheap's adapters are compared with: the runtime by itself, on the model as it is, with its
// own KV fed straight back.
import type { InferenceSession, Tensor } from "onnxruntime-common";

type Ort = Pick<typeof import("onnxruntime-common"), "InferenceSession" | "Tensor">;

/** How a model wants to be fed. */
export type BareStyle = "concat" | "grouped-inputs" | "grouped-mask";

export interface BareOptions {
  readonly ort: Ort;
  readonly session: InferenceSession;
  readonly style: BareStyle;
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Tokens of the buffers of a grouped model. */
  readonly capacityTokens: number;
}

/** One chat on the bare runtime, greedy. */
export class BareChat {
  readonly #options: BareOptions;
  readonly tokens: number[] = [];
  #past = new Map<string, Tensor>();
  #pastTokens = 0;
  /** Smallest distance of a chosen token from the second best. */
  gapMin = Number.POSITIVE_INFINITY;

  constructor(options: BareOptions) {
    this.#options = options;
  }

  get names(): string[] {
    return Array.from({ length: this.#options.layers }, (_, layer) => [
      `${layer}.key`,
      `${layer}.value`,
    ]).flat();
  }

  present(name: string): Float32Array {
    return this.#past.get(name)?.data as Float32Array;
  }

  /** Its KV, by the names of {@link names}; of no other chat. */
  takePast(): { readonly past: ReadonlyMap<string, Tensor>; readonly pastTokens: number } {
    return { past: this.#past, pastTokens: this.#pastTokens };
  }

  givePast(past: ReadonlyMap<string, Tensor>, pastTokens: number): void {
    this.#past = new Map(past);
    this.#pastTokens = pastTokens;
  }

  /** Takes one turn. @returns The answer. */
  async say(prompt: readonly number[], answerTokens: number): Promise<number[]> {
    this.tokens.push(...prompt);
    const from = this.tokens.length;
    while (this.tokens.length < from + answerTokens) this.tokens.push(await this.#step());
    return this.tokens.slice(from);
  }

  async #step(): Promise<number> {
    const { ort, session, style, kvHeads, headDim, capacityTokens } = this.#options;
    const fresh = this.tokens.slice(this.#pastTokens);
    const total = this.tokens.length;
    const long = (values: number[]) =>
      new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
    const feeds: Record<string, Tensor> = { input_ids: long(fresh) };
    if (style === "concat") {
      feeds["position_ids"] = long(fresh.map((_, index) => this.#pastTokens + index));
    }
    if (style === "grouped-inputs") {
      feeds["seqlens_k"] = new ort.Tensor("int32", Int32Array.of(total - 1), [1]);
      feeds["total_sequence_length"] = new ort.Tensor("int32", Int32Array.of(total), [1]);
    } else {
      feeds["attention_mask"] = long(Array<number>(total).fill(1));
    }
    const pastTokens = style === "concat" ? this.#pastTokens : capacityTokens;
    for (const name of this.names) {
      feeds[`past_key_values.${name}`] =
        this.#past.get(name) ??
        new ort.Tensor("float32", new Float32Array(kvHeads * pastTokens * headDim), [
          ...[1, kvHeads, pastTokens, headDim],
        ]);
    }
    const outputs = await session.run(feeds);
    for (const name of this.names) this.#past.set(name, outputs[`present.${name}`] as Tensor);
    this.#pastTokens = total;
    const logits = outputs["logits"] as Tensor;
    const row = (logits.data as Float32Array).slice(-(logits.dims[2] as number));
    const [best, second] = [...row.keys()].sort(
      (one, other) => (row[other] as number) - (row[one] as number) || one - other,
    ) as [number, number];
    this.gapMin = Math.min(this.gapMin, (row[best] as number) - (row[second] as number));
    return best;
  }
}
