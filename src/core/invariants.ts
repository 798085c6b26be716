// Names of the core's invariants. Layer: core.

/** `INV-TREE-2` and so on, for a code that {@link ControlPlane.check} returned. */
export function invariantName(code: number): string {
  const modules = new Map([
    [1, "TREE"],
    [2, "SLOT"],
    [3, "ARENA"],
    [4, "POOL"],
    [5, "REGION"],
    [6, "SLAB"],
    [7, "CACHE"],
  ]);
  return `INV-${modules.get(Math.floor(code / 100)) ?? "UNKNOWN"}-${code % 100}`;
}
