// Workloads (a), (c), (d), the view metric and the fill that is compacted. (b) is llm-trace.mjs.
import { xorshift } from "./random.mjs";

const MIB = 2 ** 20;

export const CHURN_ARENA_BYTES = 512 * MIB;
export const CHURN_LIVE_COUNT = 20_000;
export const BURST_LENGTH = 512;
export const BURSTS_PER_ROUND = 64;

export const TRACE_ARENA_BYTES = 256 * MIB;
export const FILL_ARENA_BYTES = 64 * MIB;

/** A power of two from 64 B to 64 KiB. */
export function powerOfTwoBytes(random) {
  return 64 * 2 ** Math.floor(11 * random());
}

/** From 256 B to 1 MiB, each doubling as likely as any other. */
export function logUniformBytes(random) {
  return Math.ceil(256 * 4096 ** random());
}

const TENSOR_BYTES = [
  768, 2304, 6144, 12_288, 18_432, 36_864, 49_152, 98_304, 147_456, 196_608, 393_216,
];

/** A tensor of the LLM trace's model; the small ones are more frequent. */
export function tensorBytes(random) {
  return TENSOR_BYTES[Math.floor(11 * random() ** 1.5)];
}

/** The mixes of (d), by the name in a figure's id. */
export const FILL_MIXES = {
  "powers-of-two": powerOfTwoBytes,
  "log-uniform": logUniformBytes,
  "tensor-sizes": tensorBytes,
  "kv-pages": () => 12_288,
};

/**
 * (a): sizes to fill with, then bursts. A burst frees 512 different places and allocates into the
 * same places, other sizes.
 *
 * @param liveCount Blocks live between bursts; at least 512.
 * @param burstCount Bursts; `places` and `sizes` hold 512 entries for each.
 */
export function churn({ liveCount = CHURN_LIVE_COUNT, burstCount = BURSTS_PER_ROUND } = {}) {
  const random = xorshift(1);
  const fillSizes = new Int32Array(liveCount);
  for (let place = 0; place < liveCount; place++) fillSizes[place] = powerOfTwoBytes(random);
  const places = new Int32Array(burstCount * BURST_LENGTH);
  const sizes = new Int32Array(places.length);
  for (let from = 0; from < places.length; from += BURST_LENGTH) {
    const drawn = new Set();
    for (let index = from; index < from + BURST_LENGTH; index++) {
      let place = Math.floor(liveCount * random());
      while (drawn.has(place)) place = Math.floor(liveCount * random());
      drawn.add(place);
      places[index] = place;
      sizes[index] = powerOfTwoBytes(random);
    }
  }
  return { fillSizes, fillPlaces: identity(liveCount), places, sizes };
}

/** 0, 1, 2 and so on: a fill takes the places in order. */
export function identity(count) {
  return Int32Array.from({ length: count }, (_, index) => index);
}

/** (c): replacements that age the arena before the pairs are timed, as operations on (a)'s places. */
export function replacements(count = 20_000) {
  const random = xorshift(9);
  const places = new Int32Array(count * 2);
  const sizes = new Int32Array(count * 2);
  for (let index = 0; index < places.length; index += 2) {
    places[index] = Math.floor(CHURN_LIVE_COUNT * random());
    places[index + 1] = places[index];
    sizes[index + 1] = powerOfTwoBytes(random);
  }
  return { places, sizes };
}

/** (c): a stack of eight, freed in reverse. */
export function stackOfEight(bytes = 2304) {
  return Int32Array.from([1, 3, 1, 2, 5, 1, 1, 3], (factor) => factor * bytes);
}

/** The view metric: four tensors, in bytes, freed in reverse. */
export function tensorStack(elements) {
  return Int32Array.from([1, 3, 1, 2], (factor) => factor * elements * 4);
}
