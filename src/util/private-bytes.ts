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

/** A part of private bytes; it shares their buffer. */
export function privatePart(bytes: PrivateBytes, start: number, end: number): PrivateBytes {
  return bytes.subarray(start, end) as PrivateBytes;
}
