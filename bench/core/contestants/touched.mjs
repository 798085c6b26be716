// Memory whose pages exist. Allocators that keep their lists among the blocks would else be charged
// for the first touch of each page, which belongs to whoever writes the tensor.

const PAGE_BYTES = 4096;

/** @param buffer Still all zeros. */
export function touched(buffer) {
  const bytes = new Uint8Array(buffer);
  for (let offset = 0; offset < bytes.length; offset += PAGE_BYTES) bytes[offset] = 0;
  return buffer;
}
