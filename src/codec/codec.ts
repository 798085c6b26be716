// Seam: how a tensor is written in fewer bytes. A record holds units one behind the other; each stands
// for a part of the tensor, says itself how long it is, and can be decoded alone. So encoding and
// decoding need memory for one part, however long the tensor is. Codecs see bytes, never tiers.
import type { Dtype, ErrorLimit, TensorKind } from "../types.js";

/** Number, in records, of the codec that writes units of docs/codec-format.md. */
export const CODEC_UNITS = 16;

/** How much a part may change. */
export interface PartLimit extends ErrorLimit {
  /** Slower inexact codecs are left out: bytes of f32 decoded per second. Default: none is. */
  readonly minBandwidth?: number;
}

/** A part of a tensor: whole elements that lie one behind the other. */
export interface TensorPart {
  /** Little-endian; of the length that {@link UnitCoder.partBytes} gives, or what is left. */
  readonly bytes: Uint8Array;
  readonly dtype: Dtype;
  /** Elements of the tensor's last dimension. */
  readonly columns: number;
  /** Null: every byte comes back as it was. */
  readonly limit: PartLimit | null;
  /** Whether factors of low rank may stand for it: not for keys, which have been rotated by position. */
  readonly mayFactor: boolean;
}

/** A part in its encoded form. */
export interface EncodedPart {
  /** At most {@link Codec.unitBytesMax}; valid until the next call of the coder. */
  readonly bytes: Uint8Array;
  /** Name of the codec that was used, such as `"plane"`. */
  readonly codec: string;
  /** Measured: as a metric of {@link ErrorLimit}; 0 if exact. */
  readonly relativeError: number;
  /** Measured: largest absolute error; 0 if exact. */
  readonly maxError: number;
}

/** A codec that is ready. Synchronous; one call at a time. */
export interface UnitCoder {
  /** Bytes of the head of a unit, which says how long the unit is. */
  readonly headBytes: number;
  /** Bytes of every part but the last of a tensor with rows of so many elements. */
  partBytes(dtype: Dtype, columns: number): number;
  /** The same part gives the same bytes, always. */
  encode(part: TensorPart): EncodedPart;
  /**
   * Encodes the part of a unit anew, within what its error has left of the limit. Errors add: that of
   * the result is a bound on its distance from the original, and so is what its head says.
   *
   * @param part As when it was encoded first, with the limit that held for the original.
   * @param room For the part.
   * @returns The unit itself where that has the fewest bytes; null if it is malformed.
   */
  recode(unit: Uint8Array, part: Omit<TensorPart, "bytes">, room: Uint8Array): EncodedPart | null;
  /** Bytes of the unit that begins with this head, or null if it is malformed or too long. */
  unitBytes(head: Uint8Array): number | null;
  /** Bytes of the part that the unit with this head stands for, as the head says; null if it says nonsense. */
  rawBytes(head: Uint8Array): number | null;
  /**
   * Decodes a unit to the start of `target`, which may be longer than the part.
   *
   * @returns Its codec, and the bytes of the part; or null if it is malformed, does not fit, or is of
   *   another element type. `target` may then hold anything.
   */
  decode(
    unit: Uint8Array,
    dtype: Dtype,
    target: Uint8Array,
  ): { readonly codec: string; readonly byteLength: number } | null;
}

/** What coding one part gave, without its bytes. */
export interface CodedPart extends Omit<EncodedPart, "bytes"> {
  /** Encoded: of the unit. Decoded: of the part. */
  readonly byteLength: number;
  readonly durationMs: number;
}

/** What a worker made of several parts, in their order. */
export interface CodedParts {
  /** All of them, one behind the other; empty when they were decoded in place. Valid until {@link release}. */
  readonly bytes: Uint8Array;
  readonly parts: readonly CodedPart[];
  /** Gives the worker its room back. Harmless when called again. */
  release(): void;
}

/** Several parts of a tensor, to be encoded by a worker: cut as {@link UnitCoder.partBytes} says. */
export type EncodeJob = TensorPart;

/** Several units, to be decoded by a worker. */
export interface DecodeJob {
  /** Units one behind the other. */
  readonly bytes: Uint8Array;
  readonly dtype: Dtype;
  /** Bytes of all parts together. */
  readonly rawBytes: number;
  /** Of that length. Shared memory is decoded into; otherwise the parts come back. */
  readonly target: Uint8Array;
}

/** What coding workers have done. */
export interface CodecWorkersStats {
  /** Workers that run now. */
  readonly workerCount: number;
  /** Jobs that they have done since the memory was created. */
  readonly jobCount: number;
  /** Workers that ended by themselves, or did not answer; their jobs were done by the caller's thread. */
  readonly failureCount: number;
}

/**
 * A worker of Node's `worker_threads` or of a browser, as far as it matters here: it runs the script that
 * the package exports as `tierheap/codec-worker`.
 */
export interface PlatformWorker {
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
  terminate(): unknown;
  /** Of Node's. */
  on?(event: string, listener: (value: unknown) => void): unknown;
  /** Of Node's: whether it keeps the process alive. */
  ref?(): void;
  unref?(): void;
  /** Of a browser's. */
  addEventListener?(type: string, listener: (event: { readonly data?: unknown }) => void): void;
}

/** Seam: starts a coding worker. What it throws means that there will be none. */
export type StartCodecWorker = () => PlatformWorker;

/** Threads that code beside the caller's. */
export interface CodecWorkers {
  /** Most bytes of the original in a job. */
  readonly jobBytesMax: number;
  /** Most bytes of its units: a little more. */
  readonly jobUnitBytesMax: number;
  /** Jobs that one transfer may have given and not taken back. */
  readonly windowCount: number;
  /** Resolves once there is one that can work, none will, or they take long to start. Never rejects. */
  load(): Promise<void>;
  /**
   * Gives a job to a worker. Its bytes are copied, unless they are shared: those stand still until the promise
   * settles, or nothing useful comes of it.
   *
   * @returns Null if none has room. Otherwise what was made of it, in time, or null if nothing was: the
   *   worker has ended or the parts are malformed, and it is for the caller to find out.
   */
  tryEncode(job: EncodeJob): Promise<CodedParts | null> | null;
  /** As {@link tryEncode}. The target is not written any more once the promise has settled. */
  tryDecode(job: DecodeJob): Promise<CodedParts | null> | null;
  stats(): CodecWorkersStats;
  /** Ends them. Jobs under way come to nothing. */
  close(): Promise<void>;
}

/** A resident tensor of a kind with a byte target. */
export interface TargetTensor {
  /** Who it is. */
  readonly key: object;
  /** Changes with its bytes. */
  readonly version: number;
  readonly dtype: Dtype;
  readonly columns: number;
  readonly rawBytes: number;
  /** The largest error that it may have. */
  readonly limit: PartLimit;
  readonly mayFactor: boolean;
  /** A view on a part of its bytes. */
  bytes(offset: number, byteLength: number): Uint8Array;
}

/** Seam: spreads byte budgets over the copies of whole kinds. Made by `byteTargets` of `tierheap/codecs`. */
export interface ByteTargets {
  has(kind: TensorKind): boolean;
  /** Bytes that further copies of a kind may take. */
  freeBytes(kind: TensorKind, usedBytes: number, tierFreeBytes: number): number;
  /**
   * The errors to try for a tensor that leaves, the smallest first; 0: exact.
   *
   * @param rivals Those of its kind that may have to leave later.
   * @remarks Encodes samples of tensors that it does not know yet.
   */
  choose(
    coder: UnitCoder,
    tensor: TargetTensor,
    rivals: readonly TargetTensor[],
    freeBytes: number,
  ): number[];
}

export interface Codec {
  /** Number in records; never reused. */
  readonly id: number;
  readonly name: string;
  /** Most bytes that a unit has. */
  readonly unitBytesMax: number;
  /** Linear memory that it takes once it is loaded. */
  readonly workspaceBytes: number;
  /**
   * Loads what is needed, once.
   *
   * @throws {OutOfMemoryError} The platform has no room for the workspace.
   */
  load(): Promise<UnitCoder>;
  /** Workers, or null: all coding is done by the caller's thread. Loads what is needed, once. */
  loadWorkers(): Promise<CodecWorkers | null>;
}
