// How the rows of one KV page are kept: the seam between the caches and the codecs.
//
// A page holds the keys and values of a fixed number of tokens for every layer. Each layer has its own
// section of the page, and each section its own form, so that layers may differ in shape and precision.
// A form's length depends on shapes alone: pages of one form are of one size and live in slabs.

/** What one layer keeps for a token. */
export interface KvLayerShape {
  /** KV heads (not query heads), 1 or more. */
  readonly heads: number;
  /** Elements of a head, 1 or more. */
  readonly headDim: number;
  /** Type of the elements that come in and go out. */
  readonly dtype: "f32" | "f16" | "bf16";
  /** Kept exact by every layout. Default: false. */
  readonly isCritical?: boolean;
  /** The keys were cached before their rotation by position. Default: false, as usual exports do. */
  readonly areKeysBeforeRope?: boolean;
}

/** A way to keep the rows of a page. Stateless: what it needs was given when it was made. */
export interface PageForm {
  readonly name: string;
  /** Decoding gives back every bit. */
  readonly isExact: boolean;
  /**
   * Bytes of one layer's section of a page, a multiple of 64; the same whatever the rows contain.
   *
   * @throws {MisuseError} `bad-shape` when the form cannot keep such rows, `bad-option` when it must not:
   *   low rank over keys that are rotated already.
   */
  sectionBytes(layer: KvLayerShape, pageTokens: number): number;
  /**
   * Writes a section from whole pages of keys and values, `[heads, pageTokens, headDim]` each in the
   * layer's dtype. The same rows give the same bytes.
   *
   * @throws {MisuseError} `bad-size` — a buffer is not as long as it should be; `unsupported` — the form is not
   *   exact, and a value is not finite, or so large that rounding could make it so. Nothing was written:
   *   the caller keeps such a page exact.
   */
  encode(
    layer: KvLayerShape,
    pageTokens: number,
    keys: Uint8Array,
    values: Uint8Array,
    section: Uint8Array,
  ): void;
  /**
   * The inverse. A part that is `null` is not wanted and costs nothing.
   *
   * @throws {MisuseError} `bad-size`; `foreign-cache` — the section is over another basis than the form's.
   */
  decode(
    layer: KvLayerShape,
    pageTokens: number,
    section: Uint8Array,
    keys: Uint8Array | null,
    values: Uint8Array | null,
  ): void;
}
