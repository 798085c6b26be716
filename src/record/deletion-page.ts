// A page of deletions that a tier could not be told of: an object of its own in another tier, so that the
// deletions outlive the process. Pure: knows no tiers. Described in docs/record-format.md.
//
//   magic "TRHD" | version u32 | key count u32 | name bytes u32 | name, zeros up to 32 | keys of 32 bytes |
//   SHA-256 of all before
import { type PrivateBytes, privateBytes } from "../util/private-bytes.js";

/** Deletions that one tier has still to be told of. */
export interface DeletionPage {
  /** Name of that tier. */
  readonly tier: string;
  /** Keys of 64 hexadecimal digits. */
  readonly keys: readonly string[];
}

export type DeletionPageVerdict =
  | { readonly verdict: "valid"; readonly page: DeletionPage }
  | { readonly verdict: "damaged" }
  /** Of another version: nobody knows what was deleted. */
  | { readonly verdict: "incompatible" };

/** Keys that one page holds at most. */
export const PAGE_KEY_COUNT = 256;

const MAGIC = 0x44485254; // "TRHD", little-endian
const VERSION = 1;
const FIXED_BYTES = 16;
const KEY_BYTES = 32;
const DIGEST_BYTES = 32;
/** No record has such a key: a record's is a SHA-256. */
const KEY_PREFIX = "f".repeat(48);

/** Where a page lies in a tier. @param index From 0. */
export function deletionPageKey(index: number): string {
  return KEY_PREFIX + index.toString(16).padStart(16, "0");
}

/** The index of the page that lies under a key; null when it is the key of a record. */
export function deletionPageIndex(key: string): number | null {
  return key.startsWith(KEY_PREFIX) ? Number.parseInt(key.slice(KEY_PREFIX.length), 16) : null;
}

async function digestOf(bytes: PrivateBytes): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

/**
 * @param page At most {@link PAGE_KEY_COUNT} keys.
 * @param version Other ones are for tests.
 */
export async function encodeDeletionPage(
  { tier, keys }: DeletionPage,
  version = VERSION,
): Promise<PrivateBytes> {
  const name = new TextEncoder().encode(tier);
  const keysOffset = FIXED_BYTES + Math.ceil(name.byteLength / KEY_BYTES) * KEY_BYTES;
  const endOffset = keysOffset + keys.length * KEY_BYTES;
  const bytes = privateBytes(endOffset + DIGEST_BYTES);
  const view = new DataView(bytes.buffer);
  for (const [index, word] of [MAGIC, version, keys.length, name.byteLength].entries()) {
    view.setUint32(4 * index, word, true);
  }
  bytes.set(name, FIXED_BYTES);
  for (const [index, key] of keys.entries()) {
    const offset = keysOffset + index * KEY_BYTES;
    for (let at = 0; at < KEY_BYTES; at++) {
      bytes[offset + at] = Number.parseInt(key.slice(2 * at, 2 * at + 2), 16);
    }
  }
  bytes.set(await digestOf(bytes.slice(0, endOffset) as PrivateBytes), endOffset);
  return bytes;
}

export async function decodeDeletionPage(bytes: PrivateBytes): Promise<DeletionPageVerdict> {
  if (bytes.byteLength < FIXED_BYTES + DIGEST_BYTES) return { verdict: "damaged" };
  const endOffset = bytes.byteLength - DIGEST_BYTES;
  const digest = await digestOf(bytes.slice(0, endOffset) as PrivateBytes);
  if (!digest.every((byte, at) => byte === bytes[endOffset + at])) return { verdict: "damaged" };
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const [magic, version, keyCount, nameBytes] = [0, 4, 8, 12].map((at) => view.getUint32(at, true));
  if (magic !== MAGIC) return { verdict: "damaged" };
  if (version !== VERSION) return { verdict: "incompatible" };
  const keysOffset = FIXED_BYTES + Math.ceil((nameBytes as number) / KEY_BYTES) * KEY_BYTES;
  if (keysOffset + (keyCount as number) * KEY_BYTES !== endOffset) return { verdict: "damaged" };
  const name = bytes.subarray(FIXED_BYTES, FIXED_BYTES + (nameBytes as number));
  const keys = Array.from({ length: keyCount as number }, (_, index) => {
    const offset = keysOffset + index * KEY_BYTES;
    const own = bytes.subarray(offset, offset + KEY_BYTES);
    return Array.from(own, (byte) => byte.toString(16).padStart(2, "0")).join("");
  });
  return { verdict: "valid", page: { tier: new TextDecoder().decode(name), keys } };
}
