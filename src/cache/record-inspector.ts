// What a stack of tiers has to know about the objects that it moves: that they are records.
import type { Hasher } from "../core/hash-stream.js";
import { decodeHeader, TRAILER_BYTES } from "../record/record.js";
import type { ObjectHints } from "../tier/tier.js";

/** Checks one object while it passes, from its first byte to its last. */
export interface ObjectCheck {
  update(bytes: Uint8Array): void;
  /** Whether the object is what was once written. */
  end(): boolean;
  /** Harmless after {@link end}. */
  discard(): void;
}

export interface ObjectInspector {
  /** @param bytes The object's beginning. @returns null when it does not say. */
  describe(bytes: Uint8Array): ObjectHints | null;
  openCheck(byteLength: number): ObjectCheck;
}

export function recordInspector(hasher: Hasher): ObjectInspector {
  return {
    describe: (bytes) => {
      const decoded = decodeHeader(bytes);
      return decoded.verdict === "valid" ? decoded.header : null;
    },
    openCheck: (byteLength) => {
      const hash = hasher.open();
      const trailer = new Uint8Array(TRAILER_BYTES);
      const endOffset = byteLength - TRAILER_BYTES;
      let offset = 0;
      return {
        update: (bytes) => {
          const hashed = Math.max(0, Math.min(bytes.byteLength, endOffset - offset));
          hash.update(bytes.subarray(0, hashed));
          if (hashed < bytes.byteLength) {
            trailer.set(bytes.subarray(hashed), Math.max(0, offset + hashed - endOffset));
          }
          offset += bytes.byteLength;
        },
        end: () => {
          if (offset !== byteLength || endOffset <= 240) {
            hash.discard();
            return false;
          }
          return hash.end().every((byte, index) => byte === trailer[index]);
        },
        discard: () => hash.discard(),
      };
    },
  };
}
