// Decides who goes on: clients and file operations wait for their turn, and a seeded draw gives it to one
// of them at a time. File operations fail now and then.
import { systemClock } from "../clock.js";
import type { Random } from "../random.js";
import type { FileSystem } from "../tier/file-system.js";
import { type PrivateBytes, privatePart } from "../util/private-bytes.js";
import type { FaultCode } from "./faulty-file-system.js";

/** Microtasks that pass between two turns, at most: enough for what is between two file operations. */
const TICK_COUNT_MAX = 40;
/** Turns of nobody after which what is waited for must be a timer or a thread of the platform. */
const IDLE_COUNT_MAX = 50;
/** Turns of the event loop after which nothing will come any more. */
const STALL_COUNT_MAX = 2000;

const FAULT_CODES: readonly FaultCode[] = ["EIO", "ENOSPC", "EMFILE"];

export class TurnTaking {
  readonly #random: Random;
  readonly #waiting: (() => void)[] = [];
  /** Of 1,000 file operations, how many fail. */
  faultsPerMille = 0;
  /** Only operations on paths that begin so fail. */
  faultyPath = "";
  faultCount = 0;
  turnCount = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Resolves when it is the caller's turn. */
  turn(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  /**
   * Gives turns until all of the work has settled.
   *
   * @throws {RangeError} It does not, although nobody waits for a turn.
   */
  async run(work: readonly Promise<unknown>[]): Promise<void> {
    let isDone = false;
    const settled = Promise.allSettled(work).then(() => {
      isDone = true;
    });
    let idleCount = 0;
    while (!isDone) {
      const ticks = 1 + (this.#random.uint32() % TICK_COUNT_MAX);
      for (let tick = 0; tick < ticks; tick++) await Promise.resolve();
      const [next] = this.#waiting.splice(this.#random.uint32() % (this.#waiting.length || 1), 1);
      if (next !== undefined) {
        idleCount = 0;
        this.turnCount += 1;
        next();
        continue;
      }
      idleCount += 1;
      if (idleCount > IDLE_COUNT_MAX) await systemClock.sleep(0);
      if (idleCount > STALL_COUNT_MAX) throw new RangeError("the work has stalled");
    }
    await settled;
  }

  /** A file system whose operations wait for their turn, and fail now and then. */
  over(inner: FileSystem): FileSystem {
    const take = async <T>(operation: string, path: string, work: () => Promise<T>): Promise<T> => {
      await this.turn();
      if (this.#isFaulty(path)) this.#fail(operation);
      const result = await work();
      // It may have happened and be told as failed; and its answer may be on its way for a while.
      if (this.#random.uint32() % 4 === 0) await this.turn();
      return result;
    };
    return {
      ...inner,
      list: (path) => take("list", path, () => inner.list(path)),
      create: (path) =>
        take("create", path, async () => {
          const writer = await inner.create(path);
          return {
            write: async (sources, offset) => {
              await this.turn();
              if (!this.#isFaulty(path)) return writer.write(sources, offset);
              if (this.#random.uint32() % 2 === 0) return this.#fail("write");
              // A part of it comes through; as a short write, or torn.
              const first = sources[0] as PrivateBytes;
              const part = privatePart(first, 0, first.byteLength >> 1);
              const count = await writer.write([part], offset);
              return this.#random.uint32() % 2 === 0 && count > 0 ? count : this.#fail("write");
            },
            sync: () => take("sync", path, () => writer.sync()),
            close: () => writer.close(),
          };
        }),
      openRead: (path) =>
        take("openRead", path, async () => {
          const reader = await inner.openRead(path);
          if (reader === null) return null;
          return {
            byteLength: reader.byteLength,
            read: (target, offset) => take("read", path, () => reader.read(target, offset)),
            close: () => reader.close(),
          };
        }),
      rename: (source, target) => take("rename", source, () => inner.rename(source, target)),
      remove: (path) => take("remove", path, () => inner.remove(path)),
      syncDirectory: (path) => take("syncDirectory", path, () => inner.syncDirectory(path)),
    };
  }

  #isFaulty(path: string): boolean {
    if (!path.startsWith(this.faultyPath)) return false;
    return this.#random.uint32() % 1000 < this.faultsPerMille;
  }

  #fail(operation: string): never {
    this.faultCount += 1;
    const code = FAULT_CODES[this.#random.uint32() % FAULT_CODES.length];
    throw Object.assign(new Error(`${code} (injected into ${operation})`), { code });
  }
}
