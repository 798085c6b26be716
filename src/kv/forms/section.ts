// What every form of a page needs to know about one layer's section: counts, checked once. Layer: kv.
import { MisuseError } from "../../errors.js";
import type { KvLayerShape } from "../page-form.js";

/** Sections begin at multiples of this, and so do their parts. */
export const SECTION_ALIGNMENT = 64;

/** Bytes rounded up to whole {@link SECTION_ALIGNMENT}s. */
export function sectionAlign(byteLength: number): number {
  return Math.ceil(byteLength / SECTION_ALIGNMENT) * SECTION_ALIGNMENT;
}

/** Bytes of an element of a layer. */
export function elementBytes(layer: KvLayerShape): number {
  return layer.dtype === "f32" ? 4 : 2;
}

/**
 * Bytes of a page's keys, and of its values: `[heads, pageTokens, headDim]`.
 *
 * @throws {MisuseError} `bad-shape` — a count is no positive integer, or the bytes pass 2³¹ − 1;
 *   `bad-dtype` — not an element type of KV.
 */
export function sideBytes(layer: KvLayerShape, pageTokens: number): number {
  for (const count of [layer.heads, layer.headDim, pageTokens]) {
    if (!Number.isSafeInteger(count) || count < 1) {
      throw new MisuseError("bad-shape", `a KV page has positive whole counts, not ${count}`);
    }
  }
  if (layer.dtype !== "f32" && layer.dtype !== "f16" && layer.dtype !== "bf16") {
    throw new MisuseError("bad-dtype", "keys and values are f32, f16 or bf16");
  }
  const byteLength = layer.heads * pageTokens * layer.headDim * elementBytes(layer);
  if (byteLength > 2 ** 31 - 1) {
    throw new MisuseError("bad-shape", "a KV page's keys are longer than 2 GiB");
  }
  return byteLength;
}

/**
 * Refuses buffers that are not exactly as long as the layer says, before anything is written.
 *
 * @throws {MisuseError} `bad-size`.
 */
export function checkBuffers(
  sectionBytes: number,
  section: Uint8Array,
  wantedSideBytes: number,
  ...sides: (Uint8Array | null)[]
): void {
  if (section.byteLength !== sectionBytes) {
    throw new MisuseError(
      "bad-size",
      `a section of ${sectionBytes} bytes, not ${section.byteLength}`,
    );
  }
  for (const side of sides) {
    if (side !== null && side.byteLength !== wantedSideBytes) {
      throw new MisuseError(
        "bad-size",
        `a page's keys or values of ${wantedSideBytes} bytes, not ${side.byteLength}`,
      );
    }
  }
}
