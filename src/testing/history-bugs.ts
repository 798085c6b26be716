// Ways of getting concurrency wrong that histories must find: each stands between the clients and a memory,
// or changes what the memory believes.
import { DeletionLog } from "../cache/deletion-log.js";
import { TensorRecord } from "../cache/tensor-record.js";
import { FailedDeletions } from "../tier/failed-deletions.js";
import type { HistoryMemory } from "./histories.js";

/** A bug while it is planted. */
export interface PlantedBug {
  decorate(memory: HistoryMemory): HistoryMemory;
  /** Takes it out of what all memories share. */
  remove(): void;
}

type Lease = NonNullable<Awaited<ReturnType<HistoryMemory["acquire"]>>>;

/** Microtasks by which something comes too late. */
const LATE_TICK_COUNT = 200;

async function late(): Promise<void> {
  for (let tick = 0; tick < LATE_TICK_COUNT; tick++) await Promise.resolve();
}

/** The memory with some methods replaced. */
function replaced(memory: HistoryMemory, methods: Partial<HistoryMemory>): HistoryMemory {
  return new Proxy(memory, {
    get: (target, name) => {
      const own = methods[name as keyof HistoryMemory];
      if (own !== undefined) return own;
      const member: unknown = Reflect.get(target, name);
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
}

/** A lease on other bytes, which are dealt with at its end. */
function leaseOn(lease: Lease, words: Uint32Array, onEnd: () => void): Lease {
  return Object.create(lease, {
    view: { value: words },
    [Symbol.dispose]: { value: onEnd },
  }) as Lease;
}

const wordsOf = (lease: Lease) => (lease.view as Uint32Array).slice();

export const PLANTED_HISTORY_BUGS: ReadonlyMap<string, () => PlantedBug> = new Map<
  string,
  () => PlantedBug
>([
  [
    "a cold copy counts as valid whatever was written since",
    () => {
      const before = Object.getOwnPropertyDescriptor(TensorRecord.prototype, "isClean");
      Object.defineProperty(TensorRecord.prototype, "isClean", {
        configurable: true,
        get(this: TensorRecord) {
          return this.cold !== null && this.writePinCount === 0;
        },
      });
      return {
        decorate: (memory) => memory,
        remove: () => {
          Object.defineProperty(TensorRecord.prototype, "isClean", before as PropertyDescriptor);
        },
      };
    },
  ],
  [
    "readers join a load that is over",
    () => ({
      remove: () => {},
      decorate: (memory) => {
        const loads = new Map<string, Promise<Lease | null>>();
        const acquire = async (id: string, options?: { readonly access?: "read" | "write" }) => {
          if (options?.access !== "read") return memory.acquire(id, options);
          const joined = loads.get(id);
          if (joined !== undefined) return joined;
          const load = memory.acquire(id, options).then((lease) => {
            if (lease === null) return null;
            const words = wordsOf(lease);
            lease[Symbol.dispose]();
            return leaseOn(lease, words, () => {});
          });
          loads.set(id, load);
          const forget = () => loads.delete(id);
          load.then(late, late).then(forget, forget);
          return load;
        };
        return replaced(memory, { acquire: acquire as HistoryMemory["acquire"] });
      },
    }),
  ],
  [
    "a write is told before it is done",
    () => ({
      remove: () => {},
      decorate: (memory) => {
        const acquire = async (id: string, options?: { readonly access?: "read" | "write" }) => {
          const lease = await memory.acquire(id, options);
          if (lease === null || options?.access === "read") return lease;
          const words = wordsOf(lease);
          const finish = async () => {
            await late();
            (lease.view as Uint32Array).set(words);
            lease[Symbol.dispose]();
          };
          return leaseOn(lease, words, () => {
            finish().catch(() => {});
          });
        };
        return replaced(memory, { acquire: acquire as HistoryMemory["acquire"] });
      },
    }),
  ],
  [
    "a deletion that fails is forgotten",
    () => {
      const { attempt } = FailedDeletions.prototype;
      FailedDeletions.prototype.attempt = (_key, remove) => remove();
      return {
        decorate: (memory) => memory,
        remove: () => {
          FailedDeletions.prototype.attempt = attempt;
        },
      };
    },
  ],
  [
    "a stack keeps to itself which deletions a tier was not told of",
    () => {
      const { note } = DeletionLog.prototype;
      DeletionLog.prototype.note = async (object, level) => {
        level.distrust(object);
        return true;
      };
      return {
        decorate: (memory) => memory,
        remove: () => {
          DeletionLog.prototype.note = note;
        },
      };
    },
  ],
  [
    "a deletion leaves the saved record",
    () => ({
      remove: () => {},
      decorate: (memory) =>
        replaced(memory, {
          delete: async (id) => {
            const tensor = memory.tensor(id);
            tensor?.free();
            return tensor !== null;
          },
        }),
    }),
  ],
]);
