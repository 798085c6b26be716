// Histories of several clients on few tensors of one memory: put, get, evict, promote, delete, in an order
// that a seeded draw decides, on files that fail, over one tier and over two. Each tensor is a register; whether what the clients saw
// could have happened one after the other is asked at the end.
import { CorruptionError, MisuseError, OutOfMemoryError, TierError } from "../errors.js";
import type { TensorMemoryOptions } from "../memory/options.js";
import { type Random, seededRandom } from "../random.js";
import type { TensorMemory } from "../tensor-memory.js";
import { isLinearizable, type RegisterOperation } from "./linearizability.js";
import { manualClock } from "./manual-clock.js";
import { memoryFileSystem } from "./memory-file-system.js";
import { TurnTaking } from "./turn-taking.js";

/** What the clients use of a memory; a bug may be planted between. */
export type HistoryMemory = Pick<
  TensorMemory,
  | "acquire"
  | "allocate"
  | "close"
  | "delete"
  | "prefetch"
  | "reserve"
  | "save"
  | "stats"
  | "swapOut"
  | "tensor"
  | "tryAllocate"
  | "verify"
>;

export interface HistoriesOptions {
  readonly seed: number;
  readonly historyCount: number;
  /** Opens the memory under test, such as `createTensorMemory`. */
  createMemory(options: TensorMemoryOptions): Promise<HistoryMemory>;
}

export interface HistoriesReport {
  readonly historyCount: number;
  readonly operationCount: number;
  /** Histories of a key that cannot have happened, with what else must not be. */
  readonly violations: readonly string[];
  /** Pairs of operations on one key that overlapped. */
  readonly overlapCount: number;
  readonly faultCount: number;
  /** Operations that a fault made fail. */
  readonly failedCount: number;
  /** Tensors that lost their hot copy, with a write or without. */
  readonly evictionCount: number;
  /** Loads from the tier. */
  readonly loadCount: number;
}

const KEY_COUNT = 4;
const CLIENT_COUNT = 4;
const STEP_COUNT = 5;
const TENSOR_BYTES = 4096;
/** Tensors for which there is room. */
const ROOM_COUNT = 2;
/** Histories on one memory: what an earlier one left may matter. */
const MEMORY_HISTORY_COUNT = 50;
const VIOLATION_COUNT_MAX = 100;
const SSD_PATH = "/store";
/** Tensors that are deleted before a restart. */
const DELETED_COUNT = 8;
/** Of 1,000 file operations of a deletion, how many fail before a restart. */
const DELETION_FAULTS_PER_MILLE = 600;
/** After this long every tier is asked again that has failed. */
const BREAKER_MS = 200_000;
const KIND = "KV_CACHE";
const MIB = 2 ** 20;

const idOf = (key: number) => `tensor ${key}`;

/** What the clients have done, by key. */
class Recorder {
  readonly operations: RegisterOperation[][] = Array.from({ length: KEY_COUNT }, () => []);
  readonly problems: string[] = [];
  failedCount = 0;
  #now = 0;

  /** @returns The next moment. */
  tick(): number {
    this.#now += 1;
    return this.#now;
  }

  add(key: number, operation: RegisterOperation): void {
    this.operations[key]?.push(operation);
  }

  /** Rethrows what no fault explains. */
  forgive(error: unknown): void {
    if (error instanceof CorruptionError) this.problems.push("the only copy was lost");
    else if (!(error instanceof TierError || error instanceof OutOfMemoryError)) throw error;
    this.failedCount += 1;
  }
}

/** One client: several operations, one after the other. */
class Client {
  readonly #memory: HistoryMemory;
  readonly #turns: TurnTaking;
  readonly #recorder: Recorder;
  readonly #random: Random;
  readonly #nextValue: () => number;

  constructor(
    memory: HistoryMemory,
    turns: TurnTaking,
    recorder: Recorder,
    random: Random,
    nextValue: () => number,
  ) {
    this.#memory = memory;
    this.#turns = turns;
    this.#recorder = recorder;
    this.#random = random;
    this.#nextValue = nextValue;
  }

  async run(): Promise<void> {
    for (let step = 0; step < STEP_COUNT; step++) {
      await this.#turns.turn();
      const key = this.#draw(KEY_COUNT);
      const choice = this.#draw(12);
      if (choice < 4) await this.put(key);
      else if (choice < 7) await this.get(key);
      else if (choice < 9) await this.#keep(() => this.#memory.swapOut(idOf(key)));
      else if (choice === 9) await this.#keep(() => this.#memory.prefetch([idOf(key)]));
      else if (choice === 10) await this.#keep(() => this.#memory.save(idOf(key)));
      else await this.delete(key);
    }
  }

  /** Writes a value that nobody else writes. */
  async put(key: number): Promise<void> {
    const value = this.#nextValue();
    const calledAt = this.#recorder.tick();
    try {
      using pin = await this.#writable(key);
      if (pin === null) return;
      (pin.view as Uint32Array).fill(value);
      this.#recorder.add(key, {
        type: "write",
        value,
        calledAt,
        returnedAt: this.#recorder.tick(),
      });
      if (this.#draw(4) === 0) await this.#turns.turn();
    } catch (error) {
      // It failed before anything was written.
      this.#recorder.forgive(error);
    }
  }

  async get(key: number): Promise<void> {
    const calledAt = this.#recorder.tick();
    try {
      using lease = await this.#memory.acquire(idOf(key), { access: "read" });
      const view = lease?.view as Uint32Array | undefined;
      const value = view?.[0] ?? null;
      if (view?.every((word) => word === value) === false) {
        this.#recorder.problems.push(
          "a tensor was read that is half of one value and half of another",
        );
      }
      this.#recorder.add(key, { type: "read", value, calledAt, returnedAt: this.#recorder.tick() });
      if (this.#draw(4) === 0) await this.#turns.turn();
    } catch (error) {
      this.#recorder.forgive(error);
    }
  }

  async delete(key: number): Promise<void> {
    const calledAt = this.#recorder.tick();
    try {
      await this.#memory.delete(idOf(key));
    } catch (error) {
      if (isMisuse(error, "pinned")) return;
      this.#recorder.forgive(error);
    }
    // Failed or not: what was given up is not found again.
    const returnedAt = this.#recorder.tick();
    this.#recorder.add(key, { type: "write", value: null, calledAt, returnedAt });
  }

  /** What changes no value. */
  async #keep(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (isMisuse(error, "pinned") || isMisuse(error, "unknown-id")) return;
      this.#recorder.forgive(error);
    }
  }

  /** A pin to write through; null when others were always quicker. */
  async #writable(key: number) {
    const id = idOf(key);
    for (let attempt = 0; attempt < 4; attempt++) {
      const lease = await this.#memory.acquire(id);
      if (lease !== null) return lease;
      await this.#memory.reserve({ kind: KIND, bytes: TENSOR_BYTES });
      if (this.#memory.tensor(id) !== null) continue;
      const shape = [TENSOR_BYTES / 4];
      const tensor = this.#memory.tryAllocate({ kind: KIND, shape, dtype: "u32", id });
      if (tensor !== null) return tensor.pin();
    }
    return null;
  }

  #draw(count: number): number {
    return this.#random.uint32() % count;
  }
}

function isMisuse(error: unknown, code: string): boolean {
  return error instanceof MisuseError && error.code === code;
}

function overlapsOf(operations: readonly RegisterOperation[]): number {
  let count = 0;
  for (const [index, left] of operations.entries()) {
    for (const right of operations.slice(index + 1)) {
      if (left.calledAt < right.returnedAt && right.calledAt < left.returnedAt) count += 1;
    }
  }
  return count;
}

/** A memory with room for {@link ROOM_COUNT} tensors, and what decides about turns in it. */
async function openSmall({ createMemory }: HistoriesOptions, seed: number, isStacked: boolean) {
  const turns = new TurnTaking(seededRandom(seed));
  const fileSystem = turns.over(memoryFileSystem());
  const clock = manualClock({ sleeping: "skip" });
  const open = () =>
    withTurns(turns, () =>
      createMemory({
        profile: "generic",
        budgets: { ram: 4 * MIB, ssd: 4 * MIB, ...(isStacked && { ssd: MIB / 4, hdd: 4 * MIB }) },
        pools: { [KIND]: { budget: MIB } },
        ssd: { directory: SSD_PATH },
        ...(isStacked && { hdd: { directory: "/disk" } }),
        seams: { fileSystem, clock, random: seededRandom(seed) },
      }),
    );
  const memory = await open();
  const ballast = [];
  for (;;) {
    const tensor = memory.tryAllocate({ kind: KIND, byteLength: TENSOR_BYTES });
    if (tensor === null) break;
    ballast.push(tensor);
  }
  for (const tensor of ballast.splice(0, ROOM_COUNT)) tensor.free();
  // Names are hashed by the platform, on a thread of its own: once, before order matters.
  await withTurns(turns, () =>
    Promise.all(Array.from({ length: KEY_COUNT }, (_, key) => memory.delete(idOf(key)))),
  );
  // The ballast is anonymous: it lives as long as somebody holds it.
  return { memory, turns, ballast, clock, reopen: open };
}

/**
 * Deletes saved and swapped-out tensors while files fail, and asks a later process for them.
 *
 * @param isKilled Files of one tier of two fail to the end, and only deletions that were acknowledged have to
 *   last; else all of them, once files work again.
 * @returns What is there although it was deleted.
 */
async function findDeleted(
  small: Awaited<ReturnType<typeof openSmall>>,
  client: (memory: HistoryMemory) => Client,
  isKilled: boolean,
): Promise<string[]> {
  const { memory, turns, clock, reopen } = small;
  const keys = Array.from({ length: DELETED_COUNT }, (_, key) => key);
  for (const key of keys) {
    await withTurns(turns, async () => {
      await client(memory).put(key);
      await memory.save(idOf(key));
      await memory.swapOut(idOf(key));
    });
  }
  turns.faultsPerMille = isKilled ? 1000 : DELETION_FAULTS_PER_MILLE;
  turns.faultyPath = isKilled ? SSD_PATH : "";
  const deleted: number[] = [];
  for (const key of keys) {
    const [{ status }] = await withTurns(turns, () =>
      Promise.allSettled([memory.delete(idOf(key))]),
    );
    if (status === "fulfilled" || !isKilled) deleted.push(key);
  }
  clock.advance(BREAKER_MS);
  if (!isKilled) turns.faultsPerMille = 0;
  await withTurns(turns, () => memory.close());
  turns.faultsPerMille = 0;
  const later = await reopen();
  const problems: string[] = [];
  for (const key of deleted) {
    const lease = await withTurns(turns, () => later.acquire(idOf(key), { access: "read" }));
    if (lease === null) continue;
    lease[Symbol.dispose]();
    problems.push(`key ${key} is found by a later process although it was deleted`);
  }
  await withTurns(turns, () => later.close());
  return problems;
}

async function withTurns<T>(turns: TurnTaking, work: () => Promise<T>): Promise<T> {
  const result = work();
  await turns.run([result]);
  return result;
}

/** Runs histories and judges each. */
export async function runHistories(options: HistoriesOptions): Promise<HistoriesReport> {
  const { seed, historyCount } = options;
  const violations: string[] = [];
  const totals = { operationCount: 0, overlapCount: 0, faultCount: 0, failedCount: 0 };
  let evictionCount = 0;
  let loadCount = 0;
  let value = 0;
  for (let first = 0; first < historyCount; first += MEMORY_HISTORY_COUNT) {
    // Every other memory has two tiers.
    const isStacked = (first / MEMORY_HISTORY_COUNT) % 2 === 1;
    const small = await openSmall(options, seed + first, isStacked);
    const { memory, turns, ballast, clock } = small;
    const last = Math.min(historyCount, first + MEMORY_HISTORY_COUNT);
    for (let number = first; number < last; number++) {
      const recorder = new Recorder();
      const random = seededRandom(Math.imul(seed + 1, 0x9e3779b1) + number);
      const client = () => new Client(memory, turns, recorder, random, () => ++value);
      turns.faultsPerMille = number % 2 === 0 ? 0 : 100;
      await turns.run(
        Array.from({ length: CLIENT_COUNT }, () => failing(recorder, client().run())),
      );
      turns.faultsPerMille = 0;
      // A tier that was left out is asked again.
      clock.advance(BREAKER_MS);
      // What is there in the end counts as well; and the next history finds nothing.
      const reader = client();
      for (let key = 0; key < KEY_COUNT; key++) {
        await withTurns(turns, () => failing(recorder, reader.get(key)));
      }
      for (const [key, operations] of recorder.operations.entries()) {
        totals.operationCount += operations.length;
        totals.overlapCount += overlapsOf(operations);
        if (isLinearizable(operations)) continue;
        recorder.problems.push(`key ${key}: ${JSON.stringify(operations)}`);
      }
      totals.failedCount += recorder.failedCount;
      for (let key = 0; key < KEY_COUNT; key++) {
        await withTurns(turns, () => failing(recorder, memory.delete(idOf(key))));
      }
      const { isSound, problems } = memory.verify();
      if (!isSound) recorder.problems.push(...problems, "the books do not add up");
      for (const text of recorder.problems) {
        if (violations.length < VIOLATION_COUNT_MAX) {
          violations.push(`seed ${seed}, history ${number}: ${text}`);
        }
      }
    }
    const { transfers } = memory.stats();
    evictionCount += transfers.swapOutCount + transfers.cleanEvictionCount;
    loadCount += transfers.swapInCount;
    totals.faultCount += turns.faultCount;
    for (const tensor of ballast) tensor.free();
    const client = (used: HistoryMemory) =>
      new Client(used, turns, new Recorder(), seededRandom(seed + last), () => ++value);
    for (const text of await findDeleted(small, client, isStacked)) {
      violations.push(`seed ${seed}, after history ${last - 1}: ${text}`);
    }
  }
  return { historyCount, ...totals, violations, evictionCount, loadCount };
}

/** What no client expects is a finding, not the end of the run. */
async function failing(recorder: Recorder, work: Promise<unknown>): Promise<void> {
  await work.catch((error: unknown) => {
    recorder.problems.push(`a call failed with ${String(error)}`);
  });
}

/** What many gets of one cold tensor came to. */
export interface JoinedGetsReport {
  /** Loads that all of them took together, where nothing failed. */
  readonly loadCount: number;
  /** Gets that gave anything but the tensor; or, where the load failed, anything but its error. */
  readonly wrongCount: number;
  /** File operations of the load, each of which failed once. */
  readonly faultCount: number;
}

/**
 * Gets one cold tensor many times at once: undisturbed, and with each file operation of the load failing
 * in turn. One load serves all or fails all, and what comes after a failure succeeds.
 */
export async function runJoinedGets(options: {
  readonly seed: number;
  readonly getCount: number;
  createMemory(options: TensorMemoryOptions): Promise<HistoryMemory>;
}): Promise<JoinedGetsReport> {
  const { seed, getCount, createMemory } = options;
  const inner = memoryFileSystem();
  let failAt = 0;
  let operationCount = 0;
  const hit = () => {
    operationCount += 1;
    if (operationCount === failAt)
      throw Object.assign(new Error("EIO (injected)"), { code: "EIO" });
  };
  const fileSystem = {
    ...inner,
    openRead: async (path: string) => {
      hit();
      const reader = await inner.openRead(path);
      if (reader === null) return null;
      const read: typeof reader.read = async (target, offset) => {
        hit();
        return reader.read(target, offset);
      };
      return { ...reader, read };
    },
  };
  const memory = await createMemory({
    profile: "generic",
    budgets: { ram: 4 * MIB, ssd: 4 * MIB },
    ssd: { directory: "/store" },
    seams: { fileSystem, clock: manualClock({ sleeping: "skip" }), random: seededRandom(seed) },
  });
  const id = idOf(0);
  {
    const shape = [TENSOR_BYTES / 4];
    using pin = memory.allocate({ kind: KIND, shape, dtype: "u32", id }).pin();
    pin.view.fill(seed);
  }
  let wrongCount = 0;
  /** @returns Loads, and gets that gave the tensor. */
  const getAll = async () => {
    const before = memory.stats().transfers.swapInCount;
    const gets = Array.from({ length: getCount }, async () => {
      using lease = await memory.acquire(id, { access: "read" });
      return (
        (lease?.view as Uint32Array | undefined)?.every((word) => word === seed >>> 0) === true
      );
    });
    const results = await Promise.allSettled(gets);
    let rightCount = 0;
    for (const result of results) {
      if (result.status === "fulfilled" && result.value) rightCount += 1;
      else if (result.status === "fulfilled" || !(result.reason instanceof TierError))
        wrongCount += 1;
    }
    return { rightCount, loadCount: memory.stats().transfers.swapInCount - before };
  };
  const makeCold = async () => {
    if ((await memory.swapOut(id)) !== "stored") throw new RangeError("the tensor stays hot");
    operationCount = 0;
  };
  await makeCold();
  const { rightCount, loadCount } = await getAll();
  wrongCount += getCount - rightCount;
  const pointCount = operationCount;
  for (let point = 1; point <= pointCount; point++) {
    await makeCold();
    failAt = point;
    const failed = await getAll();
    // All or none; a get that began after the failure may have loaded it again.
    if (failed.rightCount !== 0 && failed.loadCount !== 1) wrongCount += 1;
    failAt = 0;
    const after = await getAll();
    wrongCount += getCount - after.rightCount;
  }
  await memory.close();
  return { loadCount, wrongCount, faultCount: pointCount };
}
