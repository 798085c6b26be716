// A RAM arena: one fixed-size WebAssembly memory. Creating one commits no resident bytes until they
// are touched; dropping one gives them back after a collection.
import { LinearMemory, type MemoryFactory } from "../core/linear-memory.js";
import type { ArenaFactory } from "./arena.js";

export function linearArenas(createMemory: MemoryFactory): ArenaFactory {
  return (capacityBytes) => {
    const memory = LinearMemory.tryCreate(capacityBytes, createMemory);
    if (memory === null) return null;
    return {
      capacityBytes,
      anchor: memory.anchor,
      bytes: (offset, byteLength) => memory.bytes(offset, byteLength),
      view: (dtype, offset, byteLength) => memory.view(dtype, offset, byteLength),
      move: (source, target, byteLength) => memory.move(source, target, byteLength),
    };
  };
}
