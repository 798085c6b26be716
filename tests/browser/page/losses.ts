// A store that goes away under a page, and what the page's APIs are given.
import { type Clock, createTensorMemory, type TensorMemory, TierError } from "tierheap/browser";
import { systemClock } from "tierheap/testing";
import { noise } from "./faults.js";
import type { Store } from "./main.js";

/** From short ones that share a file to one with a file of its own. */
const LENGTHS = [3000, 70_000, 2.25 * 2 ** 20];
const DEADLINE_MS = 15_000;

let memory: TensorMemory | null = null;
let foreign: IDBDatabase | null = null;

function opened(): TensorMemory {
  if (memory === null) throw new Error("no memory is open");
  return memory;
}

/** What became of it: its outcome, the code of a typed error, or a word that no test allows. */
async function tell(work: () => Promise<unknown>): Promise<string> {
  const hang = new Promise((resolve) => setTimeout(() => resolve("hangs"), DEADLINE_MS));
  try {
    return String(await Promise.race([work(), hang]));
  } catch (error) {
    return error instanceof TierError ? `TierError ${error.code}` : `untyped ${error}`;
  }
}

function put(id: string, seed: number, byteLength: number): void {
  using pin = opened().allocate({ kind: "KV_CACHE", id, byteLength }).pin();
  pin.bytes.set(noise(byteLength, seed));
}

async function holds(id: string, seed: number): Promise<string> {
  return tell(async () => {
    using lease = await opened().acquire(id, { access: "read" });
    if (lease === null) return "missing";
    const expected = noise(lease.bytes.length, seed);
    return lease.bytes.every((byte, index) => byte === expected[index]) ? "intact" : "wrong bytes";
  });
}

/** How long an opening waits for others. */
export type Patience = "usual" | "short" | "endless";

/** Real time in which deadlines come twenty times as early. */
const hurried: Clock = {
  ...systemClock,
  defer: (delayMs, work) => systemClock.defer(delayMs / 20, work),
};
const WAITS_MS = { usual: undefined, short: 300, endless: Number.POSITIVE_INFINITY } as const;

/** Opens a memory; the result is `open`, or the code of the error. */
async function openMemory(
  store: Store,
  directory: string,
  patience: Patience = "usual",
): Promise<string> {
  return tell(async () => {
    memory = await createTensorMemory({
      budgets: { ram: "32MiB", ssd: "64MiB" },
      ssd: { directory, browser: { store, waitMs: WAITS_MS[patience] } },
      // Files need their time to start a worker; how long they wait for another page is in waitMs.
      ...(patience === "short" && store === "indexeddb" && { seams: { clock: hurried } }),
    });
    return "open";
  });
}

/** A memory with tensors in RAM, in the store, and in both. */
async function prepare(store: Store, directory: string): Promise<void> {
  const outcome = await openMemory(store, directory);
  if (outcome !== "open") throw new Error(outcome);
  for (const [index, byteLength] of LENGTHS.entries()) {
    for (const name of ["hot", "cold", "kept"]) put(`${name}/${index}`, index, byteLength);
    await opened().swapOut(`cold/${index}`);
    await opened().save(`kept/${index}`, { mode: "durable" });
  }
}

/** What the page finds when the store has gone. */
async function lookAround(): Promise<{
  readonly hot: string[];
  readonly cold: string[];
  readonly kept: string[];
  readonly stored: string[];
  readonly problems: readonly string[];
}> {
  const each = LENGTHS.map((_length, index) => index);
  const all = (work: (index: number) => Promise<string>) => Promise.all(each.map(work));
  const stored = await all((index) =>
    tell(() => opened().save(`hot/${index}`, { mode: "durable" })),
  );
  return {
    stored,
    cold: await all((index) => holds(`cold/${index}`, index)),
    hot: await all((index) => holds(`hot/${index}`, index)),
    kept: await all((index) => holds(`kept/${index}`, index)),
    problems: opened().verify().problems,
  };
}

/** What the memory has said of its store, as soon as it has said anything. */
async function heard(waitMs: number): Promise<string[]> {
  const found: string[] = [];
  for await (const event of opened().events({ signal: AbortSignal.timeout(waitMs) })) {
    if (event.type !== "tier-unavailable") continue;
    const code = event.error instanceof TierError ? event.error.code : "untyped";
    found.push(`${event.tier} ${code}: ${event.error.message}`);
    break;
  }
  return found;
}

async function close(): Promise<string> {
  return tell(async () => {
    await memory?.close();
    memory = null;
    return "closed";
  });
}

/** Saves and reads in a memory that was just opened. */
async function works(): Promise<string> {
  put("again", 9, 70_000);
  const outcome = await tell(() => opened().save("again", { mode: "durable" }));
  opened().free("again");
  return `${outcome} ${await holds("again", 9)}`;
}

/** Deletes the database as any page of the origin may. */
function deleteDatabase(name: string): Promise<string> {
  return new Promise((resolve) => {
    const request = indexedDB.deleteDatabase(name);
    request.onsuccess = () => resolve("deleted");
    request.onerror = () => resolve(`${request.error?.name}`);
    request.onblocked = () => resolve("blocked");
  });
}

/** Opens the database at a version, as a later release would, and keeps it open. */
function openForeign(name: string, version: number): Promise<string> {
  return new Promise((resolve) => {
    const request = indexedDB.open(name, version);
    request.onsuccess = () => {
      foreign = request.result;
      resolve("open");
    };
    request.onerror = () => resolve(`${request.error?.name}`);
    request.onblocked = () => resolve("blocked");
  });
}

function closeForeign(): void {
  foreign?.close();
}

/** Deletes what another page of the origin can reach in a directory; what is locked stays. */
async function deleteFiles(directory: string): Promise<number> {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle(directory);
  let count = 0;
  const names: string[] = [];
  for await (const name of (folder as unknown as { keys(): AsyncIterable<string> }).keys()) {
    names.push(name);
  }
  for (const name of names) {
    await folder.removeEntry(name).then(
      () => {
        count += 1;
      },
      () => {},
    );
  }
  return count;
}

/** Deletes a whole directory, unless a file in it is locked. */
async function deleteDirectory(name: string): Promise<string> {
  const root = await navigator.storage.getDirectory();
  return root.removeEntry(name, { recursive: true }).then(
    () => "deleted",
    (error: DOMException) => error.name,
  );
}

/** Bytes that an API was given and may not have been: of linear or shared memory, or a part of a buffer. */
async function watchBytes(
  store: Store,
  isShared: boolean,
): Promise<{
  readonly seen: number;
  readonly wrong: readonly string[];
  readonly intact: string[];
}> {
  let seen = 0;
  const wrong: string[] = [];
  const linear = new WeakSet<ArrayBufferLike>();
  const { Memory } = WebAssembly;
  WebAssembly.Memory = class extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      super(descriptor);
      linear.add(this.buffer);
    }
  };
  const look = (what: string, value: unknown) => {
    if (Array.isArray(value)) for (const each of value) look(what, each);
    if (!ArrayBuffer.isView(value)) return;
    seen += 1;
    const { buffer, byteLength } = value;
    if (!(buffer instanceof ArrayBuffer)) wrong.push(`${what} was given shared memory`);
    else if (linear.has(buffer)) wrong.push(`${what} was given linear memory`);
    else if (buffer.resizable === true) wrong.push(`${what} was given resizable memory`);
    // What is handed over goes as a whole; a row of a database would be the whole buffer.
    else if (what === "put" && byteLength !== buffer.byteLength) wrong.push("put was given a part");
  };
  const { put: putRow } = IDBObjectStore.prototype;
  IDBObjectStore.prototype.put = function (this: IDBObjectStore, ...given) {
    look("put", given[0]);
    return putRow.apply(this, given);
  };
  const { postMessage } = Worker.prototype;
  Worker.prototype.postMessage = function (this: Worker, message: unknown, transfer: never) {
    look("postMessage", (message as { parameters?: unknown }).parameters);
    return postMessage.call(this, message, transfer);
  };
  try {
    memory = await createTensorMemory({
      budgets: { ram: "48MiB", ssd: "64MiB" },
      ssd: { directory: `watched-${isShared}`, browser: { store } },
      shared: isShared,
      codecs: { default: "raw" },
    });
    for (const [index, byteLength] of LENGTHS.entries()) {
      put(`cold/${index}`, index, byteLength);
      await opened().swapOut(`cold/${index}`);
    }
    const intact = await Promise.all(
      LENGTHS.map((_length, index) => holds(`cold/${index}`, index)),
    );
    await close();
    return { seen, wrong, intact };
  } finally {
    WebAssembly.Memory = Memory;
    IDBObjectStore.prototype.put = putRow;
    Worker.prototype.postMessage = postMessage;
  }
}

const losses = {
  prepare,
  openMemory,
  lookAround,
  heard,
  deleteDirectory,
  works,
  close,
  deleteDatabase,
  openForeign,
  closeForeign,
  deleteFiles,
  watchBytes,
};

declare global {
  interface Window {
    losses: typeof losses;
  }
}

window.losses = losses;
