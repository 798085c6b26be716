// Remembers the last minute, and loads what draws it when somebody scrolls there.
import { element, sayProblem } from "./dom.js";
import type { Sample } from "./sampler.js";
import type { Timelines } from "./timelines.js";

const KEPT_MS = 60_000;

export class LazyTimelines {
  readonly #samples: Sample[] = [];
  #timelines: Timelines | null = null;

  constructor() {
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      observer.disconnect();
      this.#load().catch(sayProblem);
    });
    observer.observe(element("charts"));
  }

  add(sample: Sample): void {
    if (this.#timelines !== null) {
      this.#timelines.add(sample);
      return;
    }
    this.#samples.push(sample);
    while ((this.#samples[0]?.atMs ?? sample.atMs) < sample.atMs - KEPT_MS) this.#samples.shift();
  }

  async #load(): Promise<void> {
    const { Timelines } = await import("./timelines.js");
    const timelines = new Timelines();
    for (const sample of this.#samples.splice(0)) timelines.add(sample);
    this.#timelines = timelines;
  }
}
