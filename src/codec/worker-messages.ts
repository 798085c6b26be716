// What the thread of a memory and its coding workers say to each other, and the worker's side of it.
// Knows no platform: a worker is whatever answers messages.
import { systemClock } from "../clock.js";
import { createUnsharedMemory } from "../core/linear-memory.js";
import type { WasmSource } from "../core/module-instance.js";
import type { CodedPart, DecodeJob, EncodeJob, UnitCoder } from "./codec.js";
import { createUnitCoder } from "./unit-coder.js";

/** Lengths that decide a unit's bytes: the same in every thread. */
export interface UnitLengths {
  readonly workspaceBytes: number;
  readonly partBytesMax: number;
  readonly unitBytesMax: number;
  /** Names of codecs that are not chosen. */
  readonly without: readonly string[];
}

/** The first message to a worker; its answer has the number 0, or −1 if it cannot work. */
export interface WorkerStart {
  /** Compiled. */
  readonly kernels: WasmSource;
  readonly lengths: UnitLengths;
}

/** Every other message to a worker. */
export interface WorkerRequest {
  /** From 1. */
  readonly jobId: number;
  readonly job: WorkerJob;
  readonly room: Room;
}

/** A job of `codec.ts`, with its bytes in the room or in shared memory. */
export type WorkerJob =
  | ({ readonly type: "encode"; readonly source: Source } & Omit<EncodeJob, "bytes">)
  | ({
      readonly type: "decode";
      readonly source: Source;
      readonly target: Uint8Array | null;
    } & Omit<DecodeJob, "bytes" | "target">);

/** Shared bytes, or how many of the room's input. */
type Source = Uint8Array | number;

/** Buffers of one job: both threads see them, or they are handed to and fro. */
export interface Room {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
}

export interface WorkerAnswer {
  readonly jobId: number;
  readonly room: Room | null;
  /** null: nothing came of it. */
  readonly parts: readonly CodedPart[] | null;
}

/** What must be handed over with a room. */
export function transferOf({ input, output }: Room): ArrayBuffer[] {
  return [input.buffer, output.buffer].filter((buffer) => buffer instanceof ArrayBuffer);
}

/**
 * Serves the messages of one thread, in their order.
 *
 * @returns Takes the next message.
 */
export function serveCodec(
  answer: (answer: WorkerAnswer, transfer: ArrayBuffer[]) => void,
): (message: unknown) => Promise<void> {
  let loading: Promise<UnitCoder> | null = null;
  return async (message) => {
    if (loading === null) {
      const { kernels, lengths } = message as WorkerStart;
      loading = createUnitCoder({ ...lengths, createMemory: createUnsharedMemory, wasm: kernels });
      const canWork = await loading.then(
        () => true,
        () => false,
      );
      answer({ jobId: canWork ? 0 : -1, room: null, parts: null }, []);
      return;
    }
    const coder = await loading;
    const { jobId, job, room } = message as WorkerRequest;
    const { source } = job;
    const bytes = typeof source === "number" ? room.input.subarray(0, source) : source;
    let parts: CodedPart[] | null = null;
    try {
      parts =
        job.type === "encode"
          ? encodeParts(coder, { ...job, bytes }, room.output)
          : decodeParts(coder, { ...job, bytes, target: job.target ?? room.output });
    } catch {
      // Whoever asked does it again and sees why.
    }
    answer({ jobId, room, parts }, transferOf(room));
  };
}

function encodeParts(coder: UnitCoder, job: EncodeJob, output: Uint8Array): CodedPart[] {
  const stepBytes = coder.partBytes(job.dtype, job.columns);
  const parts: CodedPart[] = [];
  let filled = 0;
  for (let offset = 0; offset < job.bytes.byteLength; offset += stepBytes) {
    const startMs = systemClock.monotonicMs();
    // A copy: what is shared may be written meanwhile, and a coder wants bytes that stand still.
    const unit = coder.encode({ ...job, bytes: job.bytes.slice(offset, offset + stepBytes) });
    const { codec, relativeError, maxError, bytes } = unit;
    const { byteLength } = bytes;
    output.set(bytes, filled);
    filled += byteLength;
    const durationMs = systemClock.monotonicMs() - startMs;
    parts.push({ codec, relativeError, maxError, byteLength, durationMs });
  }
  return parts;
}

function decodeParts(coder: UnitCoder, { bytes, dtype, rawBytes, target }: DecodeJob): CodedPart[] {
  const parts: CodedPart[] = [];
  let filled = 0;
  for (let offset = 0; offset < bytes.byteLength; ) {
    const startMs = systemClock.monotonicMs();
    const unitBytes = coder.unitBytes(bytes.subarray(offset)) ?? 0;
    const unit = bytes.subarray(offset, offset + unitBytes);
    const decoded = coder.decode(unit, dtype, target.subarray(filled, rawBytes));
    if (decoded === null) throw new RangeError("malformed");
    const { codec, byteLength } = decoded;
    const durationMs = systemClock.monotonicMs() - startMs;
    parts.push({ codec, relativeError: 0, maxError: 0, byteLength, durationMs });
    filled += byteLength;
    offset += unitBytes;
  }
  if (filled !== rawBytes) throw new RangeError("malformed");
  return parts;
}
