/**
 * Decides who speaks when: a list of visits to chats, first evenly, then skewed as real use is,
 * with a few chats that come back often and many that rarely do. Pure: it reads no clock and draws
 * only from the generator it is given.
 *
 * Source: Breslau et al., "Web Caching and Zipf-like Distributions: Evidence and Implications" —
 * requests follow a Zipf law with an exponent somewhat below 1.
 */

/** One turn of one chat. */
export interface Visit {
  /** 0-based. */
  readonly chat: number;
  /** 0 for the opening of the chat; each later visit of the same chat counts one up. */
  readonly turn: number;
}

/** Shape of a schedule. */
export interface ScheduleOptions {
  /** Number of chats, at least 1. */
  readonly chats: number;
  /** Rounds in which each chat speaks once, in order; cut at `turnsMaxPerChat`. */
  readonly roundRobinRounds: number;
  /** Visits after those rounds; fewer when all chats have reached `turnsMaxPerChat`. */
  readonly skewedVisits: number;
  /** Turns after which a chat is over, its opening included. */
  readonly turnsMaxPerChat: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/** The chat of rank r (from 1) is drawn in proportion to 1 / r^exponent. */
const ZIPF_EXPONENT = 0.9;

/**
 * Makes a schedule.
 *
 * @returns The visits in order. For each chat the turns count 0, 1, 2, … without a gap.
 * @throws {RangeError} When an option is not a whole number, or `chats` is below 1.
 * @remarks A chat that is over is never drawn; the others keep their relative shares.
 */
export function makeSchedule(options: ScheduleOptions): Visit[] {
  const { chats, roundRobinRounds, skewedVisits, turnsMaxPerChat, random } = options;
  checkWhole("chats", chats, 1);
  checkWhole("roundRobinRounds", roundRobinRounds, 0);
  checkWhole("skewedVisits", skewedVisits, 0);
  checkWhole("turnsMaxPerChat", turnsMaxPerChat, 0);

  const visits: Visit[] = [];
  const rounds = Math.min(roundRobinRounds, turnsMaxPerChat);
  for (let turn = 0; turn < rounds; turn++) {
    for (let chat = 0; chat < chats; chat++) visits.push({ chat, turn });
  }

  const turnsOf = new Array<number>(chats).fill(rounds);
  const weights = zipfWeights(chats, random);
  if (rounds === turnsMaxPerChat) weights.fill(0);
  for (let drawn = 0; drawn < skewedVisits; drawn++) {
    const chat = drawWeighted(weights, random);
    if (chat === undefined) break;
    const turn = turnsOf[chat] as number;
    visits.push({ chat, turn });
    turnsOf[chat] = turn + 1;
    if (turn + 1 === turnsMaxPerChat) weights[chat] = 0;
  }
  return visits;
}

function checkWhole(name: string, value: number, least: number): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new RangeError(`schedule option ${name} must be a whole number of at least ${least}`);
}

/** Zipf weights by chat, with the ranks dealt at random (Fisher–Yates). */
function zipfWeights(chats: number, random: () => number): number[] {
  const weights = Array.from({ length: chats }, (_, rank) => (rank + 1) ** -ZIPF_EXPONENT);
  for (let last = chats - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    const weight = weights[last] as number;
    weights[last] = weights[other] as number;
    weights[other] = weight;
  }
  return weights;
}

/** Draws an index in proportion to its weight; `undefined` when all weights are 0. */
function drawWeighted(weights: readonly number[], random: () => number): number | undefined {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let rest = random() * total;
  let chosen: number | undefined;
  for (const [index, weight] of weights.entries()) {
    if (weight === 0) continue;
    // Rounding may leave a rest above the last weight: the last candidate then stands.
    chosen = index;
    if (rest < weight) break;
    rest -= weight;
  }
  return chosen;
}
