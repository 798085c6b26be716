// A few threads that code for the caller's: started when they are first needed, given one job after the
// other, replaced when they end. What comes to nothing here is done by the caller.
import type { Clock } from "../clock.js";
import { canShareMemory } from "../core/linear-memory.js";
import type { WasmSource } from "../core/module-instance.js";
import type {
  CodecWorkers,
  CodecWorkersStats,
  CodedParts,
  DecodeJob,
  EncodeJob,
  PlatformWorker,
  StartCodecWorker,
} from "./codec.js";
import {
  type Room,
  transferOf,
  type UnitLengths,
  type WorkerAnswer,
  type WorkerJob,
  type WorkerRequest,
  type WorkerStart,
} from "./worker-messages.js";

/** Jobs that a worker has room for: the next one lies there when one is done. */
const JOBS_EACH = 2;
/** A worker that has not answered for so long is ended. */
const ANSWER_MS_MAX = 20_000;
/** So long the first transfers wait for workers to start; from then on the caller's thread codes until they have. */
const START_MS_MAX = 250;
/** So many ends without a job done between them, and no more are started. */
const FAILURES_MAX = 3;

export interface CodecWorkersOptions {
  /** At least 1. */
  readonly workerCount: number;
  readonly jobBytesMax: number;
  readonly jobUnitBytesMax: number;
  readonly start: StartCodecWorker;
  /** Compiled. */
  readonly kernels: WasmSource;
  readonly lengths: UnitLengths;
  readonly clock: Clock;
}

export function codecWorkers(options: CodecWorkersOptions): CodecWorkers {
  return new Workers(options);
}

/** A worker and what it has been given. */
interface Seat {
  readonly worker: PlatformWorker;
  /** Told what came back of each job. */
  readonly waiting: Map<number, (answer: WorkerAnswer | null) => void>;
  /** Rooms that hold no job and no result. */
  readonly idle: Room[];
  isReady: boolean;
  cancelDeadline: () => void;
}

class Workers implements CodecWorkers {
  readonly jobBytesMax: number;
  readonly jobUnitBytesMax: number;
  readonly windowCount: number;
  readonly #options: CodecWorkersOptions;
  readonly #seats = new Set<Seat>();
  #loading: Promise<void> | null = null;
  #nextJobId = 1;
  #jobCount = 0;
  #failureCount = 0;
  #failuresInRow = 0;
  #isClosed = false;

  constructor(options: CodecWorkersOptions) {
    this.#options = options;
    this.jobBytesMax = options.jobBytesMax;
    this.jobUnitBytesMax = options.jobUnitBytesMax;
    this.windowCount = JOBS_EACH * options.workerCount;
  }

  load(): Promise<void> {
    this.#loading ??= this.#startFirst();
    return this.#loading;
  }

  tryEncode({ bytes, ...job }: EncodeJob): Promise<CodedParts | null> | null {
    return this.#try(bytes, (source) => ({ type: "encode", source, ...job }), null);
  }

  tryDecode({ bytes, target, ...job }: DecodeJob): Promise<CodedParts | null> | null {
    const shared = isShared(target) ? target : null;
    const length = shared === null ? job.rawBytes : 0;
    return this.#try(
      bytes,
      (source) => ({ type: "decode", source, target: shared, ...job }),
      length,
    );
  }

  stats(): CodecWorkersStats {
    return {
      workerCount: this.#seats.size,
      jobCount: this.#jobCount,
      failureCount: this.#failureCount,
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#seats].map((seat) => this.#end(seat)));
  }

  async #startFirst(): Promise<void> {
    const starting = Array.from({ length: this.#options.workerCount }, () => this.#start());
    let cancel = () => {};
    const isLate = new Promise<void>((resolve) => {
      cancel = this.#options.clock.defer(START_MS_MAX, resolve);
    });
    await Promise.race([Promise.any(starting).catch(() => {}), isLate]);
    cancel();
  }

  /** Resolves when the worker can work. Rejects when it never will. */
  #start(): Promise<void> {
    return new Promise((resolve, reject) => {
      const { start, kernels, lengths } = this.#options;
      let worker: PlatformWorker;
      try {
        worker = start();
      } catch (error) {
        // The platform allows none.
        this.#failureCount += 1;
        this.#failuresInRow = FAILURES_MAX;
        reject(error);
        return;
      }
      const idle = Array.from({ length: JOBS_EACH }, () => this.#room());
      const state = { isReady: false, cancelDeadline: () => {} };
      const seat: Seat = { worker, waiting: new Map(), idle, ...state };
      this.#seats.add(seat);
      seat.waiting.set(0, (ready) => {
        seat.isReady = ready !== null;
        if (seat.isReady) resolve();
        else reject(new Error("a coding worker does not start"));
      });
      listen(
        worker,
        (answer) => this.#take(seat, answer),
        () => void this.#lose(seat),
      );
      this.#watch(seat);
      worker.postMessage({ kernels, lengths } satisfies WorkerStart, []);
    });
  }

  /** @param resultBytes Of the result in the room's output; null: of all parts together. */
  #try(
    bytes: Uint8Array,
    jobOf: (source: Uint8Array | number) => WorkerJob,
    resultBytes: number | null,
  ): Promise<CodedParts | null> | null {
    let free: Seat | null = null;
    for (const seat of this.#seats) {
      const isFreer = free === null || seat.idle.length > free.idle.length;
      if (seat.isReady && seat.idle.length > 0 && isFreer) free = seat;
    }
    const seat = free;
    const room = seat?.idle.pop();
    if (seat === null || room === undefined || this.#isClosed) return null;
    const jobId = this.#nextJobId++;
    if (!isShared(bytes)) room.input.set(bytes);
    const job = jobOf(isShared(bytes) ? bytes : bytes.byteLength);
    return new Promise((resolve) => {
      seat.waiting.set(jobId, (answer) => resolve(this.#resultOf(seat, answer, resultBytes)));
      if (seat.waiting.size === 1) this.#watch(seat);
      seat.worker.postMessage({ jobId, job, room } satisfies WorkerRequest, transferOf(room));
    });
  }

  #resultOf(seat: Seat, answer: WorkerAnswer | null, resultBytes: number | null) {
    const room = answer?.room ?? null;
    if (answer === null || room === null) return null;
    const { parts } = answer;
    let isHeld = true;
    const release = () => {
      if (isHeld) seat.idle.push(room);
      isHeld = false;
    };
    if (parts === null) {
      release();
      return null;
    }
    this.#jobCount += 1;
    this.#failuresInRow = 0;
    const byteLength = resultBytes ?? parts.reduce((sum, part) => sum + part.byteLength, 0);
    return { bytes: room.output.subarray(0, byteLength), parts, release };
  }

  #take(seat: Seat, answer: WorkerAnswer): void {
    if (answer.jobId < 0) return void this.#lose(seat);
    const settle = seat.waiting.get(answer.jobId);
    // It may have been given up.
    if (settle === undefined) return;
    seat.waiting.delete(answer.jobId);
    this.#watch(seat);
    settle(answer);
  }

  #room(): Room {
    const { jobUnitBytesMax } = this.#options;
    const bytes = () =>
      new Uint8Array(
        canShareMemory()
          ? new SharedArrayBuffer(jobUnitBytesMax)
          : new ArrayBuffer(jobUnitBytesMax),
      );
    return { input: bytes(), output: bytes() };
  }

  /** Holds the process while the worker has something to do, and gives it a deadline. */
  #watch(seat: Seat): void {
    seat.cancelDeadline();
    seat.cancelDeadline = () => {};
    if (seat.waiting.size === 0) {
      seat.worker.unref?.();
      return;
    }
    seat.worker.ref?.();
    seat.cancelDeadline = this.#options.clock.defer(ANSWER_MS_MAX, () => void this.#lose(seat));
  }

  /** It has ended, or is taken for ended. Another one takes its place, within reason. */
  async #lose(seat: Seat): Promise<void> {
    if (!this.#seats.has(seat) || this.#isClosed) return;
    this.#failureCount += 1;
    this.#failuresInRow += 1;
    await this.#end(seat);
    if (this.#failuresInRow < FAILURES_MAX && !this.#isClosed) this.#start().catch(() => {});
  }

  async #end(seat: Seat): Promise<void> {
    this.#seats.delete(seat);
    seat.isReady = false;
    seat.cancelDeadline();
    try {
      // Until then it may write into what it was given.
      await seat.worker.terminate();
    } finally {
      for (const settle of seat.waiting.values()) settle(null);
      seat.waiting.clear();
    }
  }
}

function isShared({ buffer }: Uint8Array): boolean {
  return !(buffer instanceof ArrayBuffer);
}

/** Hears a worker of Node or of a browser. */
function listen(
  worker: PlatformWorker,
  onAnswer: (answer: WorkerAnswer) => void,
  onEnd: () => void,
): void {
  if (worker.on !== undefined) {
    worker.on("message", (message) => onAnswer(message as WorkerAnswer));
    worker.on("messageerror", onEnd);
    worker.on("error", onEnd);
    worker.on("exit", onEnd);
    return;
  }
  worker.addEventListener?.("message", (event) => onAnswer(event.data as WorkerAnswer));
  worker.addEventListener?.("messageerror", onEnd);
  worker.addEventListener?.("error", onEnd);
}
