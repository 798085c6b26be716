// Every call of the platform that changes a store fails in turn: what a page does then, and what it finds.
import { createTensorMemory, type TensorMemory, TierError } from "tierheap/browser";
import { seededRandom } from "tierheap/testing";
import {
  beginFaults,
  endFaults,
  type FaultPlan,
  type FaultReport,
  wrapDatabases,
} from "./faulty-calls.js";
import type { Store } from "./main.js";

let directoryCount = 0;
let isWrapped = false;

const made = new Map<string, Uint8Array<ArrayBuffer>>();

/** Bytes that follow from a seed and do not compress. */
export function noise(byteLength: number, seed: number): Uint8Array<ArrayBuffer> {
  const name = `${byteLength}/${seed}`;
  const found = made.get(name);
  if (found !== undefined) return found;
  const random = seededRandom(seed);
  const words = new Uint32Array(Math.ceil(byteLength / 4));
  for (let index = 0; index < words.length; index++) words[index] = random.uint32();
  const bytes = new Uint8Array(words.buffer, 0, byteLength);
  made.set(name, bytes);
  return bytes;
}

function isEqual(some: Uint8Array, others: Uint8Array): boolean {
  if (some.length !== others.length) return false;
  for (let index = 0; index < some.length; index++) if (some[index] !== others[index]) return false;
  return true;
}

/** Where orders go: into the worker, or to the page's own calls. */
interface Faults {
  begin(plan: FaultPlan): Promise<void>;
  end(): Promise<FaultReport>;
}

/** A worker that fails, and the way to tell it. */
function faultyWorker(): { createWorker(): Worker; readonly faults: Faults } {
  const name = crypto.randomUUID();
  const channel = new BroadcastChannel(name);
  const order = (given: FaultPlan | "end") =>
    new Promise<FaultReport>((resolve) => {
      channel.onmessage = ({ data }) => resolve(data as FaultReport);
      channel.postMessage(given);
    });
  return {
    createWorker: () =>
      new Worker(new URL("./fault-worker.ts", import.meta.url), { type: "module", name }),
    faults: {
      begin: async (plan) => {
        await order(plan);
      },
      end: () => order("end"),
    },
  };
}

async function fill(memory: TensorMemory, id: string, bytes: Uint8Array): Promise<void> {
  if (memory.tensor(id) === null) {
    memory.allocate({ kind: "KV_CACHE", id, byteLength: bytes.byteLength });
  }
  using lease = await memory.acquire(id, { access: "write" });
  lease?.bytes.set(bytes);
}

async function holds(memory: TensorMemory, id: string, bytes: Uint8Array): Promise<boolean> {
  using lease = await memory.acquire(id, { access: "read" });
  return lease !== null && isEqual(lease.bytes, bytes);
}

export interface FaultOutcome {
  /** Calls of the platform that failed, of all there were while the plan held. */
  readonly report: FaultReport;
  /** What the page was told, in turn: an outcome, or an error's class and code. */
  readonly told: readonly string[];
  /** What should not have been. */
  readonly wrong: readonly string[];
}

/** Replaces a saved tensor, swaps one out and deletes one while calls of the platform fail. */
export async function runFaults(
  store: Store,
  byteLength: number,
  plan: FaultPlan,
): Promise<FaultOutcome> {
  const directory = `faults-${++directoryCount}`;
  const { createWorker, faults: ofWorker } = faultyWorker();
  const ofPage = {
    begin: async (given: FaultPlan) => beginFaults(given),
    end: async () => endFaults(),
  };
  const faults = store === "opfs" ? ofWorker : ofPage;
  if (store === "indexeddb" && !isWrapped) wrapDatabases();
  isWrapped ||= store === "indexeddb";
  const open = () =>
    createTensorMemory({
      budgets: { ram: "32MiB", ssd: "256MiB" },
      ssd: { directory, browser: { store, createWorker } },
    });
  const wrong: string[] = [];
  const told: string[] = [];
  const check = (isRight: boolean, what: string) => isRight || wrong.push(what);
  const tell = async (work: () => Promise<unknown>): Promise<string> => {
    let word: string;
    try {
      word = String(await work());
    } catch (error) {
      word = error instanceof TierError ? `TierError ${error.code}` : String(error);
    }
    told.push(word);
    return word;
  };
  const [old, newer, spilled, last] = [1, 2, 3, 4].map((seed) => noise(byteLength, seed)) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  const memory = await open();
  for (const id of ["kept", "gone"]) {
    await fill(memory, id, old);
    check((await memory.save(id, { mode: "durable" })) === "stored", `${id} is not saved`);
  }
  await fill(memory, "kept", newer);
  await fill(memory, "spilled", spilled);

  await faults.begin(plan);
  const isSaved = (await tell(() => memory.save("kept", { mode: "durable" }))) === "stored";
  const isSwapped = (await tell(() => memory.swapOut("spilled"))) === "stored";
  const isDeleted = (await tell(() => memory.delete("gone"))) === "true";
  const report = await faults.end();

  // A refused tensor is where it was; what was stored before is what a restart finds.
  check(
    memory.tensor("kept")?.isResident === true,
    "the tensor left RAM without having been saved",
  );
  check(await holds(memory, "kept", newer), "the tensor in RAM changed");
  check(isSwapped || memory.tensor("spilled")?.isResident === true, "the refused tensor left RAM");
  check(await holds(memory, "spilled", spilled), "the swapped-out tensor changed");
  memory.free("kept");
  const isOld = await holds(memory, "kept", old);
  if (!isOld) check(await holds(memory, "kept", newer), "neither the old value nor the new one");
  if (isSaved) check(!isOld, "what was acknowledged is not there");
  // Where there is no space, nothing was replaced. A device that fails may have told the truth too late.
  else if (plan.error === "QuotaExceededError") check(isOld, "the old value is not intact");
  if (isDeleted) check((await memory.acquire("gone")) === null, "a deleted tensor is back");
  check(memory.verify().problems.length === 0, memory.verify().problems.join());

  // Space has returned.
  await fill(memory, "kept", last);
  check(
    (await memory.save("kept", { mode: "durable" })) === "stored",
    "saving does not work again",
  );
  await fill(memory, "spilled", last);
  check((await memory.swapOut("spilled")) === "stored", "swapping does not work again");
  check(await holds(memory, "spilled", last), "what was swapped out again is not intact");
  await memory.close();

  const next = await open();
  check(await holds(next, "kept", last), "the last value is not there after reopening");
  check(next.verify().problems.length === 0, next.verify().problems.join());
  await next.delete("kept");
  await next.delete("gone");
  await next.close();
  return { report, told, wrong };
}

/** What a page is told that saves until the browser refuses, and again when there is more room. */
export interface QuotaOutcome {
  readonly storedCount: number;
  readonly told: readonly string[];
  readonly wrong: readonly string[];
}

/** A browser takes its time until the room of deleted rows is to be had again. */
const ROOM_MS = 20_000;

let filling: { readonly memory: TensorMemory; readonly byteLength: number } | null = null;

/** Saves tensors of one length until the browser's quota refuses one; replaces one that is saved. */
export async function fillUp(
  store: Store,
  byteLength: number,
  countMax: number,
): Promise<QuotaOutcome> {
  const memory = await createTensorMemory({
    budgets: { ram: "64MiB", ssd: "256MiB" },
    ssd: { directory: "filling", browser: { store } },
  });
  filling = { memory, byteLength };
  const told: string[] = [];
  const wrong: string[] = [];
  let storedCount = 0;
  let outcome = "stored";
  for (; outcome === "stored" && storedCount < countMax; ) {
    const id = `full/${storedCount}`;
    await fill(memory, id, noise(byteLength, storedCount));
    outcome = await memory.save(id, { mode: "durable" });
    if (outcome === "stored") {
      storedCount += 1;
      memory.free(id);
    }
  }
  told.push(outcome);
  if (memory.tensor(`full/${storedCount}`)?.isResident !== true) wrong.push("it left RAM");
  memory.free(`full/${storedCount}`);
  // Nothing that is stored may suffer from what is refused.
  await fill(memory, "full/0", noise(byteLength, 1000));
  const replaced = await memory.save("full/0", { mode: "durable" });
  told.push(replaced);
  memory.free("full/0");
  for (let seed = 0; seed < storedCount; seed++) {
    const isReplaced = seed === 0 && replaced === "stored";
    const expected = noise(byteLength, isReplaced ? 1000 : seed);
    if (!(await holds(memory, `full/${seed}`, expected))) wrong.push(`full/${seed} is not intact`);
    memory.free(`full/${seed}`);
  }
  wrong.push(...memory.verify().problems);
  return { storedCount, told, wrong };
}

/** There is room again: because tensors were deleted, or because the quota is larger. */
export async function goOnFilling(isDeleting: boolean, storedCount: number): Promise<string> {
  if (filling === null) return "nothing was filled";
  const { memory, byteLength } = filling;
  if (isDeleting) {
    for (let seed = 0; seed < storedCount; seed++) await memory.delete(`full/${seed}`);
  }
  await fill(memory, "after", noise(byteLength, 7));
  const endMs = performance.now() + ROOM_MS;
  let outcome = await memory.save("after", { mode: "durable" });
  while (outcome === "no-space" && performance.now() < endMs) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    outcome = await memory.save("after", { mode: "durable" });
  }
  memory.free("after");
  const isBack = outcome === "stored" && (await holds(memory, "after", noise(byteLength, 7)));
  return isBack ? "works" : outcome;
}

export async function endFilling(): Promise<void> {
  await filling?.memory.close();
  filling = null;
}

const faults = { runFaults, fillUp, goOnFilling, endFilling };

declare global {
  interface Window {
    faults: typeof faults;
  }
}

window.faults = faults;
