// Where the sections of a page lie, and how rows get in and out. Layer: kv.
import { MisuseError } from "../errors.js";
import type { Dtype } from "../types.js";
import { exactForm } from "./forms/exact.js";
import { elementBytes, sectionAlign, sideBytes } from "./forms/section.js";
import type { KvLayout } from "./kv-layout.js";
import type { KvLayerShape, PageForm } from "./page-form.js";

/** Keys and values of some tokens of one layer, each `[heads, tokens, headDim]` in its dtype. */
export interface KvRows {
  readonly keys: ArrayBufferView;
  readonly values: ArrayBufferView;
}

/** The forms of a page, by layer, and what follows from them. */
export interface PagePlan {
  /** Names the forms: a part of a page's id. */
  readonly signature: string;
  readonly forms: readonly PageForm[];
  /** Of each layer's section, counted from the end of the header. */
  readonly offsets: readonly number[];
  readonly lengths: readonly number[];
  /** Of all sections. */
  readonly byteLength: number;
  /** Of the tensor: that of the rows where all of them are as they came, so that tiers can code them. */
  readonly dtype: Dtype;
}

/** Rows of one head and layer, in bytes. */
export function rowBytes(layer: KvLayerShape): number {
  return layer.headDim * elementBytes(layer);
}

/** The same memory as bytes. */
export function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** A place in buffers of heads: their bytes, the rows from one head to the next, the first row. */
export interface HeadsAt {
  readonly bytes: Uint8Array;
  readonly strideRows: number;
  readonly row: number;
}

/** Copies `count` rows of every head. */
export function copyHeads(
  target: HeadsAt,
  source: HeadsAt,
  layer: KvLayerShape,
  count: number,
): void {
  const row = rowBytes(layer);
  for (let head = 0; head < layer.heads; head++) {
    const from = (head * source.strideRows + source.row) * row;
    const to = (head * target.strideRows + target.row) * row;
    target.bytes.set(source.bytes.subarray(from, from + count * row), to);
  }
}

/** @throws {MisuseError} `bad-option`, `bad-size` — not rows of `tokens` tokens for every layer. */
export function checkRows(
  layers: readonly KvLayerShape[],
  tokens: number,
  rows: readonly KvRows[],
): void {
  if (!Array.isArray(rows) || rows.length !== layers.length) {
    throw new MisuseError("bad-option", `rows are an array of ${layers.length} layers`);
  }
  for (const [index, layer] of layers.entries()) {
    const expected = layer.heads * tokens * rowBytes(layer);
    for (const part of ["keys", "values"] as const) {
      const view: unknown = (rows[index] as Partial<KvRows> | undefined)?.[part];
      if (ArrayBuffer.isView(view) && view.byteLength === expected) continue;
      throw new MisuseError("bad-size", `${part} of layer ${index} have ${expected} bytes`);
    }
  }
}

/** The plans of one model and layout. */
export class PagePlans {
  readonly layers: readonly KvLayerShape[];
  readonly pageTokens: number;
  /** All sections exact: the tail of every cache, and pages that no other form can keep. */
  readonly exact: PagePlan;
  readonly #layout: KvLayout;
  readonly #bySignature = new Map<string, PagePlan>();
  readonly #keys: Uint8Array;
  readonly #values: Uint8Array;

  constructor(layers: readonly KvLayerShape[], pageTokens: number, layout: KvLayout) {
    this.layers = layers;
    this.pageTokens = pageTokens;
    this.#layout = layout;
    this.exact = this.#planOf(layers.map(() => exactForm));
    const longest = Math.max(...layers.map((layer) => sideBytes(layer, pageTokens)));
    this.#keys = new Uint8Array(longest);
    this.#values = new Uint8Array(longest);
  }

  /** The plan of a page. */
  planAt(pageIndex: number, pageCount: number, attentionMass: number | null): PagePlan {
    const forms = this.layers.map((layer, layerIndex) => {
      if (layer.isCritical === true) return exactForm;
      return this.#layout.formOf(layer, { pageIndex, pageCount, layerIndex, attentionMass });
    });
    return this.#planOf(forms);
  }

  /** Plans that a page may have by its age, those it has first before the others. */
  plansOf(pageIndex: number): PagePlan[] {
    const plans = new Set([this.planAt(pageIndex, pageIndex + 1, null)]);
    if (!this.#layout.isUniform) {
      for (let age = 2; age <= 2 ** 16; age *= 2) {
        plans.add(this.planAt(pageIndex, pageIndex + age, null));
      }
    }
    return [...plans.add(this.exact)];
  }

  /**
   * Writes all sections.
   *
   * @param rows Puts a whole page of rows of one layer into its arguments.
   * @throws Whatever a form throws that cannot keep these rows.
   */
  encode(
    plan: PagePlan,
    target: Uint8Array,
    rows: (layerIndex: number, keys: Uint8Array, values: Uint8Array) => void,
  ): void {
    this.layers.forEach((layer, index) => {
      const { keys, values } = this.#scratch(layer);
      rows(index, keys, values);
      const form = plan.forms[index] as PageForm;
      form.encode(layer, this.pageTokens, keys, values, sectionOf(plan, index, target));
    });
  }

  /**
   * One layer's rows of a page. They are the page's own memory or scratch: use them before anything else
   * is done, and do not write to them.
   */
  decode(
    plan: PagePlan,
    source: Uint8Array,
    index: number,
    parts: { readonly keys: boolean; readonly values: boolean },
  ): { readonly keys: Uint8Array; readonly values: Uint8Array } {
    const layer = this.layers[index] as KvLayerShape;
    const section = sectionOf(plan, index, source);
    if (plan.forms[index] === exactForm) return exactRows(layer, this.pageTokens, section);
    const { keys, values } = this.#scratch(layer);
    const form = plan.forms[index] as PageForm;
    const [wantedKeys, wantedValues] = [parts.keys ? keys : null, parts.values ? values : null];
    form.decode(layer, this.pageTokens, section, wantedKeys, wantedValues);
    return { keys, values };
  }

  #scratch(layer: KvLayerShape): { keys: Uint8Array; values: Uint8Array } {
    const bytes = sideBytes(layer, this.pageTokens);
    return { keys: this.#keys.subarray(0, bytes), values: this.#values.subarray(0, bytes) };
  }

  #planOf(forms: readonly PageForm[]): PagePlan {
    const runs: { name: string; count: number }[] = [];
    for (const { name } of forms) {
      const last = runs.at(-1);
      if (last?.name === name) last.count += 1;
      else runs.push({ name, count: 1 });
    }
    const signature = runs.map(({ name, count }) => `${name}*${count}`).join("+");
    const known = this.#bySignature.get(signature);
    if (known !== undefined) return known;
    const offsets: number[] = [];
    const lengths: number[] = [];
    let byteLength = 0;
    for (const [index, layer] of this.layers.entries()) {
      const length = (forms[index] as PageForm).sectionBytes(layer, this.pageTokens);
      offsets.push(byteLength);
      lengths.push(length);
      byteLength += length;
    }
    const dtypes = new Set(this.layers.map(({ dtype }) => dtype));
    const isPlain = dtypes.size === 1 && forms.every((form) => form === exactForm);
    const dtype: Dtype = isPlain ? (this.layers[0] as KvLayerShape).dtype : "u8";
    const plan = { signature, forms, offsets, lengths, byteLength, dtype };
    this.#bySignature.set(signature, plan);
    return plan;
  }
}

/** Keys and values of an exact section, where they lie. */
export function exactRows(layer: KvLayerShape, pageTokens: number, section: Uint8Array) {
  const bytes = sideBytes(layer, pageTokens);
  const valuesOffset = sectionAlign(bytes);
  return {
    keys: section.subarray(0, bytes),
    values: section.subarray(valuesOffset, valuesOffset + bytes),
  };
}

export function sectionOf(plan: PagePlan, index: number, sections: Uint8Array): Uint8Array {
  const offset = plan.offsets[index] as number;
  return sections.subarray(offset, offset + (plan.lengths[index] as number));
}
