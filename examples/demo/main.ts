// The page: opens a heap, restores and checks what an earlier visit saved, and obeys the buttons.
import { formatBytes, type TensorKind } from "tierheap";
import { DemoHeap, KINDS, type Tally } from "./heap.js";
import { drawMeters, drawTensors, element, setBusy, showStatus } from "./view.js";

function sayTally(tally: Tally): string {
  if (tally.size === 0) return "there are no tensors";
  return [...tally].map(([outcome, count]) => `${count} ${outcome}`).join(", ");
}

/** Actions on all tensors. Each returns what to tell. */
const ACTIONS: Record<string, (heap: DemoHeap) => Promise<string>> = {
  write: async (heap) => `Pattern: ${sayTally(await heap.tally((id) => heap.write(id)))}.`,
  verify: async (heap) => `Verified: ${sayTally(await heap.tally((id) => heap.verify(id)))}.`,
  save: async (heap) => `Save: ${sayTally(await heap.tally((id) => heap.save(id)))}.`,
  swapOut: async (heap) => `Swap out: ${sayTally(await heap.tally((id) => heap.swapOut(id)))}.`,
  delete: async (heap) => `Delete: ${sayTally(await heap.tally((id) => heap.delete(id)))}.`,
  compact: async (heap) => `Compacted: ${formatBytes(heap.compact())} moved.`,
  trim: async (heap) => `Trimmed: ${formatBytes(heap.trim())} of arenas dropped.`,
};

const ROW_ACTIONS: Record<string, (heap: DemoHeap, id: string) => Promise<string>> = {
  load: (heap, id) => heap.load(id),
  save: (heap, id) => heap.save(id),
  swapOut: (heap, id) => heap.swapOut(id),
  delete: (heap, id) => heap.delete(id),
};

async function draw(heap: DemoHeap): Promise<void> {
  drawMeters(heap.stats());
  drawTensors(await heap.list(), (id) => heap.finding(id));
  element("report").textContent = heap.report();
}

/** Does it, draws what has become of the heap, and only then says so. */
async function perform(heap: DemoHeap, action: () => Promise<string>): Promise<void> {
  setBusy(true);
  const outcome = await action().catch((error: unknown) => error);
  await draw(heap);
  setBusy(false);
  if (typeof outcome === "string") showStatus(outcome);
  else showProblem(outcome);
}

/** Performs an action that nobody waits for; `perform` shows what goes wrong in it. */
function begin(heap: DemoHeap, action: () => Promise<string>): void {
  perform(heap, action).catch(showProblem);
}

function showProblem(error: unknown): void {
  showStatus(error instanceof Error ? error.message : String(error), "problem");
}

async function restore(heap: DemoHeap): Promise<string> {
  const tally = await heap.tally((id) => heap.verify(id));
  const count = [...tally.values()].reduce((sum, each) => sum + each, 0);
  if (count === 0) return "Ready. Nothing was saved before.";
  if (tally.get("pattern") === count) return `Restored ${count} tensors; every byte is equal.`;
  return `Restored ${count} tensors: ${sayTally(tally)}.`;
}

function listen(heap: DemoHeap): void {
  const form = element<HTMLFormElement>("allocate");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = new FormData(form);
    const count = Number(given.get("count"));
    begin(heap, async () => {
      const kind = given.get("kind") as TensorKind | "";
      await heap.allocate(kind, Number(given.get("bytes")), count);
      return `Allocated ${count} tensors.`;
    });
  });
  document.addEventListener("click", (event) => {
    const button = (event.target as Element).closest<HTMLElement>("button[data-action]");
    const { action = "", id } = button?.dataset ?? {};
    const all = ACTIONS[action];
    const one = ROW_ACTIONS[action];
    if (id !== undefined && one !== undefined) {
      begin(heap, async () => `${id}: ${await one(heap, id)}.`);
    } else if (all !== undefined) {
      begin(heap, () => all(heap));
    }
  });
}

async function start(): Promise<void> {
  const select = element("allocate").querySelector("select") as HTMLSelectElement;
  select.add(new Option("All kinds in turn", ""));
  for (const kind of KINDS) select.add(new Option(kind, kind));
  setBusy(true);
  const asked = new URLSearchParams(location.search);
  const heap = await DemoHeap.open({
    ram: asked.get("ram") ?? "64MiB",
    ssd: asked.get("ssd") ?? "256MiB",
  });
  listen(heap);
  await perform(heap, () => restore(heap));
  if (heap.problem !== null) {
    showStatus(`RAM only, nothing is kept: ${heap.problem}.`, "problem");
  }
}

start().catch(showProblem);
