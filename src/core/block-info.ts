// Blocks and their moves, as the host speaks of them. Layer: core.

/** One block of an arena, as the map shows it. */
export interface BlockInfo {
  readonly slot: number;
  readonly offset: number;
  readonly grantedBytes: number;
  readonly requestedBytes: number;
  readonly pinCount: number;
}

/** What names a live block. */
export interface BlockHandle {
  readonly slot: number;
  readonly generation: number;
}

/** A handle that `ControlPlane.freeAll` could not free, by its place in what was given. */
export interface FreeRefusal {
  readonly index: number;
  readonly error: Error;
}

/** A planned move of one block, in bytes from the base of the arena in which each place is. */
export interface Move {
  readonly slot: number;
  /** Arena that the block moves into: its own one unless that is evacuated. */
  readonly into: number;
  readonly sourceOffset: number;
  readonly targetOffset: number;
  readonly byteLength: number;
}
