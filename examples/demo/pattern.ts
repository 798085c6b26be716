// Bytes that anyone can check: they follow from the tensor's id alone.

/** What a tensor's bytes are found to be. */
export type Finding = "pattern" | "blank" | "damaged";

function seedOf(id: string): number {
  let seed = 0x811c9dc5;
  for (const unit of new TextEncoder().encode(id)) seed = Math.imul(seed ^ unit, 0x01000193);
  return seed | 1;
}

/** Calls `visit` with each byte of the pattern until it returns false. */
function walk(id: string, length: number, visit: (byte: number, index: number) => boolean): void {
  let state = seedOf(id);
  for (let index = 0; index < length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    if (!visit(state & 0xff, index)) return;
  }
}

export function writePattern(id: string, bytes: Uint8Array): void {
  walk(id, bytes.length, (byte, index) => {
    bytes[index] = byte;
    return true;
  });
}

export function findPattern(id: string, bytes: Uint8Array): Finding {
  let isPattern = true;
  walk(id, bytes.length, (byte, index) => {
    isPattern = bytes[index] === byte;
    return isPattern;
  });
  if (isPattern) return "pattern";
  return bytes.every((byte) => byte === 0) ? "blank" : "damaged";
}
