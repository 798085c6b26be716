// The dull codec: a unit is the bytes of its part, behind their number and element type.
import { dtypeTraits } from "../types.js";
import type { Codec, UnitCoder } from "./codec.js";

const HEAD_BYTES = 8;
const PART_BYTES = 4096;

const coder: UnitCoder = {
  headBytes: HEAD_BYTES,
  partBytes: () => PART_BYTES,
  encode: ({ bytes, dtype }) => {
    const unit = new Uint8Array(HEAD_BYTES + bytes.byteLength);
    const view = new DataView(unit.buffer);
    view.setUint32(0, bytes.byteLength, true);
    view.setUint32(4, dtypeTraits(dtype).id, true);
    unit.set(bytes, HEAD_BYTES);
    return { bytes: unit, codec: "plain", relativeError: 0, maxError: 0 };
  },
  unitBytes: (head) => {
    const byteLength = new DataView(head.buffer, head.byteOffset).getUint32(0, true);
    return byteLength < 1 || byteLength > PART_BYTES ? null : HEAD_BYTES + byteLength;
  },
  recode: (unit) => ({ bytes: unit, codec: "plain", relativeError: 0, maxError: 0 }),
  rawBytes: (head) => new DataView(head.buffer, head.byteOffset).getUint32(0, true),
  decode: (unit, dtype, target) => {
    const bytes = unit.subarray(HEAD_BYTES);
    const { id } = dtypeTraits(dtype);
    const isWhole = coder.unitBytes(unit) === unit.byteLength && unit[4] === id;
    if (!isWhole || bytes.byteLength > target.byteLength) return null;
    target.set(bytes);
    return { codec: "plain", byteLength: bytes.byteLength };
  },
};

export const plainCodec: Codec = {
  id: 255,
  name: "plain",
  unitBytesMax: HEAD_BYTES + PART_BYTES,
  workspaceBytes: 0,
  load: async () => coder,
  loadWorkers: async () => null,
};
