// The floor under every figure: a call into WebAssembly that does nothing. Its loops and arrays are
// those of the others, so what is above the floor is the allocator's own.

// prettier-ignore
const MODULE = Uint8Array.of(
  0x00,
  0x61,
  0x73,
  0x6d,
  0x01,
  0x00,
  0x00,
  0x00,
  0x01,
  0x0a,
  0x02,
  0x60,
  0x01,
  0x7f,
  0x01,
  0x7f,
  0x60,
  0x01,
  0x7f,
  0x00, // (i32) → i32, (i32)
  0x03,
  0x03,
  0x02,
  0x00,
  0x01,
  0x07,
  0x13,
  0x02,
  0x08,
  0x61,
  0x6c,
  0x6c,
  0x6f,
  0x63,
  0x61,
  0x74,
  0x65,
  0x00,
  0x00, // "allocate"
  0x04,
  0x66,
  0x72,
  0x65,
  0x65,
  0x00,
  0x01, // "free"
  0x0a,
  0x09,
  0x02,
  0x04,
  0x00,
  0x20,
  0x00,
  0x0b, // local.get 0
  0x02,
  0x00,
  0x0b,
);

export const floor = {
  id: "floor",
  title: "floor: empty wasm call",
  open: async (capacities) => {
    const { instance } = await WebAssembly.instantiate(MODULE);
    return capacities.map(() => instance.exports);
  },
  source: {
    prepare: "const { allocate, free } = heap; const handles = new Int32Array(placeCount);",
    allocate: "handles[place] = allocate(bytes);",
    free: "free(handles[place]);",
  },
};
