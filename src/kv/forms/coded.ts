// Coded: a page form that codes keys in one way and values in another, head by head, through the
// kernels. Layer: kv.
//
//   head    u32 keys of the sides' bases (0: none), then i8 exponents: keys of each head, values of each
//   keys    one coded side per head (sides.ts)
//   values  the same
//
// Each part begins at a multiple of 64 bytes; what is between is zero. Exponent e: the head's values
// were multiplied by 2^e before they were coded. Nothing here depends on anything but the rows, so the
// same rows give the same bytes on every engine.
import { scaleExponent } from "../../codec/scale-exponent.js";
import type { CodecWorkspace } from "../../core/codec-workspace.js";
import { MisuseError } from "../../errors.js";
import type { KvLayerShape, PageForm } from "../page-form.js";
import { checkBuffers, elementBytes, sectionAlign, sideBytes } from "./section.js";
import { SIDE_MULTIPLE, type Side } from "./sides.js";

const EXPONENTS_OFFSET = 8;
/** Three parts of a head are rounded up to whole lines of the workspace. */
const ROUNDING_BYTES = 512;
/**
 * Powers of two that magnitudes stay below, so that no rounding, which is at most as long as the vector,
 * reaches infinity in the element type.
 */
const MAGNITUDE_EXPONENT_MAX = { f16: 11, bf16: 120, f32: 120 } as const;

export interface CodedFormOptions {
  readonly name: string;
  readonly workspace: CodecWorkspace;
  readonly keys: Side;
  readonly values: Side;
  /** Refuses layers that the sides do not fit. @throws {MisuseError} */
  readonly requireLayer?: (layer: KvLayerShape) => void;
}

/** Where the parts of a section lie. */
interface Parts {
  readonly keys: number;
  readonly keysPitch: number;
  readonly values: number;
  readonly valuesPitch: number;
  readonly totalBytes: number;
}

/** The places of a section's parts. Checks nothing. */
function partsOf(
  { heads, headDim }: KvLayerShape,
  pageTokens: number,
  sides: { readonly keys: Side; readonly values: Side },
): Parts {
  const keysPitch = sectionAlign(sides.keys.byteLength(pageTokens, headDim));
  const valuesPitch = sectionAlign(sides.values.byteLength(pageTokens, headDim));
  const keys = sectionAlign(EXPONENTS_OFFSET + 2 * heads);
  const values = keys + heads * keysPitch;
  return { keys, keysPitch, values, valuesPitch, totalBytes: values + heads * valuesPitch };
}

/**
 * Bytes of a layer's section whose keys and values are coded so. Needs no workspace.
 *
 * @throws {MisuseError} `bad-shape` — tokens or elements are no multiples of {@link SIDE_MULTIPLE}; as
 *   {@link sideBytes}.
 */
export function codedSectionBytes(
  layer: KvLayerShape,
  pageTokens: number,
  sides: { readonly keys: Side; readonly values: Side },
): number {
  sideBytes(layer, pageTokens);
  if (pageTokens % SIDE_MULTIPLE !== 0 || layer.headDim % SIDE_MULTIPLE !== 0) {
    throw new MisuseError(
      "bad-shape",
      `coded pages have ${SIDE_MULTIPLE} n tokens and heads of ${SIDE_MULTIPLE} n elements, ` +
        `not ${pageTokens} and ${layer.headDim}`,
    );
  }
  return partsOf(layer, pageTokens, sides).totalBytes;
}

export class CodedForm implements PageForm {
  readonly name: string;
  readonly isExact = false;
  readonly #workspace: CodecWorkspace;
  readonly #keys: Side;
  readonly #values: Side;
  readonly #requireLayer: ((layer: KvLayerShape) => void) | undefined;

  constructor(options: CodedFormOptions) {
    this.name = options.name;
    this.#workspace = options.workspace;
    this.#keys = options.keys;
    this.#values = options.values;
    this.#requireLayer = options.requireLayer;
  }

  sectionBytes(layer: KvLayerShape, pageTokens: number): number {
    const { headDim } = layer;
    const sides = { keys: this.#keys, values: this.#values };
    const totalBytes = codedSectionBytes(layer, pageTokens, sides);
    this.#requireLayer?.(layer);
    const scratchBytes = Math.max(
      this.#keys.scratchBytes(pageTokens, headDim),
      this.#values.scratchBytes(pageTokens, headDim),
    );
    const headBytes = pageTokens * headDim * 8;
    const neededBytes = totalBytes + headBytes + scratchBytes + ROUNDING_BYTES;
    if (neededBytes > this.#workspace.freeBytes) {
      throw new MisuseError("bad-shape", `${this.name}: such a page does not fit the workspace`);
    }
    return totalBytes;
  }

  encode(
    layer: KvLayerShape,
    pageTokens: number,
    keys: Uint8Array,
    values: Uint8Array,
    section: Uint8Array,
  ): void {
    const totalBytes = this.sectionBytes(layer, pageTokens);
    checkBuffers(totalBytes, section, sideBytes(layer, pageTokens), keys, values);
    const parts = this.#parts(layer, pageTokens);
    const workspace = this.#workspace;
    workspace.within(() => {
      const address = workspace.take(totalBytes);
      workspace.bytes(address, totalBytes).fill(0);
      workspace.u32(address, 2).set([this.#keys.basisKey, this.#values.basisKey]);
      for (let head = 0; head < layer.heads; head++) {
        const exponents = address + EXPONENTS_OFFSET + head;
        const keysAt = address + parts.keys + head * parts.keysPitch;
        this.#encodeHead(layer, pageTokens, head, keys, this.#keys, keysAt, exponents);
        const valuesAt = address + parts.values + head * parts.valuesPitch;
        const last = exponents + layer.heads;
        this.#encodeHead(layer, pageTokens, head, values, this.#values, valuesAt, last);
      }
      section.set(workspace.bytes(address, totalBytes));
    });
  }

  decode(
    layer: KvLayerShape,
    pageTokens: number,
    section: Uint8Array,
    keys: Uint8Array | null,
    values: Uint8Array | null,
  ): void {
    const totalBytes = this.sectionBytes(layer, pageTokens);
    checkBuffers(totalBytes, section, sideBytes(layer, pageTokens), keys, values);
    const parts = this.#parts(layer, pageTokens);
    const workspace = this.#workspace;
    workspace.within(() => {
      const address = workspace.take(totalBytes);
      workspace.bytes(address, totalBytes).set(section);
      const [first, second] = workspace.u32(address, 2);
      if (first !== this.#keys.basisKey || second !== this.#values.basisKey) {
        throw new MisuseError("foreign-cache", `${this.name}: a page over another basis`);
      }
      for (let head = 0; head < layer.heads; head++) {
        const exponents = address + EXPONENTS_OFFSET + head;
        if (keys !== null) {
          const at = address + parts.keys + head * parts.keysPitch;
          this.#decodeHead(layer, pageTokens, head, at, this.#keys, keys, exponents);
        }
        if (values !== null) {
          const at = address + parts.values + head * parts.valuesPitch;
          const last = exponents + layer.heads;
          this.#decodeHead(layer, pageTokens, head, at, this.#values, values, last);
        }
      }
    });
  }

  #parts(layer: KvLayerShape, pageTokens: number): Parts {
    return partsOf(layer, pageTokens, { keys: this.#keys, values: this.#values });
  }

  #encodeHead(
    layer: KvLayerShape,
    pageTokens: number,
    head: number,
    side: Uint8Array,
    coder: Side,
    target: number,
    exponentAt: number,
  ): void {
    const workspace = this.#workspace;
    workspace.within(() => {
      const columns = layer.headDim;
      const count = pageTokens * columns;
      const headBytes = count * elementBytes(layer);
      const values = workspace.take(count * 4);
      const source = layer.dtype === "f32" ? values : workspace.take(headBytes);
      const rows = side.subarray(head * headBytes, (head + 1) * headBytes);
      workspace.bytes(source, headBytes).set(rows);
      const { kernels } = workspace;
      if (layer.dtype === "f16") kernels.f16Decode(source, values, count);
      if (layer.dtype === "bf16") kernels.bf16Decode(source, values, count);
      const magnitudeBits = kernels.measureMagnitude(values, count);
      const exponent = scaleExponent(magnitudeBits);
      if (exponent === null || magnitudeBits >>> 23 >= 127 + MAGNITUDE_EXPONENT_MAX[layer.dtype]) {
        throw new MisuseError("unsupported", `${this.name}: a value is not finite, or huge`);
      }
      if (exponent !== 0) kernels.scaleValues(values, values, count, 2 ** exponent);
      workspace.bytes(exponentAt, 1)[0] = exponent;
      coder.encode(workspace, { values, rows: pageTokens, columns, head }, target);
    });
  }

  #decodeHead(
    layer: KvLayerShape,
    pageTokens: number,
    head: number,
    source: number,
    coder: Side,
    side: Uint8Array,
    exponentAt: number,
  ): void {
    const workspace = this.#workspace;
    workspace.within(() => {
      const columns = layer.headDim;
      const count = pageTokens * columns;
      const headBytes = count * elementBytes(layer);
      const values = workspace.take(count * 4);
      coder.decode(workspace, source, { values, rows: pageTokens, columns, head });
      const exponent = ((workspace.bytes(exponentAt, 1)[0] as number) << 24) >> 24;
      const { kernels } = workspace;
      if (exponent !== 0) kernels.scaleValues(values, values, count, 2 ** -exponent);
      // In place: each value is read before its half as many bytes are written.
      if (layer.dtype === "f16") kernels.f16Encode(values, values, count);
      if (layer.dtype === "bf16") kernels.bf16Encode(values, values, count);
      side.set(workspace.bytes(values, headBytes), head * headBytes);
    });
  }
}
