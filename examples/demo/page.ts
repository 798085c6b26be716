// The page as a whole: one heap, what runs on it, what shows it, and what the visitor may do to it.
import { formatBytes, formatPercent, type MemoryStats, OutOfMemoryError } from "tierheap";
import { ChatView } from "./chat-view.js";
import { Chats } from "./chats.js";
import { Churn } from "./churn.js";
import { describeProblem, element, nextFrame, say, sayProblem, setText } from "./dom.js";
import { Heap, type HeapSettings } from "./heap.js";
import { LazyTimelines } from "./lazy-timelines.js";
import { type Observed, observePage } from "./main-thread.js";
import { MapView } from "./map-view.js";
import { fragmentationOf, Sampler } from "./sampler.js";
import { keepSettings } from "./settings.js";
import { TiersView } from "./tiers-view.js";
import { VisionTrace } from "./vision-trace.js";
import { WeightsView } from "./weights-view.js";
import { WorkloadRunner } from "./workload.js";

const SAMPLE_MS = 250;
/** Of a round of compaction, in each frame: little, so that it can be watched. */
const COMPACTED_BYTES_PER_FRAME = 2 ** 20;
const PRESSURE_SHARE = 0.5;
/** Pieces that fit an arena without much rest. */
const PRESSURE_COUNT = 48;
const PRESSURE_MS = 1500;
/** How long a page that crashes has been writing. */
const CRASH_AFTER_MS = 60;
const MIB = 2 ** 20;

/** How many arenas the budget has room for, beside what else is in it. */
function arenaCountOf({ budget, pools }: MemoryStats, { ram, warm }: HeapSettings): number {
  const share = (ram * (15 / 16) - warm) / 4;
  const arenaBytes = pools[0]?.arenaBytes ?? 2 ** Math.floor(Math.log2(share)) * MIB;
  const { limitBytes, usedBytes, byCategory } = budget;
  return Math.floor((limitBytes - usedBytes + byCategory.arenas) / arenaBytes);
}

export class Page {
  readonly #observed: Observed = observePage();
  readonly #map = new MapView();
  readonly #tiers = new TiersView();
  readonly #timelines = new LazyTimelines();
  readonly #chats = new ChatView();
  readonly #weights = new WeightsView();
  readonly #trace = new WorkloadRunner(
    (memory, random) => new VisionTrace(memory, random),
    (isRunning) =>
      showRunning("run-trace", isRunning, "Run a vision model's trace", "Pause the trace"),
  );
  readonly #churn = new WorkloadRunner(
    (memory, random) => new Churn(memory, random),
    (isRunning) => showRunning("run-churn", isRunning, "Run a churn", "Pause the churn"),
  );
  #heap: Heap | null = null;
  #sampler = new Sampler();
  #isActing = false;

  /** Opens a heap, or another one in place of the present one. */
  async open(settings: HeapSettings): Promise<void> {
    await this.#close();
    const heap = await Heap.open(settings);
    this.#heap = heap;
    this.#sampler = new Sampler();
    this.#map.begin(arenaCountOf(heap.memory.stats(), settings));
    this.#chats.open(heap.memory, await Chats.restore(heap.memory, this.#canKeep(heap)));
    this.#weights.open(heap.memory);
    const isEnded = () => this.#heap !== heap;
    this.#map.follow(heap.memory, isEnded, () => this.#isBusy()).catch(sayProblem);
    this.#sampleNow();
    setText(element("fact-store"), heap.problem === null ? storeFact(settings) : "RAM only");
    heap.whenStoreIsLost(() => {
      setText(element("fact-store"), "RAM only: storage was cleared");
      say("The storage was cleared. Reload the page to keep chats again.", "problem");
    });
    if (heap.problem !== null) say(`RAM only, nothing is kept: ${heap.problem}.`, "problem");
  }

  /** What an earlier visit has left, in words. */
  get greeting(): string {
    const { problem = null } = this.#heap ?? {};
    if (problem !== null) return `RAM only, nothing is kept: ${problem}.`;
    const count = this.#chats.count;
    if (count === 0) return "Ready. Nothing was saved before.";
    return `Ready. ${count === 1 ? "One chat is" : `${count} chats are`} back from an earlier visit.`;
  }

  startTrace(): void {
    const { memory } = this.#heap ?? {};
    if (memory !== undefined) this.#trace.start(memory, sayProblem);
  }

  listen(): void {
    const on = (id: string, act: () => Promise<string | null>) => {
      element(id).addEventListener("click", () => this.#act(act));
    };
    on("run-trace", async () => this.#toggle(this.#trace, "The trace"));
    on("run-churn", async () => this.#toggle(this.#churn, "The churn"));
    on("compact", () => this.#compact());
    on("pressure", () => this.#press());
    on("forget", () => this.#forget());
    element("crash").addEventListener("click", () => this.#crash());
    setInterval(() => this.#sampleNow(), SAMPLE_MS);
    const switching = element<HTMLInputElement>("auto-compaction");
    switching.addEventListener("change", () => {
      this.#change({ autoCompaction: switching.checked });
    });
    for (const name of ["ram", "warm", "storage"] as const) {
      const slider = element<HTMLInputElement>(name);
      slider.addEventListener("input", () => showBudget(name, slider.valueAsNumber));
      slider.addEventListener("change", () => this.#change({ [name]: slider.valueAsNumber }));
    }
  }

  // --- Acting ------------------------------------------------------------------------------------------

  /** One thing at a time; it tells how it ended. */
  #act(act: () => Promise<string | null>): void {
    if (this.#isActing) return;
    this.#isActing = true;
    act()
      .then((outcome) => {
        if (outcome !== null) say(outcome);
      }, sayProblem)
      .finally(() => {
        this.#isActing = false;
      });
  }

  async #toggle(runner: WorkloadRunner, name: string): Promise<string> {
    const { memory } = this.#opened();
    if (runner.isRunning) {
      await runner.pause();
      return `${name} is paused. What it holds stays.`;
    }
    runner.start(memory, sayProblem);
    return `${name} runs.`;
  }

  /** Frame by frame, so that the map shows the blocks move. */
  async #compact(): Promise<string> {
    const { memory } = this.#opened();
    const before = fragmentationOf(memory.stats());
    let movedBytes = 0;
    for (;;) {
      const step = memory.compact({ bytesMovedMax: COMPACTED_BYTES_PER_FRAME });
      movedBytes += step.movedBytes;
      if (step.isFinished) break;
      await nextFrame();
    }
    const after = fragmentationOf(memory.stats());
    return `Compacted: ${formatBytes(movedBytes)} moved, external fragmentation ${formatPercent(before)} before and ${formatPercent(after)} now.`;
  }

  /** Somebody needs half of the RAM for a moment: what is cold leaves. Workloads wait, or they would take it. */
  async #press(): Promise<string> {
    const { memory } = this.#opened();
    const waiting = [this.#trace, this.#churn].filter(({ isRunning }) => isRunning);
    for (const runner of waiting) await runner.pause();
    try {
      return await this.#holdHalf();
    } finally {
      for (const runner of waiting) runner.start(memory, sayProblem);
    }
  }

  async #holdHalf(): Promise<string> {
    const { memory, settings } = this.#opened();
    const bytes = Math.floor((settings.ram * MIB * PRESSURE_SHARE) / PRESSURE_COUNT);
    const before = memory.stats().transfers.swapOutCount;
    const held = [];
    try {
      for (let count = 0; count < PRESSURE_COUNT; count++) {
        await memory.reserve({ kind: "ACTIVATIONS", bytes });
        held.push(memory.allocate({ kind: "ACTIVATIONS", byteLength: bytes }));
        if (count % 6 === 5) await nextFrame();
      }
      await new Promise((resolve) => setTimeout(resolve, PRESSURE_MS));
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      return `Pressure: ${describeProblem(error)}`;
    } finally {
      for (const tensor of held) tensor.free();
    }
    const count = memory.stats().transfers.swapOutCount - before;
    return `Pressure: ${formatBytes(bytes * PRESSURE_COUNT)} were needed for a moment, and ${count} tensors left RAM.`;
  }

  /** Drops the page in the middle of writing: nothing is closed, nothing is finished. */
  #crash(): void {
    say("Crashing in the middle of a write.");
    this.#chats.abandon();
    setTimeout(() => location.reload(), CRASH_AFTER_MS);
  }

  async #forget(): Promise<string> {
    const { memory } = this.#opened();
    await this.#endWorkloads();
    await this.#chats.forget();
    await this.#weights.close();
    const ids: string[] = [];
    for await (const { id } of memory.list()) ids.push(id);
    for (const id of ids) await memory.delete(id);
    this.#weights.open(memory);
    memory.trim();
    return `Forgotten: ${ids.length} more tensors deleted from every tier.`;
  }

  #change(change: Partial<HeapSettings>): void {
    this.#act(async () => {
      const { settings } = this.#opened();
      const next = { ...settings, ...change };
      const bounded = { ...next, warm: Math.min(next.warm, next.ram / 4) };
      keepSettings(bounded);
      await this.open(bounded);
      showSettings(bounded);
      return `Opened anew: ${bounded.ram} MiB of RAM, ${bounded.warm} of them encoded, ${bounded.storage} MiB of storage.`;
    });
  }

  #opened(): Heap {
    if (this.#heap === null) throw new Error("The heap is being opened.");
    return this.#heap;
  }

  async #endWorkloads(): Promise<void> {
    await this.#trace.end();
    await this.#churn.end();
  }

  async #close(): Promise<void> {
    const heap = this.#heap;
    if (heap === null) return;
    await this.#endWorkloads();
    await this.#chats.close();
    await this.#weights.close();
    this.#heap = null;
    await heap.close();
  }

  // --- Showing -----------------------------------------------------------------------------------------

  #isBusy(): boolean {
    const isRunning = this.#trace.isRunning || this.#churn.isRunning || this.#isActing;
    return isRunning || this.#chats.isBusy || this.#weights.isBusy;
  }

  #canKeep({ settings, problem }: Heap): boolean {
    return settings.storage > 0 && problem === null;
  }

  #sampleNow(): void {
    if (this.#heap === null || document.hidden) return;
    const { memory } = this.#heap;
    const sample = this.#sampler.sample(memory.stats(), performance.now());
    this.#tiers.show(sample);
    this.#timelines.add(sample);
    this.#chats.showPlaces();
    this.#weights.showPlaces();
    const { blockingMs, layoutShift } = this.#observed;
    const moved = sample.stats.pools.reduce((sum, { compactedBytes }) => sum + compactedBytes, 0);
    element("map").dataset["paintedRows"] = `${this.#map.paintedRows}`;
    setText(element("cost-map"), formatPercent(this.#map.share.share));
    setText(element("cost-blocking"), `${Math.round(blockingMs)} ms`);
    setText(element("cost-shift"), layoutShift.toFixed(3));
    setText(element("cost-moved"), formatBytes(moved));
    if (this.#trace.summary !== null) setText(element("trace-summary"), this.#trace.summary);
    if (this.#churn.summary !== null) setText(element("churn-summary"), this.#churn.summary);
    if (element<HTMLDetailsElement>("report-words").open) {
      setText(element("report"), memory.report());
    }
  }
}

function storeFact({ storage }: HeapSettings): string {
  return storage === 0 ? "RAM only: storage is off" : "RAM and the browser's storage";
}

function showRunning(id: string, isRunning: boolean, start: string, pause: string): void {
  const button = element(id);
  button.setAttribute("aria-pressed", `${isRunning}`);
  setText(button, isRunning ? pause : start);
}

function showBudget(name: "ram" | "warm" | "storage", value: number): void {
  const text = value === 0 ? "off" : `${value} MiB`;
  setText(element(`${name}-value`), text);
  element(name).setAttribute("aria-valuetext", text);
}

/** Puts the sliders where the heap is. */
export function showSettings(settings: HeapSettings): void {
  for (const name of ["ram", "warm", "storage"] as const) {
    element<HTMLInputElement>(name).value = `${settings[name]}`;
    showBudget(name, settings[name]);
  }
  element<HTMLInputElement>("auto-compaction").checked = settings.autoCompaction;
}
