// A saved chat: its tokens, and the rows behind its last full page. Full pages have records of their own.
//
//   byte  0        4            8             12              16
//         ┌────────┬────────────┬─────────────┬───────────────┬─────────┬────────┬───┬────────┬──────
//         │ magic  │ tokenCount │ extrasBytes │ tailHasHeader │ token[] │ extras │ 0 │ header │ tail
//         └────────┴────────────┴─────────────┴───────────────┴─────────┴────────┴───┴────────┴──────
//
// Little-endian; extras are JSON; header and tail begin at a multiple of 64. The header is that of the
// unfinished page: whoever reads the record makes it from what is wanted, and compares.
import { checkExtras, type KvExtra } from "./page-key.js";

const MAGIC = 0x3143564b;
const WORDS = 4;
const ALIGNMENT = 64;

const utf8 = new TextEncoder();

export interface SavedChat {
  readonly tokens: Uint32Array;
  readonly extras: readonly Required<KvExtra>[];
  readonly tailHeader: Uint8Array;
  /** Empty where the last page is full. */
  readonly tailSections: Uint8Array;
}

/** Its bytes, and how to write them. */
export function planSavedChat(chat: SavedChat): {
  readonly byteLength: number;
  readonly write: (target: Uint8Array) => void;
} {
  const { tokens, tailHeader, tailSections } = chat;
  const extras = utf8.encode(JSON.stringify(chat.extras));
  const extrasOffset = 4 * (WORDS + tokens.length);
  const headerOffset = Math.ceil((extrasOffset + extras.length) / ALIGNMENT) * ALIGNMENT;
  const tailOffset = headerOffset + tailHeader.length;
  const write = (target: Uint8Array) => {
    const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
    const words = [MAGIC, tokens.length, extras.length, tailHeader.length, ...tokens];
    words.forEach((word, index) => {
      view.setUint32(4 * index, word, true);
    });
    target.set(extras, extrasOffset);
    target.set(tailHeader, headerOffset);
    target.set(tailSections, tailOffset);
  };
  return { byteLength: tailOffset + tailSections.length, write };
}

/** @returns Views of the record, but copies of what is small; null when it is no saved chat. */
export function readSavedChat(source: Uint8Array): SavedChat | null {
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  if (source.length < 4 * WORDS || view.getUint32(0, true) !== MAGIC) return null;
  const tokenCount = view.getUint32(4, true);
  const extrasBytes = view.getUint32(8, true);
  const headerBytes = view.getUint32(12, true);
  const extrasOffset = 4 * (WORDS + tokenCount);
  const headerOffset = Math.ceil((extrasOffset + extrasBytes) / ALIGNMENT) * ALIGNMENT;
  const tailOffset = headerOffset + headerBytes;
  if (tailOffset > source.length) return null;
  const tokens = new Uint32Array(tokenCount);
  for (let index = 0; index < tokenCount; index++) {
    tokens[index] = view.getUint32(4 * (WORDS + index), true);
  }
  try {
    const text = new TextDecoder().decode(source.slice(extrasOffset, extrasOffset + extrasBytes));
    const extras = checkExtras(JSON.parse(text) as KvExtra[]);
    return {
      tokens,
      extras,
      tailHeader: source.subarray(headerOffset, tailOffset),
      tailSections: source.subarray(tailOffset),
    };
  } catch {
    return null;
  }
}
