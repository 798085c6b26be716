// Shares a byte budget among tensors: each offers what it can become, and bytes go where they lower the
// weighted error most.
//
// Source: Shoham and Gersho, "Efficient Bit Allocation for an Arbitrary Set of Quantizers" — slopes of
// lower convex hulls.
import { MisuseError } from "../errors.js";

/** One way to hold a tensor. */
export interface Offer {
  /** Bytes of the unit. */
  readonly bytes: number;
  /** Relative error of it, from 0. */
  readonly error: number;
}

/** A tensor that takes part. */
export interface Bidder {
  readonly offers: readonly Offer[];
  /** How much its squared error counts, for example its share of all squares. Above 0. */
  readonly weight: number;
}

/** What each bidder gets, by the index of its offer, and what it costs. */
export interface Allocation {
  readonly picks: readonly number[];
  readonly bytes: number;
  /** Weighted sum of squared errors. */
  readonly squaredError: number;
}

interface Step {
  readonly bidder: number;
  readonly offer: number;
  readonly bytes: number;
  readonly gain: number;
}

/**
 * Picks an offer for each bidder, so that the weighted squared error is as small as steps along the convex
 * hulls make it inside the budget.
 *
 * @param bytesMax What all picks together may take.
 * @returns Null if not even the smallest offers fit.
 * @throws {MisuseError} `bad-option` — a bidder without offers, or a weight that is not above 0.
 */
export function allocateBytes(bidders: readonly Bidder[], bytesMax: number): Allocation | null {
  const picks: number[] = [];
  const steps: Step[] = [];
  let bytes = 0;
  bidders.forEach(({ offers, weight }, bidder) => {
    if (offers.length === 0 || !(weight > 0)) {
      throw new MisuseError("bad-option", "a bidder has offers and a weight above 0");
    }
    const hull = lowerHull(offers);
    picks.push(hull[0] as number);
    bytes += (offers[hull[0] as number] as Offer).bytes;
    for (let at = 1; at < hull.length; at++) {
      const before = offers[hull[at - 1] as number] as Offer;
      const after = offers[hull[at] as number] as Offer;
      steps.push({
        bidder,
        offer: hull[at] as number,
        bytes: after.bytes - before.bytes,
        gain: weight * (before.error ** 2 - after.error ** 2),
      });
    }
  });
  if (bytes > bytesMax) return null;
  // Along a hull slopes fall, so the steepest step of all is always the next one of its bidder.
  steps.sort((left, right) => right.gain / right.bytes - left.gain / left.bytes);
  const isStuck = new Set<number>();
  for (const step of steps) {
    if (isStuck.has(step.bidder)) continue;
    if (bytes + step.bytes > bytesMax) {
      isStuck.add(step.bidder);
      continue;
    }
    bytes += step.bytes;
    picks[step.bidder] = step.offer;
  }
  const squaredError = bidders.reduce(
    (sum, { offers, weight }, bidder) =>
      sum + weight * (offers[picks[bidder] as number] as Offer).error ** 2,
    0,
  );
  return { picks, bytes, squaredError };
}

/** Indexes of the offers on the lower convex hull of (bytes, error²), fewest bytes first. */
function lowerHull(offers: readonly Offer[]): number[] {
  const order = offers
    .map((_, index) => index)
    .sort((left, right) => {
      const a = offers[left] as Offer;
      const b = offers[right] as Offer;
      return a.bytes - b.bytes || a.error - b.error;
    });
  const hull: number[] = [];
  for (const index of order) {
    const point = offers[index] as Offer;
    const last = hull.at(-1);
    if (last !== undefined && point.error >= (offers[last] as Offer).error) continue;
    while (hull.length >= 2 && !isConvex(offers, hull, point)) hull.pop();
    hull.push(index);
  }
  return hull;
}

/** Whether the last point of the hull lies below the line from the one before it to `point`. */
function isConvex(offers: readonly Offer[], hull: readonly number[], point: Offer): boolean {
  const first = offers[hull.at(-2) as number] as Offer;
  const last = offers[hull.at(-1) as number] as Offer;
  const slopeBefore = (first.error ** 2 - last.error ** 2) / (last.bytes - first.bytes);
  const slopeAfter = (last.error ** 2 - point.error ** 2) / (point.bytes - last.bytes);
  return slopeBefore > slopeAfter;
}
