// The memory that the page shows: opened, opened anew with other budgets, and left in the lurch.
import {
  createTensorMemory,
  type MemoryEvent,
  type TensorMemory,
  type TensorMemoryOptions,
  TierError,
} from "tierheap";

const OPEN_ATTEMPTS = 8;
const OPEN_RETRY_MS = 250;
const DIRECTORY = "tierheap-demo";

/** What the sliders say, in MiB, and the switch beside them. */
export interface HeapSettings {
  readonly ram: number;
  /** Part of `ram` for what has left the arenas, compressed; 0 is off. */
  readonly warm: number;
  /** 0 is off. */
  readonly storage: number;
  /** Whether blocks move together by themselves. */
  readonly autoCompaction: boolean;
}

export const DEFAULT_SETTINGS: HeapSettings = {
  ram: 64,
  warm: 8,
  storage: 256,
  autoCompaction: false,
};

function optionsOf({ ram, warm, storage, autoCompaction }: HeapSettings): TensorMemoryOptions {
  return {
    budgets: {
      ram: `${ram}MiB`,
      ...(warm > 0 && { warm: `${warm}MiB` }),
      ...(storage > 0 && { ssd: `${storage}MiB` }),
    },
    ssd: { directory: DIRECTORY },
    compaction: autoCompaction ? "auto" : "on-demand",
  };
}

function isLoss(event: MemoryEvent): boolean {
  if (event.type !== "tier-unavailable") return false;
  return event.error instanceof TierError && event.error.code === "closed";
}

/** One memory over RAM and the browser's storage. */
export class Heap {
  readonly memory: TensorMemory;
  readonly settings: HeapSettings;
  /** Why nothing can be kept, or null. */
  readonly problem: string | null;

  private constructor(memory: TensorMemory, settings: HeapSettings, problem: string | null) {
    this.memory = memory;
    this.settings = settings;
    this.problem = problem;
  }

  /** Opens over RAM and the browser's storage, or over RAM alone where that is not to be had. */
  static async open(settings: HeapSettings): Promise<Heap> {
    for (let attempt = 1; ; attempt++) {
      try {
        const memory = await createTensorMemory(optionsOf(settings));
        const hasStore = memory.stats().tier.capacityBytes > 0;
        const isMissing = settings.storage > 0 && !hasStore;
        const problem = isMissing ? "this browser gives the page no storage" : null;
        return new Heap(memory, settings, problem);
      } catch (error) {
        if (!(error instanceof TierError)) throw error;
        // A page that is being reloaded may hold the store for another moment.
        if (error.code !== "busy" || attempt === OPEN_ATTEMPTS) {
          const memory = await createTensorMemory(optionsOf({ ...settings, storage: 0 }));
          return new Heap(memory, settings, error.message);
        }
        await new Promise((resolve) => setTimeout(resolve, OPEN_RETRY_MS));
      }
    }
  }

  /** Calls `hear` when the store goes under the page: its data was cleared, or another page has deleted it. */
  whenStoreIsLost(hear: () => void): void {
    const listening = async () => {
      for await (const event of this.memory.events()) if (isLoss(event)) hear();
    };
    listening().catch(() => {
      // Closed while it waited.
    });
  }

  close(): Promise<void> {
    return this.memory.close();
  }
}
