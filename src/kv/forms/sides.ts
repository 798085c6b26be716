// Sides: how the keys, or the values, of one head of a page are coded. A page's rows are tokens, its
// columns the head's channels. Layer: kv.
//
//   chan  asymmetric per channel over a group of tokens: codes, then 16 steps and 16 minima a tile
//   q8    blocks of 32 with one scale each: codes, then scales
//   lm    rotated vectors with Lloyd-Max codes: codes, then gains
//
// Codes are those of docs/codec-format.md, without headers: shapes say how long they are.
import type { CodecWorkspace } from "../../core/codec-workspace.js";

const BLOCK_VALUES = 32;
/** Rows and columns that every side can code. */
export const SIDE_MULTIPLE = 16;
/** Vectors of `lm`: shorter ones no longer look Gaussian when rotated, longer ones gain nothing. */
const VECTOR_VALUES_MIN = 32;
const VECTOR_VALUES_MAX = 256;
const LM_SCRATCH_BYTES = 192 + VECTOR_VALUES_MAX;

/** Where one head's rows lie in the workspace. */
export interface SideRows {
  /** Address of `rows` × `columns` f32. Encoding may change them. */
  readonly values: number;
  readonly rows: number;
  readonly columns: number;
  /** Which head of the layer they are. */
  readonly head: number;
}

/** A way to code one head of a page. Rows and columns are multiples of {@link SIDE_MULTIPLE}. */
export interface Side {
  /** Tells what it depends on, beside the rows, from others of its kind; 0: nothing. */
  readonly basisKey: number;
  /** Bytes of a coded head; the same whatever the values. */
  byteLength(rows: number, columns: number): number;
  /** Most bytes that coding one head takes from the workspace, beside its rows and its codes. */
  scratchBytes(rows: number, columns: number): number;
  /** Writes `target` from finite values below 2¹⁵. */
  encode(workspace: CodecWorkspace, source: SideRows, target: number): void;
  /** Writes the values. */
  decode(workspace: CodecWorkspace, source: number, target: SideRows): void;
}

/** Room for either direction of `chan`: see the kernels. */
export function chanScratchBytes(rows: number, columns: number): number {
  return Math.max(16 * rows + 192, (8 + rows) * columns);
}

/** Per channel over `groupTokens` tokens, or over a whole page where that has fewer. */
export function chanSide(bits: number, groupTokens: number): Side {
  const groupBytes = (rows: number, columns: number) => ({
    codes: (rows * columns * bits) / 8,
    ranges: columns * 4,
  });
  const each = (
    { rows, columns }: SideRows,
    work: (first: number, rows: number, codesOffset: number, rangesOffset: number) => void,
  ) => {
    let offset = 0;
    for (let first = 0; first < rows; first += groupTokens) {
      const groupRows = Math.min(groupTokens, rows - first);
      const { codes, ranges } = groupBytes(groupRows, columns);
      work(first, groupRows, offset, offset + codes);
      offset += codes + ranges;
    }
  };
  return {
    basisKey: 0,
    byteLength: (rows, columns) => {
      const groups = Math.ceil(rows / groupTokens);
      return groupBytes(rows, columns).codes + groups * columns * 4;
    },
    scratchBytes: chanScratchBytes,
    encode: (workspace, source, target) => {
      const { values, rows, columns } = source;
      const scratch = workspace.take(chanScratchBytes(rows, columns));
      each(source, (first, groupRows, codes, ranges) => {
        workspace.kernels.chanEncode(
          values + first * columns * 4,
          columns * 4,
          groupRows,
          columns,
          bits,
          target + codes,
          target + ranges,
          scratch,
        );
      });
    },
    decode: (workspace, source, target) => {
      const { values, rows, columns } = target;
      const scratch = workspace.take(chanScratchBytes(rows, columns));
      each(target, (first, groupRows, codes, ranges) => {
        workspace.kernels.chanDecode(
          source + codes,
          source + ranges,
          groupRows,
          columns,
          bits,
          values + first * columns * 4,
          columns * 4,
          scratch,
        );
      });
    },
  };
}

/** Blocks of 32 at 8 bits. */
export const q8Side: Side = {
  basisKey: 0,
  byteLength: (rows, columns) => rows * columns + (rows * columns) / (BLOCK_VALUES / 2),
  scratchBytes: () => 0,
  encode: ({ kernels }, { values, rows, columns }, target) => {
    const count = rows * columns;
    kernels.q8Encode(values, target, target + count, count / BLOCK_VALUES);
  },
  decode: ({ kernels }, source, { values, rows, columns }) => {
    const count = rows * columns;
    kernels.q8Decode(source, source + count, values, count / BLOCK_VALUES);
  },
};

/** The largest power of two that divides the columns, or the smallest vector across their ends. */
function vectorValues(columns: number): number {
  const divisor = columns & -columns;
  return Math.min(VECTOR_VALUES_MAX, Math.max(VECTOR_VALUES_MIN, divisor));
}

/** Rotated vectors at 4, 3 or 2 bits. */
export function lmSide(bits: number): Side {
  return {
    basisKey: 0,
    byteLength: (rows, columns) => {
      const count = rows * columns;
      return (count * bits) / 8 + (count / vectorValues(columns)) * 2;
    },
    scratchBytes: () => LM_SCRATCH_BYTES,
    encode: (workspace, { values, rows, columns }, target) => {
      const count = rows * columns;
      const length = vectorValues(columns);
      const scratch = workspace.take(LM_SCRATCH_BYTES);
      const gains = target + (count * bits) / 8;
      const { lmEncode } = workspace.kernels;
      lmEncode(values, count / length, length, bits, target, gains, scratch);
    },
    decode: (workspace, source, { values, rows, columns }) => {
      const count = rows * columns;
      const length = vectorValues(columns);
      const scratch = workspace.take(LM_SCRATCH_BYTES);
      const gains = source + (count * bits) / 8;
      const { lmDecode } = workspace.kernels;
      lmDecode(source, gains, count / length, length, bits, values, 1, scratch);
    },
  };
}

/** Bits of a code, beside what ranges and gains cost. */
export type CodeBits = 8 | 4 | 3 | 2;

/** Keys per channel, values per token: the sides of the forms that need no basis. */
export function sidesOf(
  keyBits: CodeBits,
  valueBits: CodeBits,
): { readonly keys: Side; readonly values: Side } {
  const keys = chanSide(keyBits, keyBits === 2 ? 32 : 64);
  return { keys, values: valueBits === 8 ? q8Side : lmSide(valueBits) };
}
