// Exact: the rows of a page as they came, keys then values. The form that needs nothing. Layer: kv.
//
//   keys    [heads, pageTokens, headDim], padded with zeros to a multiple of 64 bytes
//   values  the same
import type { KvLayerShape, PageForm } from "../page-form.js";
import { checkBuffers, sectionAlign, sideBytes } from "./section.js";

function sectionBytes(layer: KvLayerShape, pageTokens: number): number {
  return 2 * sectionAlign(sideBytes(layer, pageTokens));
}

function encode(
  layer: KvLayerShape,
  pageTokens: number,
  keys: Uint8Array,
  values: Uint8Array,
  section: Uint8Array,
): void {
  const byteLength = sideBytes(layer, pageTokens);
  checkBuffers(sectionBytes(layer, pageTokens), section, byteLength, keys, values);
  const valuesOffset = sectionAlign(byteLength);
  section.set(keys, 0);
  section.fill(0, byteLength, valuesOffset);
  section.set(values, valuesOffset);
  section.fill(0, valuesOffset + byteLength);
}

function decode(
  layer: KvLayerShape,
  pageTokens: number,
  section: Uint8Array,
  keys: Uint8Array | null,
  values: Uint8Array | null,
): void {
  const byteLength = sideBytes(layer, pageTokens);
  checkBuffers(sectionBytes(layer, pageTokens), section, byteLength, keys, values);
  const valuesOffset = sectionAlign(byteLength);
  keys?.set(section.subarray(0, byteLength));
  values?.set(section.subarray(valuesOffset, valuesOffset + byteLength));
}

/** Keeps every bit, values that are not finite included. Costs one copy each way. */
export const exactForm: PageForm = {
  name: "exact",
  isExact: true,
  sectionBytes,
  encode,
  decode,
};
