// The tensors that the KV of one chat lies in, in whatever form. Layer: plan.

import { codedSectionBytes } from "../kv/forms/coded.js";
import { exactForm } from "../kv/forms/exact.js";
import { type CodeBits, sidesOf } from "../kv/forms/sides.js";
import type { KvLayerShape } from "../kv/page-form.js";
import { PageKeys } from "../kv/page-key.js";
import type { KvDtype, ModelShape } from "./models.js";

/**
 * How the KV of a chat is kept. `"exact"`: in pages as it came, of `tierheap/kv`; `"a8"` to `"a2"`: in pages that are coded
 * in so many bits but for the first and the last one; `"tensors"`: without gaps, one tensor for the keys and one
 * for the values of each layer, as runtimes want it.
 */
export type KvForm = "exact" | "a8" | "a4" | "a3" | "a2" | "tensors";

export const KV_FORMS: readonly KvForm[] = ["exact", "a8", "a4", "a3", "a2", "tensors"];

/** Bits of the codes, by form. */
const CODE_BITS: Partial<Record<KvForm, CodeBits>> = { a8: 8, a4: 4, a3: 3, a2: 2 };
/** Full pages that coded layouts keep exact: the first one and the last one. */
const EXACT_PAGES = 2;

export interface KvPlanOptions {
  readonly model: ModelShape;
  readonly dtype: KvDtype;
  readonly form: KvForm;
  /** 1 or more. */
  readonly pageTokens: number;
}

/** So many tensors of one length. */
export interface TensorRun {
  readonly count: number;
  readonly byteLength: number;
}

const elementBytesOf = (dtype: KvDtype) => (dtype === "f32" ? 4 : 2);

/** Bytes of one token's rows as the model makes them. */
export function tokenBytesOf({ layers, kvHeads, headDim }: ModelShape, dtype: KvDtype): number {
  return 2 * layers * kvHeads * headDim * elementBytesOf(dtype);
}

/**
 * The tensors of `tokens` tokens of one chat.
 *
 * @param sharedTokens First tokens whose full pages other chats have too; those are left out.
 * @throws {MisuseError} `bad-shape` — coded pages of such heads or tokens there are not.
 */
export function kvTensorsOf(options: KvPlanOptions, tokens: number, sharedTokens = 0): TensorRun[] {
  const { model, dtype, form, pageTokens } = options;
  const { layers, kvHeads: heads, headDim } = model;
  if (tokens === 0) return [];
  if (form === "tensors") {
    return [
      { count: 2 * layers, byteLength: (tokens * tokenBytesOf(model, dtype)) / (2 * layers) },
    ];
  }
  const layer: KvLayerShape = { heads, headDim, dtype };
  const exactBytes = layers * exactForm.sectionBytes(layer, pageTokens);
  const headerBytes = headerBytesOf(options, layer);
  const bits = CODE_BITS[form];
  const codedBytes =
    bits === undefined
      ? exactBytes
      : layers * codedSectionBytes(layer, pageTokens, sidesOf(bits, bits));
  const pageCount = Math.floor(tokens / pageTokens);
  const sharedCount = Math.min(pageCount, Math.floor(sharedTokens / pageTokens));
  const isCoded = (index: number) =>
    bits !== undefined && index >= 1 && index < pageCount - (EXACT_PAGES - 1);
  const codedFrom = Math.max(sharedCount, 1);
  const codedCount = isCoded(codedFrom) ? pageCount - 1 - codedFrom : 0;
  const exactCount = pageCount - sharedCount - codedCount;
  const runs = [
    { count: exactCount, byteLength: headerBytes + exactBytes },
    { count: codedCount, byteLength: headerBytes + codedBytes },
    // The unfinished page is exact, and as long as a full one.
    { count: tokens % pageTokens === 0 ? 0 : 1, byteLength: exactBytes },
  ];
  return runs.filter(({ count }) => count > 0);
}

/** What is in front of a page's rows: about as long for any fingerprint. */
function headerBytesOf({ model, form, pageTokens }: KvPlanOptions, layer: KvLayerShape): number {
  const layers = Array.from({ length: model.layers }, () => layer);
  const layoutName = form === "exact" ? "" : form;
  const keys = new PageKeys({ fingerprint: model.name, salt: "", layers, pageTokens, layoutName });
  return keys.header(null, 0, new Uint32Array(pageTokens), []).length;
}
