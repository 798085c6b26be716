// What a control plane must do, in plain sums and one bit per unit of bytes. It knows nothing of
// trees, slabs or caches: only that no two blocks share a byte, that a block is as long as was asked
// and lies inside its arena, and what the counters say.
import { must } from "./must.mjs";
import { UnitMap } from "./unit-map.mjs";

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
    const zeros = { requested: 0, requestedPeak: 0, allocations: 0, live: 0 };
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
    pool.requestedPeak = Math.max(pool.requestedPeak, pool.requested);
  }

  pin(place, change) {
    const arena = this.arenas[this.arenaOf[place]];
    this.pins[place] += change;
    if (this.pins[place] === (change > 0 ? 1 : 0)) arena.pinned += change;
  }

  /** The block has moved, also into another arena of its pool, or become longer or shorter. */
  rebind(place, offset, granted, requested, into = this.arenaOf[place]) {
    const source = this.arenas[this.arenaOf[place]];
    const arena = this.arenas[into];
    must(source.pool === arena.pool, "a move into another pool", into);
    source.map.turn(this.offsets[place], this.granted[place], 1);
    for (const [each, sign] of [
      [source, -1],
      [arena, 1],
    ]) {
      each.granted += sign * this.granted[place];
      each.requested += sign * this.requested[place];
      each.live += sign;
    }
    this.arenaOf[place] = into;
    arena.map.turn(offset, granted, 0);
    must(granted >= requested, "shorter than asked", granted, requested);
    const growth = requested - this.requested[place];
    const pool = this.pools[arena.pool];
    arena.granted += granted - this.granted[place];
    for (const each of [arena, pool]) each.requested += growth;
    pool.requestedPeak = Math.max(pool.requestedPeak, pool.requested);
    this.offsets[place] = offset;
    this.granted[place] = granted;
    this.requested[place] = requested;
  }

  /** Two slots have exchanged their blocks. */
  exchange(place, other) {
    for (const column of [this.slots, this.generations]) {
      [column[place], column[other]] = [column[other], column[place]];
    }
    this.places[this.slots[place]] = place;
    this.places[this.slots[other]] = other;
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
      // In a shared plane a lane settles what it took and put now and then, and peaks are noted then.
      const peak = counters.requestedBytesPeak;
      if (plane.lanes === null) same("pool requested peak", peak, pool.requestedPeak);
      same("pool allocations", counters.allocationCount, pool.allocations);
      same("pool frees", counters.freeCount, pool.allocations - pool.live);
      same("pool live", counters.liveCount, pool.live);
    });
  }
}
