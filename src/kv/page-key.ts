// What names a full page: everything that its rows depend on. The name is the SHA-256 of the page's
// header, which holds the name of the page before it, so that equal names mean equal beginnings.
//
//   byte  0        4            8            12             16           48        …         …
//         ┌────────┬────────────┬────────────┬──────────────┬────────────┬─────────┬─────────┬────
//         │ magic  │ tokenCount │ firstToken │ contextBytes │ parent key │ context │ token[] │ 0…
//         └────────┴────────────┴────────────┴──────────────┴────────────┴─────────┴─────────┴────
//
// Little-endian; tokens are u32 at a multiple of 4; the header ends at a multiple of 64. The context is
// text: fingerprint, salt, layout, shapes, and what else was said about tokens of this page. The header lies in
// front of the page's rows, so whoever finds a page by its name compares all of it.
import { MisuseError } from "../errors.js";
import { describe } from "../types.js";
import type { KvLayerShape } from "./page-form.js";

/** What else the rows depend on, from a token on: an image's digest, an adapter's name. */
export interface KvExtra {
  /** The token where it counts first, from 0 on: an image's first token. Default: 0. */
  readonly at?: number;
  /** Such as `"lora"` or `"image"`. */
  readonly name: string;
  /** Such as the SHA-256 of the image, in digits. */
  readonly value: string;
}

/** A page, known by everything that its rows depend on. */
export interface PageAddress {
  /** SHA-256 of {@link header}. */
  readonly key: Uint8Array;
  /** The key in hexadecimal digits. */
  readonly keyText: string;
  readonly header: Uint8Array<ArrayBuffer>;
}

const MAGIC = 0x3150564b;
const PARENT_OFFSET = 16;
const KEY_BYTES = 32;
const CONTEXT_OFFSET = PARENT_OFFSET + KEY_BYTES;
const HEADER_ALIGNMENT = 64;
const FORMAT = "tierheap kv 1";
const TOKEN_MAX = 2 ** 32 - 1;

const utf8 = new TextEncoder();
const alignTo = (bytes: number, alignment: number) => Math.ceil(bytes / alignment) * alignment;

/** @throws {MisuseError} `bad-option` — not integers from 0 to 2^32 − 1. */
export function checkTokens(tokens: ArrayLike<number>): Uint32Array<ArrayBuffer> {
  if (typeof tokens?.length !== "number") {
    throw new MisuseError("bad-option", "tokens are an array of numbers");
  }
  for (let index = 0; index < tokens.length; index++) {
    const token = tokens[index] as number;
    if (Number.isInteger(token) && token >= 0 && token <= TOKEN_MAX) continue;
    throw new MisuseError("bad-option", `${describe(token)} is not a token`);
  }
  return Uint32Array.from(tokens);
}

/** By token, in an order of their own. @throws {MisuseError} `bad-option`. */
export function checkExtras(extras: readonly KvExtra[] = []): Required<KvExtra>[] {
  if (!Array.isArray(extras)) throw new MisuseError("bad-option", "extras are an array");
  const checked = extras.map(({ at = 0, name, value }: KvExtra) => {
    const isText = typeof name === "string" && typeof value === "string";
    if (isText && Number.isSafeInteger(at) && at >= 0) return { at, name, value };
    throw new MisuseError("bad-option", "an extra has a token number, a name and a value");
  });
  const order = ({ name, value }: KvExtra) => JSON.stringify([name, value]);
  return checked.sort((a, b) => a.at - b.at || (order(a) < order(b) ? -1 : 1));
}

/** @returns Whether both have the same bytes. */
export function areEqual(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== other.length) return false;
  for (let index = 0; index < one.length; index++) if (one[index] !== other[index]) return false;
  return true;
}

export interface PageKeyOptions {
  readonly fingerprint: string;
  readonly salt: string;
  readonly layers: readonly KvLayerShape[];
  readonly pageTokens: number;
  /** Empty where earlier pages are exact: rows depend on what a model was given of the rows before them. */
  readonly layoutName?: string;
}

/** Names the pages of one model. */
export class PageKeys {
  readonly #base: readonly unknown[];
  readonly #plainContext: Uint8Array;
  readonly #pageTokens: number;

  constructor({ fingerprint, salt, layers, pageTokens, layoutName = "" }: PageKeyOptions) {
    const shapes = layers.map(({ heads, headDim, dtype, areKeysBeforeRope }) =>
      [heads, headDim, dtype, areKeysBeforeRope === true ? "before" : "after"].join(" "),
    );
    this.#base = [FORMAT, fingerprint, salt, layoutName, shapes, pageTokens];
    this.#plainContext = utf8.encode(JSON.stringify([...this.#base, []]));
    this.#pageTokens = pageTokens;
  }

  /**
   * The header of tokens that follow a page.
   *
   * @param tokens At most a page.
   * @param extras In the order of {@link checkExtras}; those of other tokens are passed over.
   */
  header(
    parent: PageAddress | null,
    firstToken: number,
    tokens: Uint32Array,
    extras: readonly Required<KvExtra>[],
  ): Uint8Array<ArrayBuffer> {
    const own = extras.filter(({ at }) => at >= firstToken && at < firstToken + this.#pageTokens);
    const context =
      own.length === 0
        ? this.#plainContext
        : utf8.encode(JSON.stringify([...this.#base, own.map((e) => [e.at, e.name, e.value])]));
    const tokensOffset = alignTo(CONTEXT_OFFSET + context.length, 4);
    const end = alignTo(tokensOffset + 4 * this.#pageTokens, HEADER_ALIGNMENT);
    const header = new Uint8Array(end);
    const view = new DataView(header.buffer);
    [MAGIC, tokens.length, firstToken, context.length].forEach((word, index) => {
      view.setUint32(4 * index, word, true);
    });
    if (parent !== null) header.set(parent.key, PARENT_OFFSET);
    header.set(context, CONTEXT_OFFSET);
    tokens.forEach((token, index) => {
      view.setUint32(tokensOffset + 4 * index, token, true);
    });
    return header;
  }

  /** The address of a full page. */
  async address(
    parent: PageAddress | null,
    firstToken: number,
    tokens: Uint32Array,
    extras: readonly Required<KvExtra>[],
  ): Promise<PageAddress> {
    const header = this.header(parent, firstToken, tokens, extras);
    const key = new Uint8Array(await crypto.subtle.digest("SHA-256", header));
    let keyText = "";
    for (const byte of key) keyText += byte.toString(16).padStart(2, "0");
    return { key, keyText, header };
  }
}
