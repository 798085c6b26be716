// Seam: the bytes of one arena. Which bytes are whose is the control plane's business.
import type { Dtype, TensorView } from "../types.js";

/** A contiguous region of fixed size that holds blocks. It never grows and never moves. */
export interface Arena {
  readonly capacityBytes: number;
  /** Bytes, for copying. The view aliases the arena and must not outlive the pin behind it. */
  bytes(offset: number, byteLength: number): Uint8Array<ArrayBuffer>;
  /** A typed array over the arena; `offset` is a multiple of the element's size. */
  view(dtype: Dtype, offset: number, byteLength: number): TensorView;
  /** Copies within the arena. The ranges may overlap. */
  move(sourceOffset: number, targetOffset: number, byteLength: number): void;
  /**
   * An object that lives as long as anything can still see the arena's memory. The budget counts a
   * dropped arena until this object was collected.
   */
  readonly anchor: object;
}

/** Creates an arena of exactly `capacityBytes`, or null when the platform has no room. */
export type ArenaFactory = (capacityBytes: number) => Arena | null;
