// Makes safetensors files by hand, whole and broken, without the code under test.

/** A file of this header text and these tensor bytes. */
export function fileOf(
  header: string | Uint8Array,
  dataBytes: number | Uint8Array = 0,
): Uint8Array {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const data = typeof dataBytes === "number" ? new Uint8Array(dataBytes) : dataBytes;
  const file = new Uint8Array(8 + text.byteLength + data.byteLength);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.byteLength), true);
  file.set(text, 8);
  file.set(data, 8 + text.byteLength);
  return file;
}

/** The header text of one entry. */
export function entryOf(name: string, dtype: unknown, shape: unknown, offsets: unknown): string {
  const value = JSON.stringify({ dtype, shape, data_offsets: offsets });
  return `${JSON.stringify(name)}:${value}`;
}

function withLength(length: bigint): Uint8Array {
  const file = fileOf(`{${entryOf("a", "U8", [4], [0, 4])}}`, 4);
  new DataView(file.buffer).setBigUint64(0, length, true);
  return file;
}

const A = entryOf("a", "U8", [4], [0, 4]);
const utf8 = new TextEncoder();

/** What is wrong, the code of its refusal, and the file. */
export const MALFORMED_FILES: readonly (readonly [what: string, code: string, file: Uint8Array])[] =
  [
    ["no bytes", "too-short", new Uint8Array(0)],
    ["seven bytes", "too-short", new Uint8Array(7)],
    ["a length bomb", "header-length", withLength(2n ** 64n - 1n)],
    ["a length at the sign bit", "header-length", withLength(2n ** 63n)],
    ["a header longer than the format allows", "header-length", withLength(100_000_001n)],
    ["a header longer than the file", "header-length", withLength(1000n)],
    ["an empty header", "header-json", fileOf("")],
    ["a header that is not UTF-8", "header-text", fileOf(Uint8Array.of(0x7b, 0xff, 0xfe, 0x7d))],
    ["an overlong UTF-8 form", "header-text", fileOf(Uint8Array.of(0x7b, 0xc0, 0xaf, 0x7d))],
    ["a byte order mark", "header-json", fileOf(Uint8Array.of(0xef, 0xbb, 0xbf, 0x7b, 0x7d))],
    ["white space before the header", "header-json", fileOf(` {${A}}`, 4)],
    ["JSON that is cut off", "header-json", fileOf(`{${A}`, 4)],
    ["JSON with more behind it", "header-json", fileOf(`{${A}}{}`, 4)],
    ["JSON with a comma too many", "header-json", fileOf(`{${A},}`, 4)],
    ["JSON padded with zeros", "header-json", fileOf(`{${A}}\0\0`, 4)],
    ["an array", "header-json", fileOf("[]")],
    ["deep nesting", "header-json", fileOf(`{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}`)],
    ["the same name twice", "duplicate-name", fileOf(`{${A},${A}}`, 4)],
    [
      "the same name, escaped",
      "duplicate-name",
      fileOf(`{${A},${A.replace('"a"', '"\\u0061"')}}`, 4),
    ],
    [
      "the same field twice",
      "duplicate-name",
      fileOf('{"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}}', 4),
    ],
    ["metadata twice", "duplicate-name", fileOf('{"__metadata__":{},"__metadata__":{}}')],
    ["metadata that is text", "bad-metadata", fileOf('{"__metadata__":"pt"}')],
    ["metadata that is a list", "bad-metadata", fileOf('{"__metadata__":["pt"]}')],
    ["metadata with a number", "bad-metadata", fileOf('{"__metadata__":{"step":1}}')],
    ["metadata within metadata", "bad-metadata", fileOf('{"__metadata__":{"a":{"b":"c"}}}')],
    [
      "half a surrogate pair as a name",
      "bad-name",
      fileOf(`{${A.replace('"a"', '"\\ud800"')}}`, 4),
    ],
    ["an entry that is text", "bad-entry", fileOf('{"a":"U8"}')],
    ["an entry that is null", "bad-entry", fileOf('{"a":null}')],
    ["an entry without dtype", "bad-entry", fileOf('{"a":{"shape":[4],"data_offsets":[0,4]}}', 4)],
    ["an entry without shape", "bad-entry", fileOf('{"a":{"dtype":"U8","data_offsets":[0,4]}}', 4)],
    ["an entry without offsets", "bad-entry", fileOf('{"a":{"dtype":"U8","shape":[4]}}', 4)],
    ["one offset", "bad-entry", fileOf(`{${entryOf("a", "U8", [4], [0])}}`, 4)],
    ["three offsets", "bad-entry", fileOf(`{${entryOf("a", "U8", [4], [0, 2, 4])}}`, 4)],
    ["offsets that are text", "bad-entry", fileOf(`{${entryOf("a", "U8", [4], ["0", "4"])}}`, 4)],
    ["an unknown dtype", "bad-dtype", fileOf(`{${entryOf("a", "F7", [4], [0, 4])}}`, 4)],
    ["our name of a dtype", "bad-dtype", fileOf(`{${entryOf("a", "u8", [4], [0, 4])}}`, 4)],
    [
      "a dtype of every object",
      "bad-dtype",
      fileOf(`{${entryOf("a", "__proto__", [4], [0, 4])}}`, 4),
    ],
    ["a shape with text", "bad-shape", fileOf(`{${entryOf("a", "U8", ["4"], [0, 4])}}`, 4)],
    ["a shape with null", "bad-shape", fileOf(`{${entryOf("a", "U8", [null], [0, 4])}}`, 4)],
    ["a negative dimension", "header-json", fileOf(`{${entryOf("a", "U8", [-4], [0, 4])}}`, 4)],
    ["a fractional dimension", "header-json", fileOf(`{${entryOf("a", "U8", [1.5], [0, 4])}}`, 4)],
    ["a dimension written 4.0", "header-json", fileOf(`{${A.replace("[4]", "[4.0]")}}`, 4)],
    ["a dimension written 4e0", "header-json", fileOf(`{${A.replace("[4]", "[4e0]")}}`, 4)],
    ["an offset of minus zero", "header-json", fileOf(`{${A.replace("[0,", "[-0,")}}`, 4)],
    ["a number past 2^53", "header-json", fileOf(`{${A.replace("[4]", "[9007199254740993]")}}`, 4)],
    [
      "a product past 2^53",
      "overflow",
      fileOf(`{${entryOf("a", "F32", [2 ** 30, 2 ** 30], [0, 4])}}`, 4),
    ],
    [
      "a product past 2^53 times none",
      "overflow",
      fileOf(`{${entryOf("a", "F32", [2 ** 30, 2 ** 30, 0], [0, 0])}}`),
    ],
    [
      "a shape too long for its bytes",
      "size-mismatch",
      fileOf(`{${entryOf("a", "F32", [2], [0, 4])}}`, 4),
    ],
    [
      "a shape too short for its bytes",
      "size-mismatch",
      fileOf(`{${entryOf("a", "U8", [2], [0, 4])}}`, 4),
    ],
    ["half a byte", "size-mismatch", fileOf(`{${entryOf("a", "F4", [1], [0, 1])}}`, 1)],
    [
      "offsets that run backwards",
      "bad-offsets",
      fileOf(`{${entryOf("a", "U8", [4], [4, 0])}}`, 4),
    ],
    ["tensors that overlap", "bad-offsets", fileOf(`{${A},${entryOf("b", "U8", [4], [2, 6])}}`, 6)],
    [
      "two tensors on one place",
      "bad-offsets",
      fileOf(`{${A},${entryOf("b", "U8", [4], [0, 4])}}`, 4),
    ],
    [
      "a hole between tensors",
      "bad-offsets",
      fileOf(`{${A},${entryOf("b", "U8", [4], [8, 12])}}`, 12),
    ],
    ["a hole before the first", "bad-offsets", fileOf(`{${entryOf("a", "U8", [4], [4, 8])}}`, 8)],
    ["a tensor behind the file", "bad-offsets", fileOf(`{${A}}`, 3)],
    ["an empty tensor far away", "bad-offsets", fileOf(`{${entryOf("a", "U8", [0], [9, 9])}}`)],
    ["bytes behind the last tensor", "trailing-bytes", fileOf(`{${A}}`, 5)],
    ["bytes without any tensor", "trailing-bytes", fileOf("{}", 1)],
  ];

/** Random printable header noise: what a fuzzer puts in the place of a byte. */
export const HEADER_BYTES = utf8.encode('{}[]",:0123456789-.eE \\abdfhstuFIU_\0\xff');
