// What a control plane must do, in plain sums and one bit per unit of bytes. It knows nothing of
// trees, slabs or caches: only that no two blocks share a byte, that a block is as long as was asked
// and lies inside its arena, and what the counters say.

/** The plane did something that the model does not allow. */
export class Divergence extends Error {
  name = "Divergence";
}

export function must(holds, text, ...values) {
  if (!holds) throw new Divergence(`${text}: ${values.join(", ")}`);
}

/** One bit per unit of an arena: whether a block owns it. */
class UnitMap {
  #words;
  #unitShift;
  #unitCount;

  constructor(capacityBytes, unitShift) {
    this.#unitShift = unitShift;
    this.#unitCount = Math.floor(capacityBytes / 2 ** unitShift);
    this.#words = new Int32Array((this.#unitCount >>> 5) + 1);
  }

  /** Turns the units of a block from `before` to `after`, each 0 or 1; all must be `before`. */
  turn(offset, bytes, before) {
    const unitBytes = 2 ** this.#unitShift;
    const first = offset / unitBytes;
    const end = Math.ceil((offset + bytes) / unitBytes);
    must(Number.isInteger(first) && bytes > 0 && end <= this.#unitCount, "outside", offset, bytes);
    const words = this.#words;
    const wanted = before === 0 ? 0 : -1;
    const lastWord = (end - 1) >>> 5;
    for (let at = first >>> 5; at <= lastWord; at++) {
      let mask = -1;
      if (at === first >>> 5) mask &= -1 << (first & 31);
      if (at === lastWord) mask &= -1 >>> (31 - ((end - 1) & 31));
      must(((words[at] ^ wanted) & mask) === 0, "bytes of two", offset, bytes);
      words[at] ^= mask;
    }
  }
}

export class Model {
  /** By arena: pool, capacity, unit map and sums. */
  arenas = [];
  liveCount = 0;
  #columns;

  constructor(slotCount, poolCount) {
    // By place, dense: the live blocks.
    this.slots = new Int32Array(slotCount);
    this.generations = new Int32Array(slotCount);
    this.arenaOf = new Int32Array(slotCount);
    this.offsets = new Float64Array(slotCount);
    this.granted = new Float64Array(slotCount);
    this.requested = new Float64Array(slotCount);
    this.pins = new Int32Array(slotCount);
    const { slots, generations, arenaOf, offsets, granted, requested, pins } = this;
    this.#columns = [slots, generations, arenaOf, offsets, granted, requested, pins];
    /** By slot: place, or -1. */
    this.places = new Int32Array(slotCount + 1).fill(-1);
    const zeros = { requested: 0, requestedPeak: 0, requestedTotal: 0, allocations: 0, live: 0 };
    this.pools = Array.from({ length: poolCount }, () => ({ ...zeros }));
  }

  open(arena, pool, capacityBytes, granuleShift) {
    must(arena > 0 && this.arenas[arena] === undefined, "an open arena again", arena);
    const map = new UnitMap(capacityBytes, granuleShift);
    this.arenas[arena] = { pool, capacityBytes, map, requested: 0, granted: 0, live: 0, pinned: 0 };
  }

  close(arena) {
    this.arenas[arena] = undefined;
  }

  /** @returns The place of the new block. */
  add(slot, generation, arena, offset, granted, requested) {
    const { map, capacityBytes } = this.arenas[arena];
    must(this.places[slot] === -1, "a slot of two blocks", slot);
    must(granted >= requested, "shorter than asked", granted, requested);
    must(offset + granted <= capacityBytes, "past the arena", offset, granted);
    map.turn(offset, granted, 0);
    const place = this.liveCount++;
    this.places[slot] = place;
    this.slots[place] = slot;
    this.generations[place] = generation;
    this.arenaOf[place] = arena;
    this.offsets[place] = offset;
    this.pins[place] = 0;
    this.#count(place, granted, requested, 1);
    return place;
  }

  remove(place) {
    this.arenas[this.arenaOf[place]].map.turn(this.offsets[place], this.granted[place], 1);
    this.#count(place, this.granted[place], this.requested[place], -1);
    this.places[this.slots[place]] = -1;
    const last = --this.liveCount;
    this.places[this.slots[last]] = this.slots[last] === this.slots[place] ? -1 : place;
    for (const column of this.#columns) column[place] = column[last];
  }

  #count(place, granted, requested, sign) {
    this.granted[place] = granted;
    this.requested[place] = requested;
    const arena = this.arenas[this.arenaOf[place]];
    const pool = this.pools[arena.pool];
    arena.granted += sign * granted;
    for (const each of [arena, pool]) {
      each.requested += sign * requested;
      each.live += sign;
    }
    if (sign < 0) return;
    pool.allocations += 1;
    pool.requestedTotal += requested;
    pool.requestedPeak = Math.max(pool.requestedPeak, pool.requested);
  }

  pin(place, change) {
    const arena = this.arenas[this.arenaOf[place]];
    this.pins[place] += change;
    if (this.pins[place] === (change > 0 ? 1 : 0)) arena.pinned += change;
  }

  /** Bytes that a pending move has claimed, or gives back. */
  claim(arena, offset, bytes) {
    this.arenas[arena].map.turn(offset, bytes, 0);
  }

  release(arena, offset, bytes) {
    this.arenas[arena].map.turn(offset, bytes, 1);
  }

  /** Every counter of the plane against the model's. */
  compare(plane) {
    const same = (name, actual, expected) =>
      must(actual === expected, `${name} is not the model's`, actual, expected);
    this.arenas.forEach((arena, id) => {
      if (arena === undefined) return;
      const counters = plane.arenaCounters(id);
      same("arena requested", counters.requestedBytes, arena.requested);
      same("arena granted", counters.grantedBytes, arena.granted);
      same("arena live", counters.liveCount, arena.live);
      same("arena pinned", counters.pinnedCount, arena.pinned);
    });
    this.pools.forEach((pool, id) => {
      const counters = plane.poolCounters(id);
      same("pool requested", counters.requestedBytes, pool.requested);
      same("pool requested peak", counters.requestedBytesPeak, pool.requestedPeak);
      same("pool requested total", counters.requestedBytesTotal, pool.requestedTotal);
      same("pool allocations", counters.allocationCount, pool.allocations);
      same("pool frees", counters.freeCount, pool.allocations - pool.live);
      same("pool live", counters.liveCount, pool.live);
    });
  }
}
