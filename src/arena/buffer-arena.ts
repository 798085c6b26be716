// The dull arena: an ordinary ArrayBuffer. For tests, and for engines without WebAssembly memories
// to spare.
import { dtypeTraits } from "../types.js";
import type { ArenaFactory } from "./arena.js";

export const bufferArenas: ArenaFactory = (capacityBytes) => {
  let buffer: ArrayBuffer;
  try {
    buffer = new ArrayBuffer(capacityBytes);
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
  return {
    capacityBytes,
    anchor: buffer,
    bytes: (offset, byteLength) => new Uint8Array(buffer, offset, byteLength),
    view: (dtype, offset, byteLength) => {
      const { View, elementBytes } = dtypeTraits(dtype);
      return new View(buffer, offset, byteLength / elementBytes);
    },
    move: (source, target, byteLength) => {
      new Uint8Array(buffer).copyWithin(target, source, source + byteLength);
    },
  };
};
