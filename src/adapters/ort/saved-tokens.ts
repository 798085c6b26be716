// What rows belong to: the tokens, the model, and which copies of the tensors hold them. Rows by
// themselves do not tell, so a record of it is saved beside them, after them. It names each copy by its
// generation: a tensor that was saved before or since holds other rows, and is a miss.
import { CorruptionError, MisuseError } from "../../errors.js";
import { Tensor } from "../../memory/tensor.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { readSeal } from "./cache-seal.js";

/** What a cache holds, and for whom. */
export interface CacheClaims {
  readonly fingerprint: string;
  readonly isTight: boolean;
  readonly tokens: readonly number[];
}

/** Claims that were saved. */
export interface SavedClaims extends CacheClaims {
  /** Of the saved record of each tensor, in the order of the cache's tensors. */
  readonly generations: readonly number[];
}

/** Claims of a seal: a decoder on a GPU has left the tensors. */
export interface SealedClaims extends CacheClaims {
  /** Tokens from one head to the next. */
  readonly stride: number;
}

export type SaveOptions = NonNullable<Parameters<TensorMemory["save"]>[1]>;

const FORMAT_VERSION = 1;

function idOf(cacheId: string): string {
  return `${cacheId}/tokens`;
}

/** Generation of the saved record that holds exactly a tensor's bytes, or null if there is none. */
export function savedGenerationOf(tensor: Tensor): number | null {
  const { cold, isClean } = Tensor.recordOf(tensor);
  return isClean && cold?.isSaved === true ? cold.generation : null;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && each >= 0);
}

function parseClaims(bytes: Uint8Array): SavedClaims | null {
  let value: Partial<SavedClaims> & { readonly version?: unknown };
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) ?? {};
  } catch {
    // Whatever has that id is no such record.
    return null;
  }
  const { version, fingerprint, isTight, tokens, generations } = value;
  const isWhole =
    version === FORMAT_VERSION &&
    typeof fingerprint === "string" &&
    typeof isTight === "boolean" &&
    isCounts(tokens) &&
    isCounts(generations);
  return isWhole ? { fingerprint, isTight, tokens, generations } : null;
}

/** Frees a tensor, unless somebody reads it at this moment. */
function release(memory: TensorMemory, id: string): void {
  try {
    memory.tensor(id)?.[Symbol.dispose]();
  } catch (error) {
    if (!(error instanceof MisuseError) || error.code !== "pinned") throw error;
  }
}

/**
 * @returns null when there is no such record, or a damaged one.
 * @throws As `TensorMemory.acquire`.
 */
export async function readClaims(
  memory: TensorMemory,
  cacheId: string,
): Promise<SavedClaims | null> {
  const id = idOf(cacheId);
  try {
    const lease = await memory.acquire(id, { access: "read" });
    if (lease === null) return null;
    const claims = parseClaims(lease.bytes.slice());
    lease[Symbol.dispose]();
    return claims;
  } catch (error) {
    // The rows can be computed again.
    if (error instanceof CorruptionError) return null;
    throw error;
  } finally {
    release(memory, id);
  }
}

/**
 * @param isTight Of the cache that is opened: a seal tells no mode, only the stride.
 * @returns null when there is no seal, or a damaged one.
 * @throws As `TensorMemory.acquire`.
 */
export async function readSealedClaims(
  memory: TensorMemory,
  cacheId: string,
  isTight: boolean,
): Promise<SealedClaims | null> {
  try {
    const seal = await readSeal(memory, cacheId);
    return seal && { ...seal, isTight };
  } catch (error) {
    // The rows can be computed again.
    if (error instanceof CorruptionError) return null;
    throw error;
  }
}

/**
 * Makes tensors resident and looks whether they will do. Those that were found in a tier for it, and will
 * not do, do not keep their ids from a new cache.
 *
 * @param take Called in the turn in which all of them are resident.
 * @returns What `take` says; false when one of them is gone or damaged.
 * @throws As `TensorMemory.acquireChain`.
 */
export async function withAdopted(
  memory: TensorMemory,
  ids: readonly string[],
  take: () => boolean,
): Promise<boolean> {
  const absentIds = ids.filter((id) => memory.tensor(id) === null);
  let isTaken = false;
  try {
    const leases = await memory.acquireChain(ids, { access: "read" });
    for (const lease of leases ?? []) lease[Symbol.dispose]();
    isTaken = leases !== null && take();
  } catch (error) {
    // The rows can be computed again.
    if (!(error instanceof CorruptionError)) throw error;
  } finally {
    if (!isTaken) for (const id of absentIds) release(memory, id);
  }
  return isTaken;
}

/**
 * Saves tensors, and then what is claimed of them.
 *
 * @throws As `TensorMemory.save`.
 */
export async function saveCache(
  memory: TensorMemory,
  cacheId: string,
  { tensors, ...claims }: CacheClaims & { readonly tensors: readonly Tensor[] },
  options: SaveOptions,
): Promise<"stored" | "no-space"> {
  for (const { id } of tensors) {
    if ((await memory.save(id as string, options)) === "no-space") return "no-space";
  }
  // What was written meanwhile is not what was saved: no generation, and so a miss.
  const generations = tensors.map((tensor) => savedGenerationOf(tensor) ?? 0);
  return writeClaims(memory, cacheId, { ...claims, generations }, options);
}

/**
 * Saves what was claimed of tensors that are saved already.
 *
 * @throws {MisuseError} `duplicate-id` — a tensor of that id is in use. @throws As `TensorMemory.save`.
 */
async function writeClaims(
  memory: TensorMemory,
  cacheId: string,
  claims: SavedClaims,
  options: SaveOptions,
): Promise<"stored" | "no-space"> {
  const id = idOf(cacheId);
  const text = JSON.stringify({ version: FORMAT_VERSION, ...claims });
  const bytes = new TextEncoder().encode(text);
  await memory.reserve({ kind: "KV_CACHE", bytes: bytes.byteLength });
  release(memory, id);
  const { byteLength } = bytes;
  const tensor = memory.allocate({ kind: "KV_CACHE", id, byteLength, budget: "exact" });
  try {
    const pin = tensor.pin();
    pin.view.set(bytes);
    pin[Symbol.dispose]();
    return await memory.save(id, options);
  } finally {
    tensor[Symbol.dispose]();
  }
}

/** Deletes a cache's records, the one without which the others are none first. @returns Whether any was there. */
export async function deleteCache(
  memory: TensorMemory,
  cacheId: string,
  tensorIds: readonly string[],
): Promise<boolean> {
  let existed = await memory.delete(idOf(cacheId));
  for (const id of tensorIds) existed = (await memory.delete(id)) || existed;
  return existed;
}
