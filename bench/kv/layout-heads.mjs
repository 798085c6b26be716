// Attention heads for the table of layouts: keys and values are coded page by page as a layout says, and
// the attention output is compared with the exact one.
import { codedLayout } from "../../dist/src/kv/layouts.js";
import { capture } from "../codecs/data/captured.mjs";
import { HEAD_TYPES, makeHead, rotary } from "../codecs/data/heads.mjs";

export const PAGE_TOKENS = 64;
/** Tokens that bases are found on: the pages behind the first. */
const BASIS_TOKENS = 512;

const bytesOf = (values) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

export class Head {
  /**
   * @param keysBefore Keys before their rotation by position; left out where none is.
   * @param scoredFrom Queries before this one only tell where attention goes.
   */
  constructor({ keys, keysBefore = keys, values, queries, d, scoredFrom }) {
    Object.assign(this, { keys, keysBefore, values, queries, d, scoredFrom });
    this.tokenCount = keys.length / d;
    this.pageCount = this.tokenCount / PAGE_TOKENS;
    this.queryCount = queries.length / d;
    this.shape = { heads: 1, headDim: d, dtype: "f32" };
  }

  /** The heads that the codecs' bench makes. */
  static *synthetic(seeds) {
    for (const type of Object.keys(HEAD_TYPES)) {
      for (const seed of seeds) {
        const { keys, keysBefore, values, queries } = makeHead(type, seed);
        yield new Head({ keys, keysBefore, values, queries, d: 128, scoredFrom: 128 });
      }
    }
  }

  /** A head of the chat example's decoder, built from a seed, reading a text. It does not rotate keys. */
  static async captured() {
    const { keys } = await capture();
    const { values, partner, queries, columns } = keys;
    return new Head({ keys: values, values: partner, queries, d: columns, scoredFrom: 64 });
  }

  /** Weights of all tokens for a query. */
  #weights(keys, query) {
    const { d, queries } = this;
    const scores = Float64Array.from({ length: this.tokenCount }, (_, token) => {
      let sum = 0;
      for (let c = 0; c < d; c++) sum += queries[query * d + c] * keys[token * d + c];
      return sum / Math.sqrt(d);
    });
    const peak = scores.reduce((a, b) => Math.max(a, b));
    const weights = scores.map((score) => Math.exp(score - peak));
    const total = weights.reduce((a, b) => a + b);
    return weights.map((weight) => weight / total);
  }

  #output(keys, values, query) {
    const output = new Float64Array(this.d);
    this.#weights(keys, query).forEach((weight, token) => {
      for (let c = 0; c < this.d; c++) output[c] += weight * values[token * this.d + c];
    });
    return output;
  }

  /** Relative error of the attention output of the scored queries. */
  #error(keys, values) {
    let errors = 0;
    let squares = 0;
    for (let query = this.scoredFrom; query < this.queryCount; query++) {
      const exact = this.#output(this.keys, this.values, query);
      const coded = this.#output(keys, values, query);
      for (let c = 0; c < this.d; c++) {
        errors += (exact[c] - coded[c]) ** 2;
        squares += exact[c] ** 2;
      }
    }
    return Math.sqrt(errors / squares);
  }

  /** Share of attention of each page, by the queries that are not scored. */
  masses() {
    const sums = new Float64Array(this.pageCount);
    for (let query = 0; query < this.scoredFrom; query++) {
      this.#weights(this.keys, query).forEach((weight, token) => {
        sums[Math.floor(token / PAGE_TOKENS)] += weight / this.scoredFrom;
      });
    }
    return sums;
  }

  /** A basis of the keys before their rotation, or of the values. */
  basis(forms, side, wanted) {
    const from = PAGE_TOKENS * this.d;
    const rows = (side === "keys" ? this.keysBefore : this.values).slice(
      from,
      from + BASIS_TOKENS * this.d,
    );
    return forms.fitBasis(this.shape, bytesOf(rows), BASIS_TOKENS, wanted);
  }

  /**
   * Codes every page as the layout says, and decodes it again.
   *
   * @param layout The name and the options of `codedLayout`; whether keys are those before their rotation.
   * @returns Error of the attention output, and the form of each page.
   */
  code(forms, { name, options = {}, isBefore = false, masses = null }) {
    const layout = codedLayout(name, forms, options);
    const shape = { ...this.shape, areKeysBeforeRope: isBefore };
    const keys = (isBefore ? this.keysBefore : this.keys).slice();
    const values = this.values.slice();
    const used = [];
    for (let pageIndex = 0; pageIndex < this.pageCount; pageIndex++) {
      const attentionMass = masses?.[pageIndex] ?? null;
      const place = { pageIndex, pageCount: this.pageCount, layerIndex: 0, attentionMass };
      const form = layout.formOf(shape, place);
      const section = new Uint8Array(form.sectionBytes(shape, PAGE_TOKENS));
      const from = pageIndex * PAGE_TOKENS * this.d;
      const ownKeys = bytesOf(keys.subarray(from, from + PAGE_TOKENS * this.d));
      const ownValues = bytesOf(values.subarray(from, from + PAGE_TOKENS * this.d));
      form.encode(shape, PAGE_TOKENS, ownKeys, ownValues, section);
      form.decode(shape, PAGE_TOKENS, section, ownKeys, ownValues);
      used.push(form);
    }
    if (isBefore && this.keysBefore !== this.keys) {
      for (let token = 0; token < this.tokenCount; token++) rotary(keys, token, token);
    }
    return { error: this.#error(keys, values), used };
  }
}
