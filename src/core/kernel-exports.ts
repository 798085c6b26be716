// Raw exports of kernels.wasm. Every u32 result arrives signed. Addresses are bytes from the start of the
// memory that the module is instantiated on. Layer: core.
//
// Each function is described where it is written, in assembly/codec/, assembly/layout/ and assembly/kernels.ts.

/** What kernels.wasm offers, in every build of it. */
export interface KernelExports {
  kernelsHeapBase(): number;
  hashSetup(secretAddress: number): void;
  hashBegin(state: number): void;
  hashBlocks(state: number, secret: number, input: number, blockCount: number): void;
  hashEnd(state: number, secret: number, input: number, length: number, target: number): number;
  attendScoresChan(
    codes: number,
    ranges: number,
    pages: number,
    rows: number,
    d: number,
    bits: number,
    query: number,
    scores: number,
    scratch: number,
  ): void;
  attendScoresF32(keys: number, tokens: number, d: number, query: number, scores: number): void;
  attendScoresQ8(
    codes: number,
    scales: number,
    tokens: number,
    d: number,
    query: number,
    scores: number,
    scratch: number,
  ): void;
  attendSumF32(values: number, tokens: number, d: number, weights: number, target: number): void;
  attendSumLm4(
    codes: number,
    gains: number,
    tokens: number,
    d: number,
    weights: number,
    target: number,
    scratch: number,
  ): void;
  q4Decode(codes: number, scales: number, target: number, blockCount: number): void;
  q4Encode(source: number, codes: number, scales: number, blockCount: number): number;
  q4EncodeExact(source: number, codes: number, scales: number, blockCount: number): number;
  q8Decode(codes: number, scales: number, target: number, blockCount: number): void;
  q8Encode(source: number, codes: number, scales: number, blockCount: number): number;
  q8EncodeExact(source: number, codes: number, scales: number, blockCount: number): number;
  chanDecode(
    codes: number,
    ranges: number,
    rows: number,
    channels: number,
    bits: number,
    target: number,
    stride: number,
    scratch: number,
  ): void;
  chanEncode(
    source: number,
    stride: number,
    rows: number,
    channels: number,
    bits: number,
    codes: number,
    ranges: number,
    scratch: number,
  ): void;
  eigenSymmetric(
    matrix: number,
    n: number,
    values: number,
    vectors: number,
    wanted: number,
    scratch: number,
  ): void;
  bf16Decode(source: number, target: number, count: number): void;
  bf16Encode(source: number, target: number, count: number): void;
  f16Decode(source: number, target: number, count: number): void;
  f16Encode(source: number, target: number, count: number): void;
  huffmanCount(source: number, count: number, scratch: number): void;
  huffmanDecode(
    source: number,
    limit: number,
    lengths: number,
    sizes: number,
    target: number,
    count: number,
    scratch: number,
  ): number;
  huffmanEncode(
    source: number,
    count: number,
    lengths: number,
    target: number,
    sizes: number,
    scratch: number,
  ): number;
  huffmanLengths(scratch: number, lengths: number): number;
  lmDecode(
    codes: number,
    gains: number,
    count: number,
    d: number,
    bits: number,
    target: number,
    isRotatedBack: number,
    scratch: number,
  ): void;
  lmEncode(
    source: number,
    count: number,
    d: number,
    bits: number,
    codes: number,
    gains: number,
    scratch: number,
  ): void;
  matrixMirror(address: number, n: number): void;
  matrixMoments(address: number, n: number, target: number): void;
  matrixMultiply(
    left: number,
    leftRow: number,
    leftStep: number,
    right: number,
    rightRow: number,
    target: number,
    targetRow: number,
    rows: number,
    columns: number,
    depth: number,
    isSymmetric: number,
  ): void;
  matrixOrthonormalise(address: number, count: number, n: number): void;
  matrixTranspose(
    source: number,
    sourceRow: number,
    target: number,
    targetRow: number,
    rows: number,
    columns: number,
  ): void;
  measureError(source: number, decoded: number, count: number, target: number): void;
  measureMagnitude(source: number, count: number): number;
  measureMagnitudes(source: number, count: number, step: number, target: number): void;
  measurePage(
    source: number,
    stride: number,
    rows: number,
    columns: number,
    target: number,
    scratch: number,
  ): void;
  scaleValues(source: number, target: number, count: number, factor: number): void;
  planeJoin2(low: number, high: number, count: number, isTurned: number, target: number): void;
  planeJoin4(planes: number, pitch: number, count: number, isTurned: number, target: number): void;
  planeSplit2(source: number, count: number, isTurned: number, low: number, high: number): void;
  planeSplit4(source: number, count: number, isTurned: number, planes: number, pitch: number): void;
  hadamard(address: number, d: number): void;
  sparseCount(bitmap: number, byteCount: number): number;
  sparseDecode(bitmap: number, values: number, target: number, count: number): void;
  sparseEncode(
    source: number,
    count: number,
    thresholdBits: number,
    bitmap: number,
    values: number,
  ): number;
  axesSwap(source: number, target: number, outer: number, inner: number, rowBytes: number): void;
  rowsCopy(
    source: number,
    sourceStride: number,
    target: number,
    targetStride: number,
    rowBytes: number,
    count: number,
  ): void;
}
