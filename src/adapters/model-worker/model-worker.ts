// A model in a worker that is ended and started again. The heap of a WebAssembly runtime never gets
// shorter: ending its worker is the only way to have its memory back. What a chat would lose by that, its KV,
// goes into the owner's memory first, where it is demoted like any other tensor, and comes back with the next turn.
//
// Does not look into KV, and does not choose who runs when.
import { type Clock, systemClock } from "../../clock.js";
import { MisuseError, TierError } from "../../errors.js";
import type { TensorMemory } from "../../tensor-memory.js";
import type { TensorKind } from "../../types.js";
import {
  buffersOf,
  type KvState,
  type ModelReply,
  type ModelRequest,
  type NumberedRequest,
} from "./messages.js";

export interface ModelWorkerOptions {
  /** Starts the worker, whose module calls `serveModel`. Called at every start. */
  readonly createWorker: () => Worker;
  /** Where KV goes. It belongs to the caller, who closes it after the worker. */
  readonly memory: TensorMemory;
  /** Given to the model at every start; structured-cloned. */
  readonly init?: unknown;
  /** Default: `"model-worker"`. Begins the ids of the tensors that hold KV. */
  readonly name?: string;
  /** Default: `"KV_CACHE"`. */
  readonly kind?: TensorKind;
  /**
   * Default: Infinity. Bytes of all WebAssembly memories in the worker together: when a turn has left more, the worker
   * is restarted after it.
   */
  readonly heapBytesMax?: number;
  /** Default: Infinity. A worker that is silent for so long, in milliseconds, while it has something to do, is ended. */
  readonly silentMs?: number;
  readonly clock?: Clock;
}

export interface ModelWorkerStats {
  /** Workers that were started, the first one included. */
  readonly startCount: number;
  /** Workers that ended by themselves, or were silent for too long. */
  readonly deathCount: number;
  /** Chats whose KV went into the memory, and came back from it, ever. */
  readonly suspendCount: number;
  readonly resumeCount: number;
  /** Bytes of KV in the memory, wherever it keeps them. */
  readonly suspendedBytes: number;
  /** Of the worker after its last answer; 0 when there is none. */
  readonly heapBytes: number;
  readonly heapBytesPeak: number;
}

interface Suspended {
  readonly byteLengths: readonly number[];
  readonly about: unknown;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** One worker, from its start to its end. */
class Running {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #silentMs: number;
  readonly #clock: Clock;
  readonly #onEnd: () => void;
  #lastId = 0;
  #end: TierError | null = null;
  /** Chats whose KV is in it. */
  readonly chats = new Set<string>();
  heapBytes = 0;

  constructor(worker: Worker, silentMs: number, clock: Clock, onDeath: () => void) {
    this.#worker = worker;
    this.#silentMs = silentMs;
    this.#clock = clock;
    this.#onEnd = onDeath;
    worker.onmessage = ({ data: reply }: MessageEvent<ModelReply>) => {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if ("message" in reply) {
        waiting?.reject(new TierError("io", TIER, `the model failed: ${reply.message}`));
        return;
      }
      this.heapBytes = reply.heapBytes;
      waiting?.resolve(reply.value);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#die(event.message || "it could not be started");
    };
    worker.onmessageerror = () => this.#die("a message could not be read");
  }

  get isAlive(): boolean {
    return this.#end === null;
  }

  async call(request: ModelRequest, transfer: ArrayBuffer[] = []): Promise<unknown> {
    if (this.#end !== null) throw this.#end;
    this.#lastId += 1;
    const id = this.#lastId;
    const forget =
      this.#silentMs < TIMER_MS_MAX
        ? this.#clock.defer(this.#silentMs, () => this.#die("it does not answer"))
        : () => {};
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting.set(id, { resolve, reject });
        this.#worker.postMessage({ ...request, id } satisfies NumberedRequest, transfer);
      });
    } finally {
      forget();
    }
  }

  terminate(reason = "it was ended"): void {
    this.#end ??= new TierError("closed", TIER, `the worker with the model has gone: ${reason}`);
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(this.#end);
    this.#waiting.clear();
  }

  #die(reason: string): void {
    if (this.#end !== null) return;
    this.terminate(reason);
    this.#onEnd();
  }
}

const TIER = "model-worker";
/** Longer timers end at once. */
const TIMER_MS_MAX = 2 ** 31;

export class ModelWorker {
  readonly #options: ModelWorkerOptions;
  readonly #kind: TensorKind;
  readonly #name: string;
  /** KV in the memory, by chat. It stays there until newer KV of the chat replaces it. */
  readonly #suspended = new Map<string, Suspended>();
  #running: Running | null = null;
  #isClosed = false;
  #queue: Promise<unknown> = Promise.resolve();
  #counts = { startCount: 0, deathCount: 0, suspendCount: 0, resumeCount: 0, heapBytesPeak: 0 };

  /** Use {@link openModelWorker}. */
  constructor(options: ModelWorkerOptions) {
    this.#options = options;
    this.#kind = options.kind ?? "KV_CACHE";
    this.#name = options.name ?? TIER;
  }

  /**
   * One turn of a chat. Turns run one after the other.
   *
   * @param input What the model's `run` gets; structured-cloned.
   * @returns What it gives.
   * @throws {TierError} `closed` — the worker ended meanwhile: the next turn starts another, with the KV of the last
   *   suspension. `io` — the model failed.
   * @throws {MisuseError} `closed`.
   */
  run(chat: string, input: unknown): Promise<unknown> {
    return this.#inTurn(async () => {
      const running = await this.#started();
      const state = running.chats.has(chat) ? null : await this.#take(chat);
      running.chats.add(chat);
      const value = await running.call({ type: "run", chat, input, state }, buffersOf(state));
      if (state !== null) this.#counts.resumeCount += 1;
      this.#noteHeap(running);
      if (running.heapBytes > (this.#options.heapBytesMax ?? Number.POSITIVE_INFINITY)) {
        // The turn is done: what becomes of the worker is the next one's business.
        await this.#restart().catch(() => {});
      }
      return value;
    });
  }

  /**
   * Brings the KV of a chat from the worker into the memory. Without effect when it is not in the worker.
   *
   * @throws {OutOfMemoryError} The memory cannot take it, whatever it demotes; the chat then begins anew at its next turn,
   *   unless an older state is there.
   * @throws {TierError} As {@link run}.
   */
  suspend(chat: string): Promise<void> {
    return this.#inTurn(() => this.#suspend(chat));
  }

  /** Brings the KV of all chats into the memory, ends the worker and starts another. */
  restart(): Promise<void> {
    return this.#inTurn(() => this.#restart());
  }

  /** Drops a chat, in the worker and in the memory. */
  forget(chat: string): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#running?.chats.delete(chat) === true) {
        await this.#running.call({ type: "forget", chat });
      }
      await this.#drop(chat);
    });
  }

  stats(): ModelWorkerStats {
    let suspendedBytes = 0;
    for (const { byteLengths } of this.#suspended.values()) {
      for (const byteLength of byteLengths) suspendedBytes += byteLength;
    }
    return { ...this.#counts, suspendedBytes, heapBytes: this.#running?.heapBytes ?? 0 };
  }

  /** Ends the worker at once and frees the KV that is in the memory. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#running?.terminate();
    await this.#queue;
    this.#running = null;
    for (const chat of [...this.#suspended.keys()]) await this.#drop(chat);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(() => {
      if (this.#isClosed) throw new MisuseError("closed", "the model worker is closed");
      return work();
    });
    this.#queue = turn.catch(() => {});
    return turn;
  }

  async #started(): Promise<Running> {
    if (this.#running?.isAlive === true) return this.#running;
    const { createWorker, init, silentMs, clock = systemClock } = this.#options;
    const running = new Running(createWorker(), silentMs ?? Number.POSITIVE_INFINITY, clock, () => {
      this.#counts.deathCount += 1;
    });
    this.#running = running;
    this.#counts.startCount += 1;
    try {
      await running.call({ type: "start", init });
    } catch (error) {
      running.terminate();
      throw error;
    }
    this.#noteHeap(running);
    return running;
  }

  async #restart(): Promise<void> {
    const running = this.#running;
    try {
      // One that is gone by now has nothing to give.
      if (running?.isAlive === true)
        for (const chat of [...running.chats]) await this.#suspend(chat);
    } finally {
      running?.terminate();
      this.#running = null;
    }
    await this.#started();
  }

  async #suspend(chat: string): Promise<void> {
    const running = this.#running;
    if (running === null || !running.chats.has(chat)) return;
    const state = (await running.call({ type: "suspend", chat })) as KvState | null;
    running.chats.delete(chat);
    if (state !== null) await this.#keep(chat, state);
  }

  #noteHeap({ heapBytes }: Running): void {
    this.#counts.heapBytesPeak = Math.max(this.#counts.heapBytesPeak, heapBytes);
  }

  #idOf(chat: string, index: number): string {
    return `${this.#name}/${chat}/${index}`;
  }

  async #keep(chat: string, { parts, about }: KvState): Promise<void> {
    const { memory } = this.#options;
    await this.#drop(chat);
    const byteLengths: number[] = [];
    this.#suspended.set(chat, { byteLengths, about });
    try {
      for (const [index, part] of parts.entries()) {
        const { byteLength } = part;
        await memory.reserve({ kind: this.#kind, bytes: byteLength });
        const tensor = memory.allocate({
          kind: this.#kind,
          id: this.#idOf(chat, index),
          byteLength,
        });
        byteLengths.push(byteLength);
        using pin = tensor.pin();
        pin.bytes.set(part);
      }
    } catch (error) {
      await this.#drop(chat);
      throw error;
    }
    this.#counts.suspendCount += 1;
  }

  /** Copies of what is kept of a chat; null when there is nothing, or a part of it is lost. */
  async #take(chat: string): Promise<KvState | null> {
    const kept = this.#suspended.get(chat);
    if (kept === undefined) return null;
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for (const [index, byteLength] of kept.byteLengths.entries()) {
      const id = this.#idOf(chat, index);
      using lease = await this.#options.memory.acquire(id, { access: "read" });
      if (lease === null) {
        await this.#drop(chat);
        return null;
      }
      const part = new Uint8Array(byteLength);
      part.set(lease.bytes);
      parts.push(part);
    }
    return { parts, about: kept.about };
  }

  async #drop(chat: string): Promise<void> {
    const kept = this.#suspended.get(chat);
    if (kept === undefined) return;
    this.#suspended.delete(chat);
    for (const index of kept.byteLengths.keys()) {
      await this.#options.memory.delete(this.#idOf(chat, index));
    }
  }
}

/**
 * Starts a worker with a model, and starts it again when its heap has become too long.
 *
 * @throws {TierError} `closed` — the worker does not start. `io` — the model does not.
 */
export async function openModelWorker(options: ModelWorkerOptions): Promise<ModelWorker> {
  const worker = new ModelWorker(options);
  try {
    await worker.restart();
  } catch (error) {
    await worker.close();
    throw error;
  }
  return worker;
}
