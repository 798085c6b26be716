// What the rows of a cache do not tell: the model that computed them and the tokens that they belong to. Kept
// beside them as one more tensor, `ID/tokens`, so that other tokens and other models are refused.
//
//   byte  0         4          8              12       16                       16 + f
//         ┌─────────┬──────────┬──────────────┬────────┬────────────────────────┬─────────────────┐
//         │ version │ tokens n │ text bytes f │ stride │ fingerprint, UTF-8     │ n tokens, u32   │
//         └─────────┴──────────┴──────────────┴────────┴────────────────────────┴─────────────────┘
//
// Little-endian. The stride is how many tokens the heads lie apart. Rows are only added behind those that a
// seal names, so it stays true while they are; before they are overwritten it is deleted, in every tier.
import { MisuseError } from "../../errors.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { countNewTokens } from "./chat-tokens.js";

const VERSION = 1;
const HEADER_BYTES = 16;
const TOKEN_BYTES = 4;

export interface CacheSeal {
  readonly fingerprint: string;
  readonly tokens: readonly number[];
  readonly stride: number;
}

export function sealId(id: string): string {
  return `${id}/tokens`;
}

/** Puts the seal of a cache into the heap, in place of one that is there. */
export async function writeSeal(memory: TensorMemory, id: string, seal: CacheSeal): Promise<void> {
  const text = new TextEncoder().encode(seal.fingerprint);
  memory.tensor(sealId(id))?.free();
  const byteLength = HEADER_BYTES + text.byteLength + seal.tokens.length * TOKEN_BYTES;
  await memory.reserve({ kind: "KV_CACHE", bytes: byteLength });
  const tensor = memory.allocate({ kind: "KV_CACHE", id: sealId(id), byteLength });
  const pin = tensor.pin();
  const bytes = new DataView(pin.bytes.buffer, pin.bytes.byteOffset, byteLength);
  bytes.setUint32(0, VERSION, true);
  bytes.setUint32(4, seal.tokens.length, true);
  bytes.setUint32(8, text.byteLength, true);
  bytes.setUint32(12, seal.stride, true);
  pin.bytes.set(text, HEADER_BYTES);
  for (const [index, token] of seal.tokens.entries()) {
    bytes.setUint32(HEADER_BYTES + text.byteLength + index * TOKEN_BYTES, token, true);
  }
  pin[Symbol.dispose]();
}

/** @returns null when there is none, or none that can be read. */
export async function readSeal(memory: TensorMemory, id: string): Promise<CacheSeal | null> {
  const lease = await memory.acquire(sealId(id), { access: "read" });
  if (lease === null) return null;
  try {
    return parseSeal(lease.bytes);
  } finally {
    lease[Symbol.dispose]();
  }
}

function parseSeal(bytes: Uint8Array): CacheSeal | null {
  if (bytes.byteLength < HEADER_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wordAt = (at: number) => view.getUint32(at, true);
  const [version, tokenCount, textBytes, stride] = [wordAt(0), wordAt(4), wordAt(8), wordAt(12)];
  const tokensAt = HEADER_BYTES + textBytes;
  if (version !== VERSION || tokensAt + tokenCount * TOKEN_BYTES > bytes.byteLength) return null;
  // Decoders take no views of a shared memory.
  const fingerprint = new TextDecoder().decode(bytes.slice(HEADER_BYTES, tokensAt));
  const tokens = Array.from({ length: tokenCount }, (_, index) =>
    wordAt(tokensAt + index * TOKEN_BYTES),
  );
  return { fingerprint, tokens, stride };
}

/**
 * Refuses a cache of another model, or of other tokens than the caller means.
 *
 * @throws {MisuseError} `foreign-cache`; `token-mismatch`.
 */
export function checkSeal(
  seal: CacheSeal,
  fingerprint: string,
  tokens: ArrayLike<number> | undefined,
): void {
  if (seal.fingerprint !== fingerprint) {
    throw new MisuseError("foreign-cache", "the cache was computed by another model");
  }
  if (tokens === undefined) return;
  if (tokens.length === seal.tokens.length) {
    if (tokens.length > 0) countNewTokens(seal.tokens.slice(0, -1), tokens);
    if (tokens[tokens.length - 1] === seal.tokens[tokens.length - 1]) return;
  }
  const problem = `the cache holds ${seal.tokens.length} tokens, and not the ${tokens.length} given`;
  throw new MisuseError("token-mismatch", problem);
}

/**
 * Saves the tensors of a cache, and then the seal that makes them one: a cut in between leaves none.
 *
 * @param ids Of the tensors, without the seal.
 */
export async function saveSealed(
  memory: TensorMemory,
  id: string,
  ids: readonly string[],
  seal: CacheSeal,
  options: Parameters<TensorMemory["save"]>[1],
): Promise<"stored" | "no-space"> {
  // What an earlier save left must not be taken for the seal of these rows.
  await memory.delete(sealId(id));
  const outcomes: string[] = [];
  try {
    for (const each of ids) outcomes.push(await memory.save(each, options));
  } finally {
    await writeSeal(memory, id, seal);
  }
  return outcomes.includes("no-space") ? "no-space" : memory.save(sealId(id), options);
}
