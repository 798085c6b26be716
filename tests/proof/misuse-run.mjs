// Bad uses of handles, by the million: through the exports of the core, ControlPlane and
// BuddyAllocator. Each must be refused with the right status or error, and leave not one byte of the
// control plane changed, but for the status word, which says why the last call was refused.
import * as abi from "../../dist/assembly/abi.js";
import { BuddyAllocator } from "../../dist/src/buddy-allocator.js";
import { MisuseError } from "../../dist/src/errors.js";
import { instantiate, moduleOf, noteWordsOf, openPlane } from "./builds.mjs";
import { must } from "./must.mjs";
import { words } from "./random.mjs";

const ARENAS = [
  { capacityBytes: 2 ** 24, granuleShift: 6 },
  { capacityBytes: 2 ** 20, granuleShift: 6 },
  { capacityBytes: 2 ** 20, granuleShift: 10 },
];
const SLOT_COUNT = 3000;
const LIVE_COUNT = 2000;
const STALE_COUNT_MAX = 2 ** 15;
/** Good operations between two batches, and bad ones in a batch. */
const CHURN_COUNT = 500;
const BATCH_COUNT = 20_000;
const PINNED_EVERY = 7;
const SLOT_FACTOR = abi.SLOT_CAPACITY_MAX + 1;
/** What no slot and no generation is, as it reaches an integer parameter of WebAssembly. */
const NUMBERS = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  -1,
  -0.5,
  2 ** 31,
  -(2 ** 31),
  2 ** 53,
  1e300,
];
/** What no handle is. */
const VALUES = [
  ...NUMBERS,
  Number.NEGATIVE_INFINITY,
  0,
  0.5,
  "1",
  "",
  null,
  undefined,
  {},
  [],
  true,
  1n,
];

/** Kinds of bad handles. Each gives slot and generation, or null if there is none of its kind now. */
const KINDS = {
  "freed twice": ({ stale, staleCount }) => stale[(staleCount - 1) % STALE_COUNT_MAX],
  "stale, slot in use again": (world, random) => {
    const { stale, live } = world;
    for (let attempt = 0; attempt < 16; attempt++) {
      const handle = stale[random() % stale.length];
      if (live.has(handle[0])) return handle;
    }
    return null;
  },
  stale: ({ stale }, random) => stale[random() % stale.length],
  "forged generation": ({ slots }, random) => [slots[random() % slots.length], random()],
  "generation off by one": ({ slots, live }, random) => {
    const slot = slots[random() % slots.length];
    return [slot, (live.get(slot) + (random() % 2 === 0 ? 1 : -1)) | 0];
  },
  "generation 0, last, retired": ({ slots }, random) => [
    slots[random() % slots.length],
    [0, abi.GENERATION_MAX - 1, abi.GENERATION_MAX][random() % 3],
  ],
  "forged slot": (_, random) => [random(), 1 + (random() % 16)],
  "slot never used": (_, random) => [SLOT_COUNT + (random() % 64), 1],
  "not a slot": ({ slots, live }, random) => [
    NUMBERS[random() % NUMBERS.length],
    live.get(slots[random() % slots.length]),
  ],
  "not a generation": ({ slots }, random) => [
    slots[random() % slots.length],
    NUMBERS[random() % NUMBERS.length],
  ],
  "of another heap": ({ others }, random) => others[random() % others.length],
  "of a closed arena": ({ closed }, random) => closed[random() % closed.length],
};

const isLive = ({ live }, [slot, generation]) => live.get(slot | 0) === (generation | 0);

/** A heap in use, its good handles and the bad ones that it has left behind. */
class World {
  live = new Map();
  slots = [];
  stale = [];
  staleCount = 0;
  others = [];
  closed = [];

  constructor(plane, random) {
    this.plane = plane;
    this.random = random;
    this.arenas = ARENAS.map(({ capacityBytes, granuleShift }, index) =>
      plane.openArena(index, capacityBytes, granuleShift),
    );
    for (let count = 0; count < 100; count++) this.closed.push(this.allocate(this.arenas[2], 64));
    for (const [slot] of this.closed) this.free(this.slots.indexOf(slot));
    plane.closeArena(this.arenas.pop());
    while (this.slots.length < LIVE_COUNT) this.churn();
    this.slots.forEach((slot, index) => {
      if (index % PINNED_EVERY === 0) plane.pin(slot, this.live.get(slot));
    });
  }

  allocate(arena, bytes) {
    const slot = this.plane.allocate(arena, bytes, 1);
    if (slot === 0) return null;
    const generation = this.plane.generationOf(slot);
    this.live.set(slot, generation);
    this.slots.push(slot);
    return [slot, generation];
  }

  free(index) {
    const slot = this.slots[index];
    const generation = this.live.get(slot);
    while (this.plane.pinCountOf(slot) > 0) this.plane.unpin(slot, generation);
    this.plane.free(slot, generation);
    this.slots[index] = this.slots.at(-1);
    this.slots.pop();
    this.live.delete(slot);
    this.stale[this.staleCount++ % STALE_COUNT_MAX] = [slot, generation];
  }

  churn() {
    const { random } = this;
    const isFull = this.slots.length >= LIVE_COUNT;
    if (this.slots.length > 0 && (isFull || random() % 3 === 0)) {
      this.free(random() % this.slots.length);
    } else {
      this.allocate(this.arenas[random() % 8 === 0 ? 1 : 0], 1 + (random() % 8192));
    }
  }
}

/** Every byte of a memory, by its words. */
function snapshot(memory) {
  return new Int32Array(memory.buffer).slice();
}

/** Only `noteWords` may differ. */
function mustBeUnchanged(memory, noteWords, before) {
  const after = new Int32Array(memory.buffer);
  for (let at = 0; at < before.length; at++) {
    if (after[at] !== before[at] && !noteWords.has(at)) must(false, "a word was changed", at);
  }
}

const isRefusal = (status) => status === abi.STATUS_STALE || status === abi.STATUS_FOREIGN;

/** Calls a function that must throw. @returns Whether it threw what means a bad handle. */
function throwsMisuse(call) {
  try {
    call();
    return false;
  } catch (error) {
    const { code } = error;
    return error instanceof MisuseError && (code === "stale-handle" || code === "foreign-handle");
  }
}

function coreCalls(core, base) {
  return [
    (slot, generation) => isRefusal(core.slotFree(base, slot, generation)),
    (slot, generation) => core.slotPin(base, slot, generation) === 0,
    (slot, generation) => isRefusal(core.slotUnpin(base, slot, generation)),
    (slot, generation) => isRefusal(core.slotResolve(base, slot, generation)),
    (slot, generation) => isRefusal(core.slotResize(base, slot, generation, 64, 1)),
    (slot, generation) => isRefusal(core.slotExchange(base, slot, generation, slot, generation)),
  ];
}

const planeCalls = (plane) => [
  (slot, generation) => throwsMisuse(() => plane.free(slot, generation)),
  (slot, generation) => throwsMisuse(() => plane.pin(slot, generation)),
  (slot, generation) => throwsMisuse(() => plane.unpin(slot, generation)),
  (slot, generation) => throwsMisuse(() => plane.resolve(slot, generation)),
  (slot, generation) => throwsMisuse(() => plane.tryResize(slot, generation, 64, 1)),
  (slot, generation) => throwsMisuse(() => plane.exchange(slot, generation, slot, generation)),
];

/** Misuse through slots and generations. @returns Bad uses by kind. */
async function misuseTables({ seed, badCount, build, through, wrap }) {
  const random = words(seed);
  const options = { build, arenas: ARENAS, slotCount: SLOT_COUNT };
  const { plane: opened, memory, base } = await openPlane(options);
  const plane = wrap?.(opened) ?? opened;
  const world = new World(plane, random);
  const other = new World((await openPlane(options)).plane, words(seed + 1));
  for (const [slot, generation] of other.live) {
    if (!isLive(world, [slot, generation])) world.others.push([slot, generation]);
  }
  const module = await moduleOf(build);
  const core = instantiate(module, memory);
  const calls = through === "core" ? coreCalls(core, base) : planeCalls(plane);
  const noteWords = noteWordsOf(new Int32Array(memory.buffer), base);
  const kinds = Object.entries(KINDS);
  const counts = Object.fromEntries(kinds.map(([name]) => [name, 0]));
  for (let done = 0; done < badCount; ) {
    for (let count = 0; count < CHURN_COUNT; count++) world.churn();
    const before = snapshot(memory);
    for (const end = Math.min(badCount, done + BATCH_COUNT); done < end; ) {
      const [name, draw] = kinds[random() % kinds.length];
      const handle = draw(world, random);
      if (handle === null || handle === undefined || isLive(world, handle)) continue;
      const call = random() % calls.length;
      must(calls[call](handle[0], handle[1]), `${name} was accepted`, call, ...handle);
      counts[name] += 1;
      done += 1;
    }
    mustBeUnchanged(memory, noteWords, before);
    must(plane.check() === 0, "an invariant is broken", plane.check());
  }
  return counts;
}

/** Misuse through handles that are one number. @returns Bad uses by kind. */
async function misuseBuddy({ seed, badCount }) {
  const random = words(seed);
  const create = async () => {
    let memory;
    const buddy = await BuddyAllocator.create({
      totalBytes: 2 ** 24,
      blockCountMax: SLOT_COUNT,
      createMemory: (pages) => {
        memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
        return memory;
      },
    });
    return { buddy, memory: () => memory };
  };
  const { buddy, memory } = await create();
  const { buddy: other } = await create();
  const live = new Set();
  const handles = [];
  const stale = [];
  let staleCount = 0;
  const foreign = Array.from({ length: LIVE_COUNT }, () =>
    other.tryAllocate(1 + (random() % 4096)),
  );
  const churn = () => {
    if (handles.length < LIVE_COUNT) {
      const handle = buddy.tryAllocate(1 + (random() % 8192));
      if (handle === 0) return;
      live.add(handle);
      handles.push(handle);
      return;
    }
    for (let count = 0; count < 32; count++) {
      const index = random() % handles.length;
      const handle = handles[index];
      buddy.free(handle);
      live.delete(handle);
      handles[index] = handles.at(-1);
      handles.pop();
      stale[staleCount++ % STALE_COUNT_MAX] = handle;
    }
  };
  const kinds = {
    "freed twice": () => stale[(staleCount - 1) % STALE_COUNT_MAX],
    stale: () => stale[random() % stale.length],
    "forged generation": () =>
      random() * SLOT_FACTOR + (handles[random() % handles.length] % SLOT_FACTOR),
    "forged slot": () => handles[random() % handles.length] + (random() % SLOT_FACTOR) - 2 ** 20,
    "forged handle": () => (random() * SLOT_FACTOR + random()) * (random() % 2 === 0 ? 1 : -1),
    "not a handle": () => VALUES[random() % VALUES.length],
    "not an integer": () => handles[random() % handles.length] / 3,
    "of another heap": () => foreign[random() % foreign.length],
  };
  const calls = [
    (handle) => buddy.free(handle),
    (handle) => buddy.offsetOf(handle),
    (handle) => buddy.grantedBytesOf(handle),
    (handle) => buddy.tryResize(handle, 64),
  ];
  const names = Object.keys(kinds);
  const counts = Object.fromEntries(names.map((name) => [name, 0]));
  const noteWords = new Set([(await statusAddress()) / 4]);
  while (handles.length < LIVE_COUNT) churn();
  for (let count = 0; count < 200; count++) churn();
  for (let done = 0; done < badCount; ) {
    for (let count = 0; count < CHURN_COUNT; count++) churn();
    const before = snapshot(memory());
    for (const end = Math.min(badCount, done + BATCH_COUNT); done < end; ) {
      const name = names[random() % names.length];
      const handle = kinds[name]();
      if (live.has(handle) && name !== "of another heap") continue;
      const call = random() % calls.length;
      must(
        throwsMisuse(() => calls[call](handle)),
        `${name} was accepted`,
        call,
        String(handle),
      );
      counts[name] += 1;
      done += 1;
    }
    mustBeUnchanged(memory(), noteWords, before);
    must(buddy.verify() === null, "an invariant is broken", buddy.verify());
  }
  return counts;
}

async function statusAddress() {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const { exports } = new WebAssembly.Instance(await moduleOf("core"), { env: { memory } });
  return exports.controlHeapBase() + abi.CONTROL_OFF_STATUS;
}

/**
 * Bad uses of handles.
 *
 * @param options.through `core`, `plane` or `buddy`; `wrap` replaces the control plane.
 * @returns Their counts by kind. @throws {Error} With the seed, on the first that is not refused.
 */
export async function runMisuse(options) {
  try {
    return await (options.through === "buddy" ? misuseBuddy(options) : misuseTables(options));
  } catch (error) {
    const { through, build, seed } = options;
    throw new Error(`misuse, ${through} of ${build}, seed ${seed}: ${error.message}`, {
      cause: error,
    });
  }
}
