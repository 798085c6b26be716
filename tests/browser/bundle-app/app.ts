// What an application does with the package: as it is published, through whatever bundler.
import { createTensorMemory, type TensorMemoryOptions } from "tierheap";

/** How this application's bundler names the scripts of workers. */
export interface OwnWorkers {
  readonly createStore: () => Worker;
  readonly createCodec: () => Worker;
}

const WORD_COUNT = 2 ** 20;
const valueAt = (index: number) => (Math.imul(index, 2_654_435_761) >> 3) & 0x3f8f0000;

/** @param own null: what the package does by itself. */
async function open(own: OwnWorkers | null) {
  const options: TensorMemoryOptions = {
    budgets: { ram: "64MiB", ssd: "64MiB" },
    ssd: {
      directory: "bundled",
      browser: own === null ? {} : { createWorker: own.createStore },
    },
    codecs: { default: "lossless", workers: 2 },
    ...(own !== null && { seams: { startCodecWorker: own.createCodec } }),
  };
  return createTensorMemory(options);
}

export interface Told {
  readonly outcome: string;
  readonly told: readonly string[];
  readonly jobCount: number;
  readonly failureCount: number;
  readonly isIsolated: boolean;
}

/** Saves a long tensor, which workers code if there are any. */
async function save(own: OwnWorkers | null): Promise<Told> {
  const memory = await open(own);
  const shape = [WORD_COUNT];
  const tensor = memory.allocate({ kind: "KV_CACHE", id: "kept", shape, dtype: "u32" });
  {
    using pin = tensor.pin();
    for (let index = 0; index < WORD_COUNT; index++) pin.view[index] = valueAt(index);
  }
  const outcome = await memory.save("kept", { mode: "durable" });
  const { jobCount = 0, failureCount = 0 } = memory.stats().codecWorkers ?? {};
  const told: string[] = [];
  for await (const event of memory.events({ signal: AbortSignal.timeout(200) })) {
    if (event.type === "tier-unavailable") told.push(event.error.message);
  }
  await memory.close();
  return { outcome, told, jobCount, failureCount, isIsolated: crossOriginIsolated };
}

/** Whether the tensor is there, and as it was. */
async function restore(own: OwnWorkers | null): Promise<boolean> {
  const memory = await open(own);
  let isIntact: boolean;
  {
    using lease = await memory.acquire<"u32">("kept", { access: "read" });
    isIntact = lease?.view.every((value, index) => value === valueAt(index) >>> 0) ?? false;
  }
  await memory.close();
  return isIntact;
}

/** Where it is stored. */
async function place(): Promise<"opfs" | "indexeddb"> {
  const databases = await indexedDB.databases();
  return databases.some(({ name }) => name === "bundled") ? "indexeddb" : "opfs";
}

export function expose(own: OwnWorkers) {
  window.bundled = {
    save: (hasOwn) => save(hasOwn ? own : null),
    restore: (hasOwn) => restore(hasOwn ? own : null),
    place,
  };
}

declare global {
  interface Window {
    bundled: {
      save(hasOwn: boolean): Promise<Told>;
      restore(hasOwn: boolean): Promise<boolean>;
      place(): Promise<"opfs" | "indexeddb">;
    };
  }
}
