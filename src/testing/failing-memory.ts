// A memory factory that counts, and refuses as a platform without room does.
import {
  createUnsharedMemory,
  type MemoryFactory,
  WASM_PAGE_BYTES,
} from "../core/linear-memory.js";

export interface CountingMemory {
  readonly createMemory: MemoryFactory;
  /** Creations asked for, refused ones included; the first is number 1. */
  readonly requestCount: number;
  readonly refusedCount: number;
  /** Bytes of all memories ever created. */
  readonly createdBytes: number;
}

/** @param refuses Whether the n-th creation fails. Default: none does. */
export function countingMemory(
  refuses: (request: number) => boolean = () => false,
): CountingMemory {
  let requestCount = 0;
  let refusedCount = 0;
  let createdBytes = 0;
  return {
    createMemory: (pages) => {
      requestCount += 1;
      if (refuses(requestCount)) {
        refusedCount += 1;
        throw new RangeError("could not allocate memory (injected)");
      }
      createdBytes += pages * WASM_PAGE_BYTES;
      return createUnsharedMemory(pages);
    },
    get requestCount() {
      return requestCount;
    },
    get refusedCount() {
      return refusedCount;
    },
    get createdBytes() {
      return createdBytes;
    },
  };
}
