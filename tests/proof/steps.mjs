// One step of a random run: an operation on a real control plane, and what the model says about its
// outcome. A step is an operation and three words, whose meaning depends on the state alone; so any
// part of a failing sequence is a sequence again, and can be shrunk.
import * as abi from "../../dist/assembly/abi.js";
import { Model } from "./model.mjs";
import { must } from "./must.mjs";
import { OPERATIONS } from "./operations.mjs";
import { share } from "./random.mjs";

/** Arguments no misuse may get past, beside handles that were good once. */
const FORGED = [0, -1, 1, 2 ** 31 - 1, -(2 ** 31), 2 ** 32 - 1, Number.NaN, 0.5, 2 ** 53];
const STALE_COUNT_MAX = 256;
const POOL_COUNT = 3;
/** From this length on a free stretch can become a slab, whatever the request. */
const SUPERBLOCK_BYTES = 2 ** 18;
const SLAB_ARENA_BYTES_MIN = 2 ** 20;
const UNIT_SHIFT = 6;
const REQUESTED_BYTES_MAX = 2 ** 32 - 1;
/** No more of the slots than one in so many are used up. */
const RETIRED_PART = 4;
const COUNTS = [
  "operations",
  "allocations",
  "noRoom",
  "noSlot",
  "bad",
  "moves",
  "crossed",
  "vetoes",
  "plans",
  "retired",
  "recoveries",
  "resized",
];

export class Run {
  counts = Object.fromEntries(COUNTS.map((name) => [name, 0]));
  #plane;
  #model;
  #shape;
  #pending = null;
  #hasPlan = false;
  #planArena = 0;
  /** Arena that the blocks move into. */
  #planInto = 0;
  #stale = [];
  #staleCount = 0;
  #arenaIds = [];
  #retiredCount = 0;
  #steps;

  /**
   * @param plane Without arenas.
   * @param shape `arenas` to open, `slotCount`, `bytesMax` of a request; the `words` of the plane's
   *   memory and its `base`.
   */
  constructor(plane, shape) {
    this.#plane = plane;
    this.#shape = shape;
    this.#model = new Model(shape.slotCount, POOL_COUNT);
    this.#arenaIds = shape.arenas.map((_, index) => this.#open(index));
    this.#steps = OPERATIONS.map((name) => this[name].bind(this));
  }

  get liveCount() {
    return this.#model.liveCount;
  }

  step(operation, a, b, c) {
    this.counts.operations += 1;
    this.#steps[operation](a, b, c);
  }

  /** Every counter, every invariant. */
  check() {
    const code = this.#plane.check();
    must(code === 0, "an invariant is broken", code);
    this.#model.compare(this.#plane);
  }

  /** Frees everything; then each arena must be whole again. */
  finish() {
    this.#endPlan();
    while (this.liveCount > 0) this.free(0);
    this.check();
    this.#arenaIds.forEach((arena, index) => {
      const bytes = Math.min(this.#shape.arenas[index].capacityBytes, REQUESTED_BYTES_MAX);
      const slot = this.#plane.allocateWhole(arena, bytes);
      must(slot !== 0, "an empty arena is not whole", bytes);
      this.#add(slot, arena, bytes, 1);
    });
    this.check();
    while (this.liveCount > 0) this.free(0);
    for (const arena of this.#arenaIds) this.#plane.closeArena(arena);
    this.check();
  }

  // --- Operations ----------------------------------------------------------------------------------

  allocate(a, b) {
    this.#allocate(a, b, 1);
  }

  allocateAligned(a, b, c) {
    this.#allocate(a, b, 2 ** (c % 18));
  }

  allocateWhole(a, b) {
    const index = a % this.#arenaIds.length;
    const arena = this.#arenaIds[index];
    const { capacityBytes } = this.#shape.arenas[index];
    const bytes = 1 + Math.floor(capacityBytes * share(b));
    const slot = this.#plane.allocateWhole(arena, bytes);
    const { live } = this.#model.arenas[arena];
    const isFree = live === 0 && this.#pending?.arena !== arena && this.#hasSlot;
    must((slot !== 0) === isFree, "a whole arena", slot, live);
    if (slot !== 0) this.#add(slot, arena, bytes, 1);
  }

  free(a) {
    const model = this.#model;
    if (model.liveCount === 0) return;
    const place = a % model.liveCount;
    const slot = model.slots[place];
    const generation = model.generations[place];
    if (model.pins[place] > 0) {
      this.#refuses("pinned", () => this.#plane.free(slot, generation));
      for (; model.pins[place] > 0; model.pin(place, -1)) this.#plane.unpin(slot, generation);
    }
    this.#plane.free(slot, generation);
    this.#forget(place);
  }

  freeNewest(a) {
    if (this.liveCount > 0) this.free(this.liveCount - 1 - (a % Math.min(8, this.liveCount)));
  }

  pin(a) {
    const model = this.#model;
    if (model.liveCount === 0) return;
    const place = a % model.liveCount;
    const epoch = this.#plane.pin(model.slots[place], model.generations[place]);
    must(epoch !== 0, "an epoch of 0", place);
    model.pin(place, 1);
    if (this.#pending?.slot === model.slots[place]) this.#pending.isPinned = true;
    this.#look(place);
  }

  unpin(a) {
    const model = this.#model;
    if (model.liveCount === 0) return;
    const place = a % model.liveCount;
    const unpin = () => this.#plane.unpin(model.slots[place], model.generations[place]);
    if (model.pins[place] === 0) {
      this.#refuses("unpinned", unpin);
      return;
    }
    unpin();
    model.pin(place, -1);
  }

  look(a) {
    if (this.liveCount > 0) this.#look(a % this.liveCount);
  }

  misuse(a, b, c) {
    const plane = this.#plane;
    const isOld = this.#staleCount > 0 && a % 4 !== 0;
    const known = Math.min(this.#staleCount, STALE_COUNT_MAX);
    let [slot, generation] = isOld ? this.#stale[a % known] : [a % 64, FORGED[b % FORGED.length]];
    if (c % 8 === 0) slot = FORGED[(c >>> 3) % FORGED.length];
    // What a forged number means to the core: the low 32 bits of it.
    const place = this.#model.places[slot | 0] ?? -1;
    if (place >= 0 && this.#model.generations[place] === (generation | 0)) generation ^= 1;
    const calls = [
      () => plane.free(slot, generation),
      () => plane.pin(slot, generation),
      () => plane.unpin(slot, generation),
      () => plane.resolve(slot, generation),
    ];
    this.#refuses("handle", calls[b % 4]);
  }

  compactBegin(a) {
    this.#beginPlan(a);
  }

  evacuateBegin(a, b) {
    const [arena, into] = [a, b].map((word) => this.#arenaIds[word % this.#arenaIds.length]);
    this.#dropPlan();
    this.#plane.beginEvacuation(arena, into);
    const { arenas } = this.#model;
    if (arena === into || arenas[arena].pool !== arenas[into].pool) {
      must(this.#plane.nextMove() === null, "a plan between arenas that have nothing in common");
      return;
    }
    this.#planArena = arena;
    this.#planInto = into;
    this.#hasPlan = true;
  }

  compactStep(a, b, c) {
    if (!this.#hasPlan) this.look(a);
    else if (this.#pending !== null && b % 8 !== 0) this.#endMove(c);
    else this.#next();
  }

  compactAll(a, _, c) {
    this.#beginPlan(a);
    // Every candidate is looked at once.
    for (let word = c; this.#hasPlan; word = Math.imul(word, 1664525) + 1013904223) {
      this.#next();
      if (this.#pending !== null) this.#endMove(word >>> 8);
    }
  }

  reopen(a, b) {
    const index = a % this.#arenaIds.length;
    const arena = this.#arenaIds[index];
    if (this.#model.arenas[arena].live > 0) {
      this.#refuses("bad-option", () => this.#plane.closeArena(arena));
      // A refused close has ended the plan of its arena all the same.
      if (this.#concerns(arena)) this.#dropPlan();
      return;
    }
    if (this.#concerns(arena)) this.#dropPlan();
    this.#plane.closeArena(arena);
    this.#model.close(arena);
    this.#arenaIds[index] = this.#open(index, b % POOL_COUNT);
  }

  /** Makes a slot look as if it had been used four billion times, or nearly. */
  age(a, b) {
    const model = this.#model;
    const { slotCount, words, base } = this.#shape;
    if (model.liveCount === 0 || this.#retiredCount >= slotCount / RETIRED_PART) return;
    const place = a % model.liveCount;
    const slot = model.slots[place];
    if (this.#pending?.slot === slot) return;
    const generation = abi.GENERATION_MAX - 1 - (b % 3);
    const hot = words[(base + abi.CONTROL_OFF_HOT) / 4];
    words[(base + hot + slot * abi.HOT_BYTES + abi.HOT_OFF_GENERATION) / 4] = generation;
    model.generations[place] = generation;
  }

  recover() {
    this.#dropPlan();
    this.#plane.recover();
    this.counts.recoveries += 1;
  }

  resize(a, b, c) {
    const model = this.#model;
    if (model.liveCount === 0) return;
    const place = a % model.liveCount;
    const slot = model.slots[place];
    const generation = model.generations[place];
    // A little longer or shorter, or any other length.
    const factor = 0.5 + share(b);
    const bytes = c % 4 === 0 ? this.#draw(b) : Math.ceil(model.requested[place] * factor);
    const requested = Math.min(bytes, REQUESTED_BYTES_MAX);
    const resize = () => this.#plane.tryResize(slot, generation, requested, 1);
    if (model.pins[place] > 0) {
      this.#refuses("pinned", resize);
      return;
    }
    if (resize()) {
      model.rebind(place, model.offsets[place], this.#plane.grantedBytesOf(slot), requested);
      if (this.#pending?.slot === slot) this.#pending.isPinned = true;
      this.counts.resized += 1;
    }
    this.#look(place);
  }

  exchange(a, b) {
    const model = this.#model;
    if (model.liveCount === 0) return;
    const [one, other] = [a % model.liveCount, b % model.liveCount];
    const slots = [model.slots[one], model.slots[other]];
    const exchange = () =>
      this.#plane.exchange(
        ...[slots[0], model.generations[one]],
        ...[slots[1], model.generations[other]],
      );
    const poolOf = (place) => model.arenas[model.arenaOf[place]].pool;
    if (model.pins[one] + model.pins[other] > 0) this.#refuses("pinned", exchange);
    else if (poolOf(one) !== poolOf(other)) this.#refuses("bad-option", exchange);
    else {
      exchange();
      model.exchange(one, other);
      if (one !== other && slots.includes(this.#pending?.slot)) this.#pending.isPinned = true;
    }
    this.#look(one);
    this.#look(other);
  }

  /** Some blocks in one call; a handle that is stale or of a pinned block does not stop the rest. */
  freeMany(a, b, c) {
    const model = this.#model;
    const count = Math.min(model.liveCount, a % 24);
    const handles = [];
    let refusalCount = 0;
    for (let index = 0; index < count; index++) {
      const place = model.liveCount - 1 - index;
      handles.push({ slot: model.slots[place], generation: model.generations[place] });
      if (model.pins[place] > 0) refusalCount += 1;
    }
    if (handles.length > 0 && b % 4 === 0) {
      handles.push(handles[c % handles.length]);
      refusalCount += 1;
    }
    const refusals = this.#plane.freeAll(handles);
    must(refusals.length === refusalCount, "refusals of many", refusals.length, refusalCount);
    this.counts.bad += refusalCount;
    for (const { slot } of handles.slice(0, count)) {
      const place = model.places[slot];
      if (model.pins[place] === 0) this.#forget(place);
    }
  }

  // --- What they share -----------------------------------------------------------------------------

  get #hasSlot() {
    return this.liveCount + this.#retiredCount < this.#shape.slotCount;
  }

  /** A block was freed: its handle is stale from now on. */
  #forget(place) {
    const slot = this.#model.slots[place];
    const generation = this.#model.generations[place];
    this.#model.remove(place);
    this.#stale[this.#staleCount++ % STALE_COUNT_MAX] = [slot, generation];
    if (generation !== abi.GENERATION_MAX - 1) return;
    this.#retiredCount += 1;
    this.counts.retired += 1;
  }

  /** Bytes of a request. */
  #draw(word) {
    const { bytesMax, sizes } = this.#shape;
    return sizes === undefined ? Math.floor(bytesMax ** share(word)) : sizes[word % sizes.length];
  }

  #open(index, pool = index % POOL_COUNT) {
    const { capacityBytes, granuleShift } = this.#shape.arenas[index];
    const arena = this.#plane.openArena(pool, capacityBytes, granuleShift);
    must(arena !== 0, "no arena", capacityBytes);
    this.#model.open(arena, pool, capacityBytes, Math.min(granuleShift, UNIT_SHIFT));
    return arena;
  }

  #allocate(a, b, alignment) {
    const bytes = this.#draw(b);
    const index = a % this.#arenaIds.length;
    const arena = this.#arenaIds[index];
    const slot = this.#plane.allocate(arena, bytes, alignment);
    if (slot !== 0) this.#add(slot, arena, bytes, alignment);
    else this.#mayRefuse(index, bytes, alignment);
  }

  #add(slot, arena, bytes, alignment) {
    const plane = this.#plane;
    const offset = plane.offsetOf(slot);
    must(offset % alignment === 0, "not aligned", offset, alignment);
    const granted = plane.grantedBytesOf(slot);
    const place = this.#model.add(slot, plane.generationOf(slot), arena, offset, granted, bytes);
    this.counts.allocations += 1;
    this.#look(place);
  }

  /** A refusal must have a reason: no slot, or no free block that is surely long enough. */
  #mayRefuse(index, bytes, alignment) {
    this.counts[this.#hasSlot ? "noRoom" : "noSlot"] += 1;
    if (!this.#hasSlot) return;
    const { capacityBytes, granuleShift } = this.#shape.arenas[index];
    const { largestFreeBlockBytes: largest } = this.#plane.arenaCounters(this.#arenaIds[index]);
    const isSlabArena = granuleShift === UNIT_SHIFT && capacityBytes >= SLAB_ARENA_BYTES_MIN;
    const needed = isSlabArena
      ? Math.max(bytes, SUPERBLOCK_BYTES)
      : 2 ** Math.ceil(Math.log2(Math.max(bytes, alignment)));
    const isFine = largest < needed || (isSlabArena && alignment > 1);
    must(isFine, "refused in spite of room", bytes, alignment, largest);
  }

  #look(place) {
    const plane = this.#plane;
    const model = this.#model;
    const slot = model.slots[place];
    plane.resolve(slot, model.generations[place]);
    must(plane.offsetOf(slot) === model.offsets[place], "an offset", slot);
    must(plane.requestedBytesOf(slot) === model.requested[place], "requested bytes", slot);
    must(plane.grantedBytesOf(slot) === model.granted[place], "granted bytes", slot);
    must(plane.arenaOf(slot) === model.arenaOf[place], "an arena", slot);
    must(plane.pinCountOf(slot) === model.pins[place], "a pin count", slot);
  }

  #refuses(kind, call) {
    this.counts.bad += 1;
    let code = "nothing";
    try {
      call();
    } catch (error) {
      code = error.code ?? error.name;
    }
    const isRefused =
      kind === "handle" ? code === "stale-handle" || code === "foreign-handle" : code === kind;
    must(isRefused, `misuse (${kind})`, code);
  }

  #beginPlan(a) {
    this.#dropPlan();
    this.#planArena = this.#arenaIds[a % this.#arenaIds.length];
    this.#planInto = this.#planArena;
    this.#plane.beginCompaction(this.#planArena);
    this.#hasPlan = true;
  }

  /** A move that was pending is given up by the plane itself. */
  #next() {
    this.#giveUp();
    const move = this.#plane.nextMove();
    if (move === null) {
      this.#dropPlan();
      this.counts.plans += 1;
      return;
    }
    const { slot, into, sourceOffset, targetOffset, byteLength } = move;
    must(into === this.#planInto, "a move into some other arena", slot, into);
    const model = this.#model;
    const place = model.places[slot];
    must(place >= 0 && model.pins[place] === 0, "what must stay is moved", slot);
    must(model.arenaOf[place] === this.#planArena, "a block of another arena", slot);
    must(model.offsets[place] === sourceOffset, "a move from elsewhere", slot, sourceOffset);
    must(model.requested[place] === byteLength, "a move of other bytes", slot, byteLength);
    const { map } = model.arenas[into];
    map.turn(targetOffset, byteLength, 0);
    const generation = model.generations[place];
    this.#pending = {
      slot,
      generation,
      arena: into,
      map,
      targetOffset,
      byteLength,
      isPinned: false,
    };
  }

  /** Commits the pending move, or gives it up. */
  #endMove(word) {
    const { slot, generation, targetOffset, isPinned } = this.#pending;
    if (word % 8 === 0) {
      this.#giveUp();
      this.#plane.vetoMove();
      this.counts.vetoes += 1;
      return;
    }
    const model = this.#model;
    const place = model.places[slot];
    const isThere = place >= 0 && model.generations[place] === generation;
    const isMoved = this.#plane.commitMove();
    must(isMoved === (isThere && !isPinned), "a commit", slot, isMoved);
    this.#giveUp();
    if (!isMoved) return;
    // At its new place a block may be rounded up to another length.
    const granted = this.#plane.grantedBytesOf(slot);
    if (this.#planInto !== this.#planArena) this.counts.crossed += 1;
    model.rebind(place, targetOffset, granted, model.requested[place], this.#planInto);
    this.counts.moves += 1;
    this.#look(place);
  }

  /** Whether the plan is about an arena, or moves into it. */
  #concerns(arena) {
    return this.#planArena === arena || this.#planInto === arena;
  }

  #giveUp() {
    if (this.#pending === null) return;
    const { map, targetOffset, byteLength } = this.#pending;
    map.turn(targetOffset, byteLength, 1);
    this.#pending = null;
  }

  #dropPlan() {
    this.#giveUp();
    this.#hasPlan = false;
    this.#planArena = 0;
    this.#planInto = 0;
  }

  #endPlan() {
    while (this.#hasPlan) this.#next();
  }
}
