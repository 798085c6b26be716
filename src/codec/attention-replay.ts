// What an error in keys or values does to attention: kept queries are replayed over the original and
// over what was decoded, and the outputs compared.
import type { CodecWorkspace } from "../core/codec-workspace.js";
import { MisuseError } from "../errors.js";
import type { Loaded } from "./engine.js";

/** What stands beside the tensor that is compressed. */
export interface AttentionContext {
  /** What the tensor's rows are: keys, rotated by position already, or values. */
  readonly role: "keys" | "values";
  /** Queries like those to come, one after another; 16 to 32 of them. */
  readonly queries: Float32Array;
  /** The values that belong to the keys, or the keys that belong to the values; as many rows. */
  readonly partner: Float32Array;
}

/** Queries whose sensitivity is computed. */
const SENSITIVITY_QUERIES = 4;

export class AttentionReplay {
  /** Relative error of the output per root-mean-square error of a value, to first order. */
  readonly sensitivity: number;
  readonly #workspace: CodecWorkspace;
  readonly #loaded: Loaded;
  readonly #isKeys: boolean;
  readonly #rows: number;
  readonly #d: number;
  readonly #queryCount: number;
  readonly #queries: number;
  readonly #partner: number;
  readonly #scores: number;
  readonly #output: number;
  /** Outputs over the original. */
  readonly #outputs: Float64Array;

  /** Takes room in the workspace; the tensor stays loaded. @throws {MisuseError} `bad-option`. */
  constructor(workspace: CodecWorkspace, loaded: Loaded, context: AttentionContext) {
    const { rows, columns } = loaded.matrix;
    this.#queryCount = Math.floor(context.queries.length / columns);
    if (columns % 4 !== 0 || this.#queryCount < 1 || context.partner.length % rows !== 0) {
      throw new MisuseError("bad-option", "attention needs queries and a partner of as many rows");
    }
    const partnerColumns = context.partner.length / rows;
    if (partnerColumns !== columns) {
      throw new MisuseError("bad-option", "keys and values have as many columns");
    }
    this.#workspace = workspace;
    this.#loaded = loaded;
    this.#isKeys = context.role === "keys";
    this.#rows = rows;
    this.#d = columns;
    this.#queries = workspace.take(context.queries.byteLength);
    this.#partner = workspace.take(context.partner.byteLength);
    this.#scores = workspace.take(rows * 4);
    this.#output = workspace.take(columns * 4);
    workspace.f32(this.#queries, context.queries.length).set(context.queries);
    workspace.f32(this.#partner, context.partner.length).set(context.partner);
    this.#outputs = this.#replay(loaded.values);
    this.sensitivity = this.#computeSensitivity();
  }

  /** Relative error of the outputs with what is at `decoded` in place of the original. */
  measure(): number {
    const outputs = this.#replay(this.#loaded.decoded);
    let errors = 0;
    let squares = 0;
    this.#outputs.forEach((value, index) => {
      errors += (value - (outputs[index] as number)) ** 2;
      squares += value ** 2;
    });
    return errors === 0 ? 0 : Math.sqrt(errors / squares);
  }

  #replay(address: number): Float64Array {
    const outputs = new Float64Array(this.#queryCount * this.#d);
    for (let query = 0; query < this.#queryCount; query++) {
      outputs.set(this.#attend(address, query), query * this.#d);
    }
    return outputs;
  }

  /** Output of one query; its weights stay at `#scores`. */
  #attend(address: number, query: number): Float32Array {
    const { kernels } = this.#workspace;
    const keys = this.#isKeys ? address : this.#partner;
    const values = this.#isKeys ? this.#partner : address;
    const at = this.#queries + query * this.#d * 4;
    kernels.attendScoresF32(keys, this.#rows, this.#d, at, this.#scores);
    softmax(this.#workspace.f32(this.#scores, this.#rows), 1 / Math.sqrt(this.#d));
    const output = this.#workspace.f32(this.#output, this.#d).fill(0);
    kernels.attendSumF32(values, this.#rows, this.#d, this.#scores, this.#output);
    return output;
  }

  #computeSensitivity(): number {
    const { kernels } = this.#workspace;
    const queries = this.#workspace.f32(this.#queries, this.#queryCount * this.#d);
    const values = this.#isKeys ? this.#partner : this.#loaded.values;
    const norms = this.#isKeys ? this.#rowSquares(values) : null;
    let errors = 0;
    let squares = 0;
    const step = Math.max(1, Math.floor(this.#queryCount / SENSITIVITY_QUERIES));
    for (let query = 0; query < this.#queryCount; query += step) {
      const output = this.#attend(this.#loaded.values, query);
      const outputSquares = output.reduce((sum, value) => sum + value * value, 0);
      squares += outputSquares;
      const weights = this.#workspace.f32(this.#scores, this.#rows).slice();
      if (norms === null) {
        errors += this.#d * weights.reduce((sum, weight) => sum + weight * weight, 0);
        continue;
      }
      kernels.attendScoresF32(values, this.#rows, this.#d, this.#output, this.#scores);
      const products = this.#workspace.f32(this.#scores, this.#rows);
      const part = queries.subarray(query * this.#d, (query + 1) * this.#d);
      const querySquares = part.reduce((sum, value) => sum + value * value, 0) / this.#d;
      let spread = 0;
      weights.forEach((weight, token) => {
        const distance = (norms[token] as number) - 2 * (products[token] as number) + outputSquares;
        spread += weight * weight * Math.max(0, distance);
      });
      errors += querySquares * spread;
    }
    return squares > 0 ? Math.sqrt(errors / squares) : 0;
  }

  #rowSquares(address: number): Float64Array {
    const values = this.#workspace.f32(address, this.#rows * this.#d);
    const sums = new Float64Array(this.#rows);
    for (let row = 0; row < this.#rows; row++) {
      let sum = 0;
      for (let index = row * this.#d; index < (row + 1) * this.#d; index++) {
        sum += (values[index] as number) ** 2;
      }
      sums[row] = sum;
    }
    return sums;
  }
}

/** Replaces scores by weights that sum to 1. */
export function softmax(scores: Float32Array, factor: number): void {
  let largest = Number.NEGATIVE_INFINITY;
  for (const score of scores) largest = Math.max(largest, score);
  let sum = 0;
  for (let index = 0; index < scores.length; index++) {
    const weight = Math.exp(((scores[index] as number) - largest) * factor);
    scores[index] = weight;
    sum += weight;
  }
  for (let index = 0; index < scores.length; index++) {
    scores[index] = (scores[index] as number) / sum;
  }
}
