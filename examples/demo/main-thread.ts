// What the page costs the thread that it lives on: the map's share of the time, tasks that block, and
// layout that shifts. Measured all the time, and shown.

const WINDOW_MS = 5000;
/** A task is blocking for what it takes beyond this; see "Long Tasks" of the W3C. */
const LONG_TASK_MS = 50;

interface Spell {
  readonly atMs: number;
  readonly ms: number;
}

/** Share of the main thread that something took, over the last five seconds. */
export class TimeShare {
  readonly #spells: Spell[] = [];
  readonly #beganMs = performance.now();

  add(ms: number): void {
    this.#spells.push({ atMs: performance.now(), ms });
  }

  /** 0 to 1. */
  get share(): number {
    const nowMs = performance.now();
    while ((this.#spells[0]?.atMs ?? nowMs) < nowMs - WINDOW_MS) this.#spells.shift();
    const ms = this.#spells.reduce((sum, spell) => sum + spell.ms, 0);
    return ms / Math.max(1, Math.min(WINDOW_MS, nowMs - this.#beganMs));
  }
}

export interface Observed {
  /** Milliseconds beyond the first fifty of every task, since the page began to load. */
  blockingMs: number;
  /** Sum of all layout shifts that no input explains; 0 is none. */
  layoutShift: number;
}

interface LayoutShift extends PerformanceEntry {
  readonly value: number;
  readonly hadRecentInput: boolean;
}

/** Begins to observe; figures stay 0 in browsers that do not tell. */
export function observePage(): Observed {
  const observed: Observed = { blockingMs: 0, layoutShift: 0 };
  const observe = (type: string, note: (entry: PerformanceEntry) => void) => {
    if (!PerformanceObserver.supportedEntryTypes.includes(type)) return;
    new PerformanceObserver((list) => list.getEntries().forEach(note)).observe({
      type,
      buffered: true,
    });
  };
  observe("longtask", ({ duration }) => {
    observed.blockingMs += Math.max(0, duration - LONG_TASK_MS);
  });
  observe("layout-shift", (entry) => {
    const { value, hadRecentInput } = entry as LayoutShift;
    if (!hadRecentInput) observed.layoutShift += value;
  });
  return observed;
}
