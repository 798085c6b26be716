// Moves rows inside of KV tensors [1, heads, tokens, headDim], whose heads lie `stride` tokens apart.

type Elements = Float32Array | Uint16Array;

/** Shape of the rows: how many heads, and how many elements one head has per token. */
export interface RowShape {
  readonly heads: number;
  readonly headDim: number;
}

/** So many elements are copied one by one: a view for them would cost more. */
const SHORT_ROW_ELEMENTS = 512;

/**
 * Gives the heads another stride, in place. Tokens from `usedTokens` on become zeros.
 *
 * @param target Long enough for both strides.
 * @param usedTokens At most either stride.
 */
export function restride(
  target: Elements,
  { heads, headDim }: RowShape,
  from: number,
  to: number,
  usedTokens: number,
): void {
  const usedElements = usedTokens * headDim;
  for (let count = 0; count < heads; count++) {
    // Growing, the last head first: no head may run over one that has not moved yet.
    const head = to > from ? heads - 1 - count : count;
    const source = head * from * headDim;
    const place = head * to * headDim;
    target.copyWithin(place, source, source + usedElements);
    target.fill(0, place + usedElements, place + to * headDim);
  }
}

/**
 * Writes new rows [1, heads, rowTokens, headDim] behind the first `usedTokens` tokens of each head.
 *
 * @param stride Tokens from one head to the next, at least `usedTokens + rowTokens`.
 * @remarks Makes no view for the rows of a decode step.
 */
export function writeRows(
  target: Elements,
  rows: Elements,
  { heads, headDim }: RowShape,
  stride: number,
  usedTokens: number,
  rowTokens: number,
): void {
  const rowElements = rowTokens * headDim;
  for (let head = 0; head < heads; head++) {
    const source = head * rowElements;
    const place = (head * stride + usedTokens) * headDim;
    if (rowElements > SHORT_ROW_ELEMENTS) {
      target.set(rows.subarray(source, source + rowElements), place);
      continue;
    }
    for (let index = 0; index < rowElements; index++) {
      target[place + index] = rows[source + index] as number;
    }
  }
}

/**
 * Copies the first `usedTokens` tokens of each head to tensors of another stride.
 *
 * @param target Of `targetStride`, whose other tokens stay as they are.
 */
export function copyRows(
  target: Elements,
  targetStride: number,
  source: Elements,
  sourceStride: number,
  { heads, headDim }: RowShape,
  usedTokens: number,
): void {
  for (let head = 0; head < heads; head++) {
    const from = head * sourceStride * headDim;
    target.set(source.subarray(from, from + usedTokens * headDim), head * targetStride * headDim);
  }
}

/** Makes everything zeros but the first `usedTokens` tokens of each head. */
export function clearBehind(
  target: Elements,
  { heads, headDim }: RowShape,
  stride: number,
  usedTokens: number,
): void {
  for (let head = 0; head < heads; head++) {
    target.fill(0, (head * stride + usedTokens) * headDim, (head + 1) * stride * headDim);
  }
  target.fill(0, heads * stride * headDim);
}

const PAGE_TOKENS_MIN = 8;
const PAGE_TOKENS_MAX = 64;
/** A page is at most so small a part of what is before it. */
const PAGES_MIN = 16;

/**
 * Capacity for so many tokens. Padding is computed at every step and a growth copies everything once, so
 * pages are short where all is short.
 */
export function pagedTokens(tokenCount: number, pageTokens: number | null): number {
  const part = 2 ** Math.floor(Math.log2(tokenCount / PAGES_MIN));
  const page = pageTokens ?? Math.min(Math.max(part, PAGE_TOKENS_MIN), PAGE_TOKENS_MAX);
  return Math.ceil(tokenCount / page) * page;
}
