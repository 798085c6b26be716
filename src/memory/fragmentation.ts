// Names for how scattered free space is.

/** Below 0.1, 0.3 and 0.6 of external fragmentation, and from 0.6 on. */
export type FragmentationLevel = "low" | "medium" | "high" | "critical";

/** Upwards. */
export const FRAGMENTATION_LEVELS: readonly FragmentationLevel[] = [
  "low",
  "medium",
  "high",
  "critical",
];

/** The level of an external fragmentation of 0 to 1. */
export function fragmentationLevel(externalFragmentation: number): FragmentationLevel {
  if (externalFragmentation < 0.1) return "low";
  if (externalFragmentation < 0.3) return "medium";
  return externalFragmentation < 0.6 ? "high" : "critical";
}
