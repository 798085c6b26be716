// The dull codec: bytes as they are.
import type { Codec } from "./codec.js";

export const rawCodec: Codec = {
  id: 0,
  name: "raw",
  isLossless: true,
  storedBytes: (rawBytes) => rawBytes,
  encode: (source, target) => {
    target.set(source);
    return source.byteLength;
  },
  decode: (source, target) => {
    target.set(source);
    return source.byteLength;
  },
};
