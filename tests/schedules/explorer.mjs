// Takes turns between instances of the shared core, one per lane, on one memory and in one thread:
// before every access to memory another lane may go on. The code is the release module, instrumented,
// so what is explored is the lock, the lanes and the short ways as they are. Sequentially consistent:
// it shows faults of logic, not of memory order.
import { readFile } from "node:fs/promises";
import * as abi from "../../dist/assembly/abi.js";
import { instrumentCore, TOUCH_ATOMIC } from "../support/instrumented-core.mjs";

const LANE_COUNT = 3;
const SLOT_CAPACITY = 48;
const STACK_BYTES = 8192;
const SPIN_COUNT_MAX = 6;
const UNIT_BYTES = 64;
const PLAIN_GRANULES = 48;
const STATE_UNWINDING = 1;
/** More accesses than any schedule has. */
const FAR = 2 ** 30;

/** xorshift, 32 bits. */
export function generator(seed) {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** The modules of an exploration. @param options.isBroken With a planted bad lock. */
export async function compileModules({ isBroken = false } = {}) {
  const bytes = await readFile(new URL("../../build/core.shared.wasm", import.meta.url));
  return {
    resumable: instrumentCore(bytes, { isResumable: true, isBroken }),
    release: await WebAssembly.compile(bytes),
  };
}

/** A fault that a schedule has shown. */
export class Violation extends Error {}

class Lane {
  #spinCount = 0;

  constructor(world, number, module) {
    this.world = world;
    this.number = number;
    const touch = (kind) => this.#touch(kind);
    const env = { memory: world.memory, touch };
    this.core = new WebAssembly.Instance(module, { env, lock: { LANE: number } }).exports;
    this.data = world.stackAddress + (number - 1) * STACK_BYTES;
    this.reset();
  }

  reset() {
    /** The call that was left in the middle, if any. */
    this.call = null;
    this.isRewinding = false;
    this.owned = [];
    this.done = 0;
  }

  /** Before an atomic access, and when the countdown to the next leave has come to its end. */
  #touch(kind) {
    if (this.isRewinding) {
      this.core.asyncify_stop_rewind();
      this.isRewinding = false;
      return;
    }
    const { world } = this;
    if (kind === TOUCH_ATOMIC) {
      // Looking at the guard again and again leads nowhere while nobody else goes on.
      this.#spinCount += 1;
      const left = this.core.countdown.value - 1;
      this.core.countdown.value = left;
      if (left !== 0 && this.#spinCount < SPIN_COUNT_MAX) return;
      if (left !== 0) world.scheduler.yield();
    }
    this.#spinCount = 0;
    world.words[this.data / 4] = this.data + 8;
    world.words[this.data / 4 + 1] = this.data + STACK_BYTES;
    this.core.asyncify_start_unwind(this.data);
  }

  /** Goes on with the call under way, or begins the next one, until its end or the next leave. */
  step() {
    const { world } = this;
    const { countdown } = this.core;
    const left = world.scheduler.accessesLeft();
    countdown.value = left;
    if (this.call === null) {
      this.call = world.scenario.next(this);
    } else {
      this.isRewinding = true;
      this.core.asyncify_start_rewind(this.data);
    }
    const { name, values } = this.call;
    const result = this.core[name](world.base, ...values);
    world.touchCount += left - countdown.value;
    world.scheduler.pass(left - countdown.value);
    if (this.core.asyncify_get_state() === STATE_UNWINDING) {
      this.core.asyncify_stop_unwind();
      return;
    }
    this.#spinCount = 0;
    const { call } = this;
    this.call = null;
    world.scenario.finish(this, call, result);
  }
}

/** One control plane with an arena of either kind, and the lanes that work on it. */
export class World {
  constructor({ resumable, release }) {
    this.memory = new WebAssembly.Memory({ initial: 4, maximum: 4, shared: true });
    this.words = new Int32Array(this.memory.buffer);
    const imports = { env: { memory: this.memory }, lock: { LANE: abi.LANE_FIRST } };
    this.plain = new WebAssembly.Instance(release, imports).exports;
    this.base = this.plain.controlHeapBase();
    this.stackAddress = 65536 * 4 - LANE_COUNT * STACK_BYTES;
    this.usedBytes = this.plain.controlBytes(SLOT_CAPACITY, 4, 40_000);
    this.plain.controlInit(this.base, this.usedBytes, SLOT_CAPACITY, 4);
    if (this.base + this.usedBytes > this.stackAddress) throw new Error("the plane is too long");
    this.bytes = new Uint8Array(this.memory.buffer, this.base, this.usedBytes);
    this.scheduler = null;
    this.scenario = null;
    this.touchCount = 0;
    this.plain.arenaOpen(this.base, 0, PLAIN_GRANULES, 6);
    this.plain.arenaOpen(this.base, 1, abi.CLASS_SLABS_FROM * abi.SUPERBLOCK_UNITS, 6);
    this.lanes = [];
    for (let number = 1; number <= LANE_COUNT; number++) {
      if (number > 1 && this.plain.laneReserve(this.base) !== number) throw new Error("no lane");
      this.lanes.push(new Lane(this, number, resumable));
      if (number > 1 && !this.#attach(number, release)) {
        throw new Error("a lane does not attach");
      }
    }
    // Slabs are open and slots bound already: what is contended is not how that begins.
    const slots = [];
    for (let bytes = 64; bytes <= 256; bytes += 64) {
      for (let arena = 1; arena <= 2; arena++) {
        slots.push(this.plain.arenaAllocate(this.base, arena, bytes, 1));
      }
    }
    for (const slot of slots) this.plain.slotFree(this.base, slot, this.generationOf(slot));
    this.fresh = this.bytes.slice();
  }

  /** Attaches a lane with an instance that is not instrumented. */
  #attach(number, release) {
    const imports = { env: { memory: this.memory }, lock: { LANE: number } };
    return new WebAssembly.Instance(release, imports).exports.laneAttach(this.base) === 0;
  }

  /** As it was at the start. */
  reset() {
    this.bytes.set(this.fresh);
    for (const lane of this.lanes) lane.reset();
  }

  word(offset) {
    return this.words[(this.base + offset) / 4];
  }

  generationOf(slot) {
    return this.word(this.#hot(slot) + abi.HOT_OFF_GENERATION);
  }

  offsetOf(slot) {
    return this.word(this.#hot(slot) + abi.HOT_OFF_OFFSET);
  }

  #hot(slot) {
    return this.word(abi.CONTROL_OFF_HOT) + slot * abi.HOT_BYTES;
  }

  statusOf(lane) {
    const row = this.word(abi.CONTROL_OFF_LANES) + lane.number * abi.LANE_BYTES;
    return this.word(row + abi.LANE_OFF_STATUS);
  }
}

/**
 * What the lanes do, and what must be true of it: no two own one unit, a handle is freed once, and a
 * block that was handed over is adopted once.
 */
class Scenario {
  constructor(world, random, { callCount }) {
    this.world = world;
    this.random = random;
    this.callCount = callCount;
    this.owners = new Map();
    this.live = new Set();
    /** Handles that were handed over, with who has adopted each. */
    this.given = [];
    this.busyCount = 0;
  }

  isFinished(lane) {
    return lane.call === null && lane.done >= this.callCount;
  }

  next(lane) {
    const draw = this.random() % 100;
    const { owned } = lane;
    const arena = 1 + (this.random() & 1);
    // Most of the lanes' calls are about what is contended: the last of what was handed over.
    const last = this.given[this.given.length - 1];
    if (last !== undefined && draw < 20) {
      return { name: "slotAdopt", values: [last.slot, last.generation], handle: last };
    }
    if (owned.length === 0 || draw < 60) {
      const bytes = 1 + (this.random() % 200);
      return { name: "arenaAllocate", values: [arena, bytes, 1], arena, bytes };
    }
    const handle = owned[this.random() % owned.length];
    const values = [handle.slot, handle.generation];
    if (draw < 70) return { name: "slotHandOver", values, handle };
    if (draw < 75) return { name: "slotPin", values, handle };
    if (draw < 80 && last !== undefined) {
      // Not its own: refused, whatever the others do meanwhile.
      return {
        name: "slotFree",
        values: [last.slot, last.generation],
        handle: last,
        isForeign: true,
      };
    }
    return { name: "slotFree", values, handle };
  }

  finish(lane, call, result) {
    lane.done += 1;
    const { world } = this;
    const isZero = call.name === "arenaAllocate" || call.name === "slotPin";
    const status = isZero ? (result === 0 ? world.statusOf(lane) : 0) : result;
    if (status === abi.STATUS_BUSY) {
      this.busyCount += 1;
      world.scheduler.yield();
      return;
    }
    if (call.name === "arenaAllocate") this.#allocated(lane, call, result, status);
    else if (call.name === "slotFree") this.#freed(lane, call, status);
    else if (call.name === "slotHandOver") this.#gave(lane, call, status);
    else if (call.name === "slotAdopt") this.#adopted(lane, call, status);
    else this.#pinned(lane, call, status);
  }

  #allocated(lane, { arena, bytes }, slot, status) {
    if (slot === 0) {
      if (status !== abi.STATUS_NO_ROOM && status !== abi.STATUS_NO_SLOT) {
        throw new Violation(`an allocation answers ${status}`);
      }
      return;
    }
    const first = this.world.offsetOf(slot);
    const units = Math.ceil(bytes / UNIT_BYTES);
    const handle = {
      slot,
      generation: this.world.generationOf(slot),
      arena,
      first,
      units,
      pins: 0,
    };
    this.#mark(handle, undefined, lane.number);
    lane.owned.push(handle);
    this.live.add(handle);
  }

  #mark({ arena, first, units }, before, after) {
    for (let unit = first; unit < first + units; unit++) {
      const name = arena * 2 ** 20 + unit;
      if (this.owners.get(name) !== before) throw new Violation(`unit ${unit} has two owners`);
      if (after === undefined) this.owners.delete(name);
      else this.owners.set(name, after);
    }
  }

  #drop(lane, handle) {
    lane.owned.splice(lane.owned.indexOf(handle), 1);
  }

  #freed(lane, { handle, isForeign }, status) {
    const isOwner = lane.owned.includes(handle);
    if (isForeign && !isOwner) {
      if (status === 0) throw new Violation("a free by somebody else was accepted");
      return;
    }
    if (handle.pins > 0) {
      if (status !== abi.STATUS_PINNED) throw new Violation(`a free of a pinned block: ${status}`);
      return;
    }
    if (status !== 0) throw new Violation(`a free answers ${status}`);
    this.#drop(lane, handle);
    this.#mark(handle, lane.number, undefined);
    this.live.delete(handle);
  }

  #gave(lane, { handle }, status) {
    if (handle.pins > 0) {
      if (status !== abi.STATUS_PINNED) throw new Violation(`a pinned block was given: ${status}`);
      return;
    }
    if (status !== 0) throw new Violation(`a hand-over answers ${status}`);
    this.#drop(lane, handle);
    this.#mark(handle, lane.number, 0);
    this.given.push(handle);
  }

  #adopted(lane, { handle }, status) {
    if (status !== 0) {
      if (status === abi.STATUS_NOT_OWNER || status === abi.STATUS_STALE) return;
      throw new Violation(`an adoption answers ${status}`);
    }
    this.#mark(handle, 0, lane.number);
    lane.owned.push(handle);
  }

  #pinned(_lane, { handle }, status) {
    if (status !== 0) throw new Violation(`a pin answers ${status}`);
    handle.pins += 1;
  }
}

/** Runs one schedule to its end. @returns How many calls found the guard taken. */
function runSchedule(world, scenario, scheduler) {
  world.scenario = scenario;
  world.scheduler = scheduler;
  let lane = world.lanes[0];
  // Each step is one stretch of one lane; the bound is far above what any schedule takes.
  for (let left = 200_000; ; left--) {
    if (left === 0) throw new Violation("the lanes do not come to an end");
    const running = world.lanes.filter((each) => !scenario.isFinished(each));
    if (running.length === 0) break;
    lane = scheduler.choose(running, lane);
    lane.step();
  }
  if (world.word(abi.CONTROL_OFF_GUARD) !== 0) throw new Violation("the guard is held at the end");
  return scenario.busyCount;
}

function verify(world, scenario) {
  const broken = world.plain.check(world.base);
  if (broken !== 0) throw new Violation(`invariant ${broken} at the end`);
  let liveCount = 0;
  const end = world.word(abi.CONTROL_OFF_SLOT_FRESH);
  for (let slot = 1; slot < end; slot++) {
    const hot = world.word(abi.CONTROL_OFF_HOT) + slot * abi.HOT_BYTES;
    const state = (world.word(hot + abi.HOT_OFF_SIZING) >>> 8) & 0xff;
    if (state === abi.SLOT_STATE_LIVE || state === abi.SLOT_STATE_PINNED) liveCount += 1;
  }
  if (liveCount !== scenario.live.size) {
    throw new Violation(`${liveCount} blocks are live in place of ${scenario.live.size}`);
  }
}

/** Leaves after a drawn number of accesses, `rarity` on the average. */
function randomScheduler(random, rarity) {
  let isAsked = false;
  let left = 1 + (random() % (2 * rarity));
  return {
    accessesLeft: () => left,
    pass: (count) => {
      left -= count;
      if (left <= 0) left = 1 + (random() % (2 * rarity));
    },
    yield: () => {
      isAsked = true;
    },
    choose: (running, lane) => {
      const others = isAsked ? running.filter((each) => each !== lane) : running;
      isAsked = false;
      const from = others.length === 0 ? running : others;
      return from[random() % from.length];
    },
  };
}

/** Leaves at the accesses whose numbers are given, and goes to the next lane in turn. */
function plannedScheduler(leaveAt) {
  let count = 0;
  let next = 0;
  let isLeaving = false;
  return {
    accessesLeft: () => (leaveAt[next] ?? FAR) + 1 - count,
    pass: (passed) => {
      count += passed;
      if (count <= (leaveAt[next] ?? FAR)) return;
      isLeaving = true;
      next += 1;
    },
    yield: () => {
      isLeaving = true;
    },
    choose: (running, lane) => {
      const isStaying = !isLeaving && running.includes(lane);
      isLeaving = false;
      if (isStaying) return lane;
      return running.find(({ number }) => number > lane.number) ?? running[0];
    },
    get count() {
      return count;
    },
  };
}

/**
 * Explores random schedules, and systematic ones: short programs, each with every way to leave at up
 * to two of their accesses.
 *
 * @param options.scheduleCount Of both kinds together; a fifth of them systematic.
 * @returns Counts; `violation` is the first fault found, with the schedule that shows it.
 */
export function explore(modules, { scheduleCount, seed, isDone = () => false }) {
  const world = new World(modules);
  const counts = { schedules: 0, systematic: 0, calls: 0, busy: 0, touches: 0, violation: null };
  const attempt = (name, scenario, scheduler, isVerified) => {
    try {
      counts.busy += runSchedule(world, scenario, scheduler);
      if (isVerified) verify(world, scenario);
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      counts.violation ??= `${name}: ${error.message}`;
    }
    counts.schedules += 1;
    counts.calls += world.lanes.reduce((sum, { done }) => sum + done, 0);
  };

  const systematicMax = Math.floor(scheduleCount / 5);
  const randomMax = scheduleCount - systematicMax;
  for (let index = 0; counts.schedules < randomMax && counts.violation === null; index++) {
    const random = generator(seed * 31 + index * 2654435761);
    // The generator's first numbers are alike for seeds that are.
    for (let skip = 0; skip < 4; skip++) random();
    world.reset();
    const scenario = new Scenario(world, random, { callCount: 2 + (random() % 4) });
    const scheduler = randomScheduler(random, 2 + (random() % 40));
    attempt(`schedule ${index}, seed ${seed}`, scenario, scheduler, index % 8 === 0);
    if (index % 4096 === 0 && isDone()) break;
  }
  for (let program = 0; counts.systematic < systematicMax && !isDone(); program++) {
    if (counts.violation !== null) break;
    const runOne = (leaveAt) => {
      world.reset();
      const scenario = new Scenario(world, generator(seed + program * 7919), { callCount: 2 });
      const scheduler = plannedScheduler(leaveAt);
      const name = `program ${program}, seed ${seed}, leaving at ${leaveAt.join()}`;
      attempt(name, scenario, scheduler, counts.systematic % 8 === 0);
      counts.systematic += 1;
      return scheduler.count;
    };
    const touchCount = runOne([]);
    for (let first = 0; first < touchCount; first++) {
      runOne([first]);
      // Every second leave would be too many of long programs: a stride keeps each program short.
      const stride = Math.max(1, Math.floor(touchCount / 24));
      for (let second = first + 1; second < touchCount; second += stride) {
        if (counts.systematic >= systematicMax || counts.violation !== null) break;
        runOne([first, second]);
      }
      if (counts.systematic >= systematicMax || counts.violation !== null) break;
    }
  }

  counts.touches = world.touchCount;
  return counts;
}
