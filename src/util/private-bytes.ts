// Bytes over a buffer of their own. Layer 0.
//
// Several platform APIs store, read late or refuse what lies in linear or shared memory, so tiers
// take and give nothing else. The brand makes a view of linear memory a type error there.

declare const isPrivate: unique symbol;

/** A `Uint8Array` over a private `ArrayBuffer`: never over linear, shared or resizable memory. */
export type PrivateBytes = Uint8Array<ArrayBuffer> & { readonly [isPrivate]: true };

/** Fresh, zeroed private bytes. */
export function privateBytes(byteLength: number): PrivateBytes {
  return new Uint8Array(byteLength) as PrivateBytes;
}

/** A private copy of any bytes. */
export function privateCopy(source: Uint8Array): PrivateBytes {
  const copy = privateBytes(source.byteLength);
  copy.set(source);
  return copy;
}

/**
 * A view of linear memory, to be filled by a reader of a tier whose `capabilities.readsInPlace` says that
 * it may. Whatever it shows must neither move nor be seen by anybody until the read has settled.
 */
export function lentBytes(view: Uint8Array): PrivateBytes {
  return view as PrivateBytes;
}

/** The parts from `start` on, and no more than `byteLength` bytes, of bytes that lie in several places. */
export function privateParts(
  sources: readonly PrivateBytes[],
  start: number,
  byteLength: number,
): PrivateBytes[] {
  const parts: PrivateBytes[] = [];
  let skipBytes = start;
  let roomBytes = byteLength;
  for (const source of sources) {
    const end = Math.min(source.byteLength, skipBytes + roomBytes);
    if (skipBytes < end) {
      parts.push(privatePart(source, skipBytes, end));
      roomBytes -= end - skipBytes;
    }
    skipBytes = Math.max(0, skipBytes - source.byteLength);
  }
  return parts;
}

/** Their length together. */
export function privateLength(sources: readonly PrivateBytes[]): number {
  let byteLength = 0;
  for (const source of sources) byteLength += source.byteLength;
  return byteLength;
}

/** A part of private bytes; it shares their buffer. */
export function privatePart(bytes: PrivateBytes, start: number, end: number): PrivateBytes {
  return bytes.subarray(start, end) as PrivateBytes;
}
