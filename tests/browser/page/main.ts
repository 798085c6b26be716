// What the tests do inside a page, put on `window` for them.
import { createTensorMemory, type TensorMemory, type TensorMessage } from "tierheap/browser";
import {
  fileSystemConformance,
  seededRandom,
  type TierFixture,
  tierConformance,
} from "tierheap/testing";
import { indexedDbTier } from "../../../src/tier/indexed-db.js";
import { OpfsFileSystem, opfsTier } from "../../../src/tier/opfs.js";
import type { OpfsRequest } from "../../../src/tier/opfs-messages.js";
import { calibrateStore } from "./calibrate.js";

export type Store = "opfs" | "indexeddb";

let databaseCount = 0;

/** Waits for connections that are closing; one that stays open is an error. */
function deleteDatabase(name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase(name);
    request.onsuccess = () => resolve();
    request.onerror = () => reject(request.error ?? new Error(`cannot delete ${name}`));
    request.onblocked = () => {
      setTimeout(() => reject(new Error(`${name} is still open`)), 5000);
    };
  });
}

const deleteRow = IDBObjectStore.prototype.delete;

/** Makes the browser abort every transaction that deletes a row. */
function abortDeletions(isFailing: boolean): void {
  IDBObjectStore.prototype.delete = isFailing
    ? function abort(this: IDBObjectStore, key) {
        const request = deleteRow.call(this, key);
        this.transaction.abort();
        return request;
      }
    : deleteRow;
}

async function indexedDbFixture(options: { readonly capacityBytes: number }): Promise<TierFixture> {
  databaseCount += 1;
  const database = `conformance-${databaseCount}`;
  const open = () => indexedDbTier({ database, ...options });
  return {
    tier: open(),
    reopened: async () => open(),
    failDeletions: abortDeletions,
    dispose: async () => {
      abortDeletions(false);
      await deleteDatabase(database);
    },
  };
}

async function removeFolder(name: string): Promise<void> {
  const root = await navigator.storage.getDirectory();
  await root.removeEntry(name, { recursive: true });
}

const createOpfsWorker = () =>
  new Worker(new URL("../../../src/tier/opfs-worker.ts", import.meta.url), { type: "module" });

/** Workers that refuse to change any file while they are told to. */
function stoppableWorkers() {
  let isStopped = false;
  const createWorker = () => {
    const worker = createOpfsWorker();
    const post = worker.postMessage.bind(worker);
    worker.postMessage = (request: OpfsRequest, transfer: unknown) => {
      if (!isStopped || !["create", "write", "rename", "remove"].includes(request.call)) {
        return post(request, transfer as Transferable[]);
      }
      const data = { id: request.id, code: "EIO", message: "injected" };
      queueMicrotask(() => worker.onmessage?.(new MessageEvent("message", { data })));
    };
    return worker;
  };
  const failDeletions = (isFailing: boolean) => {
    isStopped = isFailing;
  };
  return { createWorker, failDeletions };
}

async function opfsFixture(options: { readonly capacityBytes: number }): Promise<TierFixture> {
  databaseCount += 1;
  const directory = `conformance-${databaseCount}`;
  const tiers: ReturnType<typeof opfsTier>[] = [];
  const { createWorker, failDeletions } = stoppableWorkers();
  const open = () => {
    const tier = opfsTier({ directory, createWorker, ...options });
    tiers.push(tier);
    return tier;
  };
  return {
    tier: open(),
    reopened: async () => open(),
    failDeletions,
    dispose: async () => {
      for (const tier of tiers) await tier.close();
      await removeFolder(directory);
    },
  };
}

async function fileSystemFixture() {
  databaseCount += 1;
  const directory = `files-${databaseCount}`;
  const fileSystem = new OpfsFileSystem();
  await fileSystem.start();
  return {
    fileSystem,
    directory: `${directory}/inner`,
    dispose: async () => {
      fileSystem.end();
      await removeFolder(directory);
    },
  };
}

const SUITES = {
  indexeddb: () => tierConformance(indexedDbFixture),
  opfs: () => tierConformance(opfsFixture),
  files: () => fileSystemConformance(fileSystemFixture),
};

export type Suite = keyof typeof SUITES;

/** Runs one case of a suite; the result says what broke, or null. */
async function runCase(suite: Suite, name: string): Promise<string | null> {
  const found = SUITES[suite]().find((each) => each.name === name);
  if (found === undefined) return `no case ${name}`;
  try {
    await found.run();
    return null;
  } catch (error) {
    return String(error);
  }
}

const TENSOR_BYTES = 2 ** 20;

/** Bytes that follow from a seed and do not compress, so that a quota counts them all. */
function pattern(seed: number): Uint8Array<ArrayBuffer> {
  const random = seededRandom(seed);
  const words = new Uint32Array(TENSOR_BYTES / 4);
  for (let index = 0; index < words.length; index++) words[index] = random.uint32();
  return new Uint8Array(words.buffer);
}

function openMemory(
  store: Store,
  directory: string,
  ram = "16MiB",
  waitMs?: number,
): Promise<TensorMemory> {
  const ssd = { directory, browser: { store, waitMs } };
  return createTensorMemory({ budgets: { ram, ssd: "256MiB" }, ssd });
}

function write(memory: TensorMemory, id: string, seed: number): void {
  const tensor = memory.allocate({ kind: "KV_CACHE", id, byteLength: TENSOR_BYTES });
  using pin = tensor.pin();
  pin.bytes.set(pattern(seed));
}

async function isIntact(memory: TensorMemory, id: string, seed: number): Promise<boolean> {
  using lease = await memory.acquire(id, { access: "read" });
  if (lease === null) return false;
  const { bytes } = lease;
  return pattern(seed).every((byte, index) => byte === bytes[index]);
}

/** Saves tensors `saved/0`, `saved/1`, … and closes nothing. */
async function saveSome(store: Store, directory: string, count: number): Promise<string[]> {
  const memory = await openMemory(store, directory);
  const outcomes: string[] = [];
  for (let seed = 0; seed < count; seed++) {
    write(memory, `saved/${seed}`, seed);
    outcomes.push(await memory.save(`saved/${seed}`, { mode: "durable" }));
  }
  return outcomes;
}

/** Opens a memory again; says how many of its tensors are intact, and how many are not. */
async function inspect(
  store: Store,
  directory: string,
): Promise<{ intact: number; damaged: string[] }> {
  const memory = await openMemory(store, directory);
  const ids: string[] = [];
  for await (const { id } of memory.list()) ids.push(id);
  const damaged = [...memory.verify().problems];
  for (const id of ids) {
    if (!(await isIntact(memory, id, Number(id.split("/")[1])))) damaged.push(id);
  }
  await memory.close();
  return { intact: ids.length - damaged.length, damaged };
}

/** Swaps tensors out for as long as the page lives. Resolves when the first has gone. */
async function startSpilling(store: Store, directory: string): Promise<void> {
  const memory = await openMemory(store, directory);
  const spill = async (number: number) => {
    const id = `spill/${number % 4}`;
    if (number >= 4) memory.free(id);
    write(memory, id, number % 4);
    await memory.swapOut(id);
  };
  const goOn = async () => {
    for (let number = 1; ; number++) await spill(number);
  };
  await spill(0);
  goOn().catch((error: unknown) => console.error(error));
}

/** Swaps out more than the quota allows, then looks at everything again. */
async function fillQuota(store: Store, directory: string, count: number) {
  const memory = await openMemory(store, directory, "64MiB");
  const outcomes: string[] = [];
  for (let seed = 0; seed < count; seed++) {
    write(memory, `${seed}`, seed);
    outcomes.push(await memory.swapOut(`${seed}`));
  }
  const isRefusedHot = outcomes.every(
    (outcome, seed) => outcome === "stored" || memory.tensor(`${seed}`)?.isResident === true,
  );
  let intact = 0;
  for (let seed = 0; seed < count; seed++) {
    if (await isIntact(memory, `${seed}`, seed)) intact += 1;
  }
  const { problems } = memory.verify();
  const { tier, transfers } = memory.stats();
  const { objectCount } = tier;
  // The tier may have been asked again, for fewer bytes.
  const { noSpaceCount } = transfers;
  for (let seed = 0; seed < count; seed++) await memory.delete(`${seed}`);
  write(memory, "later", 99);
  const later = await memory.swapOut("later");
  const isLaterIntact = await isIntact(memory, "later", 99);
  await memory.delete("later");
  await memory.close();
  return {
    outcomes,
    isRefusedHot,
    intact,
    problems,
    noSpaceCount,
    objectCount,
    later,
    isLaterIntact,
  };
}

/** How a memory is opened whose store is left to the page. */
export interface AutoOptions {
  readonly directory: string;
  /** The private file system is there and does not work, as in some browsers. */
  readonly isBroken?: boolean;
  /** Start the worker from a file of the page. */
  readonly hasOwnWorker?: boolean;
  readonly persist?: boolean;
}

/** Saves a tensor in the store that works here; says which that was, and what was told about others. */
async function saveSomewhere({ directory, isBroken, hasOwnWorker, persist }: AutoOptions) {
  if (isBroken === true) {
    // What a worker sees cannot be reached from here; a worker that fails is the same to the page.
    const url = URL.createObjectURL(new Blob(["throw new Error('broken')"]));
    window.Worker = class extends Worker {
      constructor() {
        super(url);
      }
    };
  }
  const browser = { persist, ...(hasOwnWorker === true && { createWorker: createOpfsWorker }) };
  const memory = await createTensorMemory({
    budgets: { ram: "16MiB", ssd: "64MiB" },
    ssd: { directory, browser },
  });
  write(memory, "one", 1);
  const outcome = await memory.save("one");
  memory.free("one");
  const isBack = outcome === "stored" && (await isIntact(memory, "one", 1));
  const told: string[] = [];
  for await (const event of memory.events({ signal: AbortSignal.timeout(200) })) {
    if (event.type === "tier-unavailable") told.push(event.error.message);
  }
  await memory.close();
  const storage = (navigator as Partial<Navigator>).storage;
  const hasFolder = await Promise.resolve(storage?.getDirectory?.())
    .then((root) => root?.getDirectoryHandle(directory))
    .then(
      (folder) => folder !== undefined,
      () => false,
    );
  const databases = await indexedDB.databases();
  const hasDatabase = databases.some(({ name }) => name === directory);
  return { outcome, isBack, told, hasFolder, hasDatabase };
}

/** Lengths of the versioned tensors, from packed ones to files of their own. */
const VERSIONED_BYTES = [4096, 65_536, 200_000, 2 ** 20, 3 * 2 ** 20];

/** The version at the front, then bytes that follow from it. */
function versioned(key: number, version: number): Uint8Array {
  const words = new Uint32Array((VERSIONED_BYTES[key] as number) / 4);
  let state = key * 1_000_003 + version;
  for (let index = 0; index < words.length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    words[index] = state;
  }
  words[0] = version;
  return new Uint8Array(words.buffer);
}

/** Saves one version after another for as long as the page lives, and says so before and after. */
async function saveVersions(store: Store, directory: string, first: number): Promise<void> {
  const memory = await openMemory(store, directory, "32MiB");
  for (let version = first; ; version++) {
    const key = version % VERSIONED_BYTES.length;
    const id = `${key}`;
    const byteLength = VERSIONED_BYTES[key] as number;
    if (memory.tensor(id) === null) {
      await memory.delete(id);
      memory.allocate({ kind: "KV_CACHE", id, byteLength });
    }
    {
      using lease = await memory.acquire(id, { access: "write" });
      lease?.bytes.set(versioned(key, version));
    }
    const outcome = await memory.save(id, { mode: "durable" });
    console.log(outcome === "stored" ? `saved ${key} ${version}` : `refused ${key} ${version}`);
  }
}

/** The version of each key: 0 for none, -1 for bytes that are of no version. */
async function readVersions(
  store: Store,
  directory: string,
): Promise<{ readonly versions: number[]; readonly problems: readonly string[] }> {
  const memory = await openMemory(store, directory, "32MiB");
  const versions: number[] = [];
  for (const key of VERSIONED_BYTES.keys()) {
    using lease = await memory.acquire(`${key}`, { access: "read" }).catch(() => undefined);
    if (lease === null) {
      versions.push(0);
      continue;
    }
    const bytes = lease?.bytes.slice() ?? new Uint8Array(4);
    const version = new Uint32Array(bytes.buffer)[0] as number;
    const expected = versioned(key, version);
    const isIntact = bytes.every((byte, index) => byte === expected[index]);
    versions.push(lease !== undefined && isIntact ? version : -1);
  }
  const { problems } = memory.verify();
  await memory.close();
  return { versions, problems };
}

/** Swaps a long tensor out and back in, through coding workers. */
async function codeInWorkers(): Promise<{
  readonly isIntact: boolean;
  readonly jobCount: number;
  readonly failureCount: number;
  readonly isShared: boolean;
}> {
  const memory = await createTensorMemory({
    shared: "auto",
    budgets: { ram: "64MiB", ssd: "256MiB" },
    ssd: { directory: "coded" },
    codecs: { default: "lossless", workers: 2 },
  });
  const shape = [8192, 128];
  const random = seededRandom(5);
  const original = new Uint32Array(8192 * 128).map(() => random.uint32() & 0x3f8f0000);
  const tensor = memory.allocate({ kind: "KV_CACHE", id: "a", shape, dtype: "u32" });
  {
    using pin = tensor.pin();
    pin.view.set(original);
  }
  await memory.swapOut("a");
  let isIntact: boolean;
  {
    using lease = await memory.acquire<"u32">("a", { access: "read" });
    isIntact = lease?.view.every((value, index) => value === original[index]) ?? false;
  }
  const { jobCount = 0, failureCount = 0 } = memory.stats().codecWorkers ?? {};
  await memory.delete("a");
  let isShared: boolean;
  {
    using pin = memory.allocate({ kind: "ACTIVATIONS", byteLength: 64 }).pin();
    isShared = !(pin.bytes.buffer instanceof ArrayBuffer);
  }
  await memory.close();
  return { isIntact, jobCount, failureCount, isShared };
}

let shared: TensorMemory | null = null;

/** One of several pages on one database. */
async function openShared(store: Store, directory: string, waitMs?: number): Promise<string> {
  try {
    shared = await openMemory(store, directory, "16MiB", waitMs);
    return "open";
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

async function swapOutShared(id: string, seed: number): Promise<string> {
  if (shared === null) return "not open";
  write(shared, id, seed);
  return shared.swapOut(id);
}

async function isSharedIntact(id: string, seed: number): Promise<boolean | string> {
  if (shared === null) return "not open";
  try {
    return await isIntact(shared, id, seed);
  } catch (error) {
    return String(error);
  }
}

async function closeShared(): Promise<void> {
  await shared?.close();
}

/**
 * A Web Worker on a shared heap: tensors go there and back, and the worker is killed while it
 * allocates and frees.
 */
async function killWorkers(count: number): Promise<{
  readonly doubled: number;
  readonly liveBytes: number;
  readonly problems: readonly string[];
}> {
  const memory = await createTensorMemory({ budgets: { ram: "32MiB" }, shared: "auto" });
  let doubled = 0;
  for (let death = 0; death < count; death++) {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    const answer = () =>
      new Promise<unknown>((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = ({ message }) => reject(new Error(message));
      });
    const token = memory.share({ kind: "ACTIVATIONS" });
    let answered = answer();
    worker.postMessage({ token });
    if ((await answered) !== "attached") throw new Error("the worker did not attach");
    const ended = memory.watch({}, token);
    const given = memory.allocate({ kind: "ACTIVATIONS", byteLength: 1000 });
    {
      using pin = given.pin();
      pin.bytes.fill(21);
    }
    answered = answer();
    worker.postMessage({ tensor: given.handOver() });
    const back = memory.adopt((await answered) as TensorMessage);
    {
      using pin = back.pin();
      if (pin.bytes.every((byte) => byte === 42)) doubled += 1;
    }
    back.free();
    answered = answer();
    worker.postMessage({ churn: true });
    if ((await answered) !== "churning") throw new Error("the worker does not churn");
    worker.terminate();
    await ended;
  }
  const { problems } = memory.verify();
  const liveBytes = memory.stats().pools.reduce((sum, pool) => sum + pool.requestedBytes, 0);
  await memory.close();
  return { doubled, liveBytes, problems };
}

const api = {
  codeInWorkers,
  killWorkers,
  runCase,
  calibrateStore,
  saveSome,
  inspect,
  startSpilling,
  fillQuota,
  saveSomewhere,
  saveVersions,
  readVersions,
  openShared,
  swapOutShared,
  isSharedIntact,
  closeShared,
};

export type PageApi = typeof api;

declare global {
  interface Window {
    tierheap: PageApi;
  }
}

window.tierheap = api;
