// What fills the heap: a workload takes small steps, and a runner takes a few of them in each frame.
import type { Random, TensorMemory } from "tierheap";
import { nextFrame } from "./dom.js";

/** Something that allocates, uses and frees, one small step at a time. */
export interface Workload {
  /** One step; short, so that the page stays alive. */
  step(): void | Promise<void>;
  /** What it has done so far, in a few words. */
  readonly summary: string;
  /** Frees what it has. */
  end(): void | Promise<void>;
}

export type CreateWorkload = (memory: TensorMemory, random: Random) => Workload;

/** Milliseconds of each frame that a workload may take. */
const SLICE_MS = 4;
const STEPS_PER_FRAME_MAX = 6;

export class WorkloadRunner {
  readonly #create: CreateWorkload;
  readonly #onChange: (isRunning: boolean) => void;
  #workload: Workload | null = null;
  #isRunning = false;
  #running: Promise<void> = Promise.resolve();
  #number = 0;

  constructor(create: CreateWorkload, onChange: (isRunning: boolean) => void) {
    this.#create = create;
    this.#onChange = onChange;
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** null until it has run. */
  get summary(): string | null {
    return this.#workload?.summary ?? null;
  }

  start(memory: TensorMemory, onProblem: (error: unknown) => void): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#onChange(true);
    this.#number += 1;
    this.#workload ??= this.#create(memory, seeded(this.#number));
    this.#running = this.#run(this.#workload)
      .catch(onProblem)
      .finally(() => {
        this.#isRunning = false;
        this.#onChange(false);
      });
  }

  /** Stops after the present step; what it holds stays. */
  async pause(): Promise<void> {
    this.#isRunning = false;
    await this.#running;
  }

  /** Stops, and frees what it holds. */
  async end(): Promise<void> {
    await this.pause();
    const workload = this.#workload;
    this.#workload = null;
    await workload?.end();
  }

  async #run(workload: Workload): Promise<void> {
    while (this.#isRunning) {
      await nextFrame();
      const untilMs = performance.now() + SLICE_MS;
      for (let count = 0; count < STEPS_PER_FRAME_MAX && this.#isRunning; count++) {
        const step = workload.step();
        if (step !== undefined) await step;
        if (performance.now() >= untilMs) break;
      }
    }
  }
}

/** A small seeded generator, so that every visitor sees the same. */
function seeded(seed: number): Random {
  let state = seed * 0x9e3779b9;
  return {
    uint32: () => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return (mixed ^ (mixed >>> 14)) >>> 0;
    },
  };
}

/** A whole number from `least` to `most`. */
export function between(random: Random, least: number, most: number): number {
  return least + (random.uint32() % (most - least + 1));
}
