// Which resident tensors a cache may take over: those that another cache holds, or that were left with claims.
import { Tensor } from "../../memory/tensor.js";
import type { KvEntry } from "../onnx/decoder-graph.js";
import { type CachePlan, fits } from "./cache-plan.js";
import { restride } from "./layout.js";
import {
  type CacheClaims,
  type SavedClaims,
  type SealedClaims,
  savedGenerationOf,
} from "./saved-tokens.js";

/** A tensor of a cache, with what was known of it when a step last ended. */
export interface Held {
  readonly tensor: Tensor<"f32" | "f16">;
  readonly entry: KvEntry;
  version: number;
}

/** Moves the rows of a tensor to another stride; none of them with null. */
export function restrideHeld(
  { tensor, entry }: Held,
  from: number,
  to: number,
  usedTokens: number | null,
): void {
  if (usedTokens === null) return;
  const pin = tensor.pin();
  restride(pin.view, entry, from, to, usedTokens);
  pin[Symbol.dispose]();
}

export type Claims = CacheClaims | SavedClaims | SealedClaims;

/**
 * The tensors of a cache, as far as all of them fit and are what was claimed.
 *
 * @param ids Of its tensors, in the order of the plan's entries.
 * @param held Those of the cache that has made the claims, or null: they were saved or sealed.
 */
export function findClaimed(
  { entries, memory, isTight }: CachePlan,
  ids: readonly string[],
  claims: Claims,
  held: readonly Held[] | null,
): { readonly held: Held[]; readonly capacityTokens: number } | null {
  const tensors = ids.map((id) => memory.tensor(id));
  const capacityTokens = tensors[0]?.shape[2] ?? 0;
  const tokenCount = claims.tokens.length;
  if (capacityTokens < tokenCount) return null;
  const stride = isTight ? tokenCount : capacityTokens;
  if ("stride" in claims && claims.stride !== stride) return null;
  const isClaimed = (tensor: Tensor, index: number) => {
    // Rows are only added behind those that a seal names.
    if ("stride" in claims) return true;
    if ("generations" in claims) return savedGenerationOf(tensor) === claims.generations[index];
    const own = held?.[index];
    return own !== undefined && Tensor.recordOf(own.tensor) === Tensor.recordOf(tensor);
  };
  const found: Held[] = [];
  for (const [index, entry] of entries.entries()) {
    const tensor = tensors[index] ?? null;
    if (tensor === null || !fits(tensor, entry, capacityTokens)) return null;
    if (!isClaimed(tensor, index)) return null;
    const { version } = Tensor.recordOf(tensor);
    found.push({ tensor: tensor as Tensor<"f32" | "f16">, entry, version });
  }
  return { held: found, capacityTokens };
}
