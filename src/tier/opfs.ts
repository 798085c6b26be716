// A tier on the origin's private file system: the store of `fs.ts`, whose files a worker opens.
//
// Sources for what differs from other file systems: https://fs.spec.whatwg.org (handles lock their
// file; entries are renamed by `move`).
import { type Clock, systemClock } from "../clock.js";
import { TierError } from "../errors.js";
import { randomName, systemRandom } from "../random.js";
import { privateBytes, privateCopy } from "../util/private-bytes.js";
import type { FileReader, FileSystem, FileWriter } from "./file-system.js";
import { FsTier } from "./fs.js";
import { MessageBuffers } from "./message-buffers.js";
import type { OpfsCalls, OpfsReply } from "./opfs-messages.js";
import { OpfsReads } from "./opfs-reads.js";
import { PART_BYTES, type SendPart, WritesBehind, writeInParts } from "./opfs-writes.js";
import { SystemError } from "./system-error.js";
import type { Tier } from "./tier.js";

export interface OpfsTierOptions {
  /** Folders in the origin's private file system, separated by `/`. */
  readonly directory: string;
  /** Default: `"ssd"`. */
  readonly name?: string;
  /** Default: Infinity. */
  readonly capacityBytes?: number;
  readonly bufferBytes?: number;
  /**
   * Starts the worker that `tierheap/opfs-worker` is the module of. Default: from a `blob:` address, which a
   * page's content security policy may forbid.
   */
  readonly createWorker?: (() => Worker) | undefined;
  /** Default: 4000. How long another page's lock is waited for; Infinity: until that page has gone. */
  readonly waitMs?: number | undefined;
  readonly clock?: Clock;
  /**
   * Told once when the store goes while it is open, as after the user has cleared the site's data: its files are
   * not there any more, or its worker ends or answers nothing. The error's code is `closed`.
   *
   * @remarks The platform tells nobody: it is noticed when a file is made, and with each durable commit.
   */
  readonly onLost?: ((error: TierError) => void) | undefined;
}

/** A file costs more here than elsewhere to open: longer objects share segments. */
const PACKED_BYTES_MAX = 2 ** 21;
/** At the quota deletions must still fit: a browser gives an open file no less than this. */
const SPARE_ROOM_BYTES = 2 ** 20;
/** A worker of a page that was left may write on for seconds, and keeps its locks for so long. */
const WAIT_MS = 4000;
/** How long a worker may take for the first answer. */
const START_MS = 5000;

interface Waiting {
  readonly call: keyof OpfsCalls;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** How long nothing may be heard from a worker that has something to do. */
const SILENT_MS = 30_000;
/** As that, when all it has to do is to close a file: browsers hang there when its data was cleared. */
const SILENT_CLOSING_MS = 5000;

/** Calls of the worker, and the end of all of them. */
class WorkerLink {
  readonly #worker: Worker;
  readonly #clock: Clock;
  readonly #onDeath: (reason: string) => void;
  #stopWatching = () => {};
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  #end: Error | null = null;

  /** @param onDeath Told when it ends by itself. */
  constructor(worker: Worker, clock: Clock, onDeath: (reason: string) => void) {
    this.#worker = worker;
    this.#clock = clock;
    this.#onDeath = onDeath;
    worker.onmessage = ({ data: reply }: MessageEvent<OpfsReply>) => {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      this.#watch();
      if ("code" in reply) waiting?.reject(new SystemError(reply.code, reply.message));
      else waiting?.resolve(reply.value);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#die(event.message || "the worker could not be started");
    };
    worker.onmessageerror = () => this.#die("a message could not be read");
  }

  call<Call extends keyof OpfsCalls>(
    call: Call,
    parameters: Parameters<OpfsCalls[Call]>,
    transfer: Transferable[] = [],
  ): Promise<ReturnType<OpfsCalls[Call]>> {
    return new Promise((resolve, reject) => {
      if (this.#end !== null) return reject(this.#end);
      this.#lastId += 1;
      this.#waiting.set(this.#lastId, {
        call,
        resolve: resolve as (value: unknown) => void,
        reject,
      });
      this.#worker.postMessage({ id: this.#lastId, call, parameters }, transfer);
      if (this.#waiting.size === 1) this.#watch();
    });
  }

  end(reason: string): void {
    this.#end ??= new SystemError("EIO", reason);
    this.#stopWatching();
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(this.#end);
    this.#waiting.clear();
  }

  #die(reason: string): void {
    if (this.#end !== null) return;
    this.end(reason);
    this.#onDeath(reason);
  }

  /** Looks whether the worker goes on, from now. */
  #watch(): void {
    this.#stopWatching();
    const [first] = this.#waiting.values();
    // A lock may take as long as whoever asked for it wants to wait.
    if (first === undefined || first.call === "tryLock") return;
    const silentMs = first.call === "close" ? SILENT_CLOSING_MS : SILENT_MS;
    this.#stopWatching = this.#clock.defer(silentMs, () => this.#die("the worker does not answer"));
  }
}

async function startFromText(): Promise<Worker> {
  const { OPFS_WORKER_TEXT } = await import("./opfs-worker-text.generated.js");
  const url = URL.createObjectURL(new Blob([OPFS_WORKER_TEXT], { type: "text/javascript" }));
  try {
    return new Worker(url, { name: "tierheap-opfs" });
  } finally {
    // The browser has taken the address by now; it fetches what the address named.
    URL.revokeObjectURL(url);
  }
}

/** A file system whose worker lives from `start` to `end`. */
export class OpfsFileSystem implements FileSystem {
  readonly #createWorker: (() => Worker) | undefined;
  readonly #clock: Clock;
  readonly #waitMs: number;
  readonly #buffers = new MessageBuffers();
  readonly #reads = new OpfsReads(
    (parts, lent) => this.#call("read", [parts, lent], [lent.buffer]),
    this.#buffers,
  );
  #link: WorkerLink | null = null;
  #isLost = false;
  /** Told when what worked does not any more; not while it starts. */
  onLost: (reason: string) => void = () => {};

  constructor(createWorker?: () => Worker, clock: Clock = systemClock, waitMs = WAIT_MS) {
    this.#waitMs = waitMs;
    this.#createWorker = createWorker;
    this.#clock = clock;
  }

  /** @throws The platform's error where workers, or files in them, do not work here. */
  async start(): Promise<void> {
    let isStarted = false;
    this.#isLost = false;
    const worker = this.#createWorker?.() ?? (await startFromText());
    const link = new WorkerLink(worker, this.#clock, (reason) => {
      if (isStarted) this.#lose(reason);
    });
    const forget = this.#clock.defer(START_MS, () => link.end("the worker does not answer"));
    try {
      this.#link = link;
      await this.#probe();
      isStarted = true;
    } catch (error) {
      this.#link = null;
      link.end("the private file system does not work here");
      throw error;
    } finally {
      forget();
    }
  }

  end(): void {
    this.#link?.end("the tier is closed");
    this.#link = null;
  }

  join(directory: string, name: string): string {
    return `${directory}/${name}`;
  }

  makeDirectory(path: string): Promise<void> {
    return this.#call("makeDirectory", [path]);
  }

  list(path: string): Promise<{ readonly name: string; readonly byteLength: number }[]> {
    return this.#call("list", [path]);
  }

  async create(path: string): Promise<FileWriter> {
    const number = await this.#call("create", [path]).catch((error: SystemError) => {
      if (error.code === "ENOENT") this.#lose("its directory was deleted");
      throw error;
    });
    const send: SendPart = (bytes, offset, isBehind) =>
      this.#call("write", [number, bytes, offset, isBehind], [bytes.buffer]);
    const behind = new WritesBehind(send, this.#buffers);
    return {
      write: (sources, offset) => writeInParts(send, this.#buffers, sources, offset),
      writeBehind: (source, offset) => behind.write(source, offset),
      settle: () => behind.settle(),
      read: (targets, offset) => this.#reads.read(number, targets, offset),
      sync: async () => {
        await this.#call("sync", [number]);
        // A promise to keep bytes is none when their file has lost its name.
        if (!this.#isLost && !(await this.#call("isThere", [number]))) {
          this.#lose("its files were deleted");
        }
        if (this.#isLost) throw new SystemError("EIO", "the files were deleted");
      },
      close: () => this.#call("close", [number]),
    };
  }

  async openRead(path: string): Promise<FileReader | null> {
    const found = await this.#call("openRead", [path]);
    if (found === null) return null;
    const { number, byteLength } = found;
    return {
      byteLength,
      read: (targets, offset) => this.#reads.read(number, targets, offset),
      close: () => this.#call("close", [number]),
    };
  }

  rename(sourcePath: string, targetPath: string): Promise<void> {
    return this.#call("rename", [sourcePath, targetPath]);
  }

  remove(path: string): Promise<boolean> {
    return this.#call("remove", [path]);
  }

  /** Nothing to do: entries are the browser's business, which gives no way to flush them. */
  async syncDirectory(): Promise<void> {}

  async tryLock(path: string): Promise<{ release(): Promise<void> } | null> {
    if (!(await this.#call("tryLock", [path, this.#waitMs]))) return null;
    return { release: () => this.#call("unlock", [path]) };
  }

  #lose(reason: string): void {
    this.#isLost = true;
    this.onLost(reason);
  }

  #call<Call extends keyof OpfsCalls>(
    call: Call,
    parameters: Parameters<OpfsCalls[Call]>,
    transfer?: Transferable[],
  ): Promise<ReturnType<OpfsCalls[Call]>> {
    if (this.#link === null) return Promise.reject(new SystemError("EIO", "not started"));
    return this.#link.call(call, parameters, transfer);
  }

  /** A file system that is there need not work: writes, reads back, removes. */
  async #probe(): Promise<void> {
    const path = `tierheap-probe-${randomName(systemRandom)}`;
    const writer = await this.create(path);
    await writer.write([privateCopy(new Uint8Array([1, 2, 3]))], 0);
    await writer.sync();
    await writer.close();
    const reader = await this.openRead(path);
    const bytes = privateBytes(3);
    const count = await reader?.read([bytes], 0);
    await reader?.close();
    await this.remove(path);
    if (count !== 3 || bytes.join() !== "1,2,3") throw new SystemError("EIO", "bytes were lost");
  }
}

/** @throws {TierError} From `open`: `busy`, `io`. */
export function opfsTier(options: OpfsTierOptions): Tier {
  const { createWorker, clock, waitMs, onLost, ...rest } = options;
  const fileSystem = new OpfsFileSystem(createWorker, clock, waitMs);
  const store = new FsTier({
    packedBytesMax: PACKED_BYTES_MAX,
    spareRoomBytes: SPARE_ROOM_BYTES,
    opensAhead: true,
    ...rest,
    fileSystem,
  });
  let isStarted = false;
  let isLost = false;
  fileSystem.onLost = (reason) => {
    if (!isStarted || isLost) return;
    isLost = true;
    const message = `the private file system's store has gone: ${reason}; make a new memory`;
    onLost?.(new TierError("closed", store.name, message));
  };
  return {
    name: store.name,
    capabilities: { ...store.capabilities, preferredWriteBytes: PART_BYTES },
    open: async () => {
      if (isStarted) return;
      try {
        await fileSystem.start();
      } catch (cause) {
        const message = "the origin's private file system does not work here";
        throw new TierError("io", store.name, message, { cause });
      }
      try {
        await store.open();
        isStarted = true;
        isLost = false;
      } catch (error) {
        fileSystem.end();
        throw error;
      }
    },
    begin: (key, byteLength) => store.begin(key, byteLength),
    openRead: (key) => store.openRead(key),
    delete: (key) => store.delete(key),
    quarantine: (key) => store.quarantine(key),
    list: () => store.list(),
    stats: () => store.stats(),
    close: async () => {
      if (!isStarted) return;
      isStarted = false;
      await store.close();
      fileSystem.end();
    },
  };
}
