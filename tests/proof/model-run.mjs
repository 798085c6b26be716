// Random runs of a control plane against the model: episodes, each with a shape and weights of its
// own. A divergence is reported with its seed and the shortest sequence found that shows it.
import { openPlane } from "./builds.mjs";
import { NEVER_OFF, OPERATIONS, WEIGHTS } from "./operations.mjs";
import { words } from "./random.mjs";
import { Run } from "./steps.mjs";

const MIB = 2 ** 20;
/** Heaps of at most this many blocks are checked after each step. */
const SMALL_BLOCK_COUNT = 64;
const CHECK_STEPS = 1000;
/** Steps that an episode grows, or shrinks, its heap. */
const PHASE_STEPS = 4096;
const WORDS_PER_STEP = 4;
const SHRINK_TRIAL_COUNT = 300;

const small = (arenas, bytesMax) => ({
  arenas,
  bytesMax,
  slotCount: SMALL_BLOCK_COUNT,
  stepCount: 20_000,
});
const large = (arenas, bytesMax, slotCount, sizes) => ({
  arenas,
  bytesMax,
  slotCount,
  sizes,
  stepCount: 250_000,
});
const arena = (capacityBytes, granuleShift = 6) => ({ capacityBytes, granuleShift });
const LLM_SIZES = [768, 2304, 6144, 12_288, 12_288, 12_288, 18_432, 36_864, 147_456, 196_608];

/** Each with the share of the steps that it gets, in 16ths. */
const SHAPES = [
  [1, small([arena(64 * 64), arena(40 * 64), arena(7 * 64)], 2048)],
  [1, small([arena(2 ** 20, 14), arena(5 * 1024, 4)], 2 ** 18)],
  [1, small([arena(4 * MIB), arena(4 * MIB + 12_288)], 2 ** 20)],
  [2, large([arena(3 * MIB), arena(MIB, 8)], 2 ** 16, 600)],
  [3, large([arena(4 * MIB), arena(5 * MIB + 4096)], 2 ** 18, 900)],
  [3, large([arena(16 * MIB), arena(6 * MIB)], 2 ** 21, 1500)],
  [3, large([arena(24 * MIB), arena(8 * MIB)], 0, 2000, LLM_SIZES)],
  [2, large([arena(64 * MIB), arena(2 * MIB, 12)], 2 ** 23, 800)],
];
const DECK = SHAPES.flatMap(([weight, shape]) => new Array(weight).fill(shape));

const ALLOCATES = new Set(["allocate", "allocateAligned"].map((name) => OPERATIONS.indexOf(name)));
const FREE = OPERATIONS.indexOf("free");

/** Draws what the steps of an episode are: an operation and three words each. */
function stepSource(random) {
  const weights = OPERATIONS.map((name) => {
    const isOff = !NEVER_OFF.includes(name) && random() % 8 === 0;
    return isOff ? 0 : WEIGHTS[name] * (0.25 + 0.75 * (random() / 2 ** 32));
  });
  const sum = weights.reduce((left, right) => left + right, 0);
  const table = new Uint8Array(4096);
  let filled = 0;
  let reached = 0;
  weights.forEach((weight, operation) => {
    reached += weight;
    const end = Math.round((reached / sum) * table.length);
    table.fill(operation, filled, end);
    filled = end;
  });
  let phaseShare = 0;
  return (step, into) => {
    if (step % PHASE_STEPS === 0) phaseShare = random() % 256;
    const word = random();
    let operation = table[word & 4095];
    // Phases of growth and of shrinkage: the heap is full now, and nearly empty then.
    const turns = (word >>> 12) % 256 < phaseShare;
    if (phaseShare < 96 && operation === FREE && !turns && word >>> 30 !== 0) operation = 0;
    if (phaseShare > 224 && ALLOCATES.has(operation) && turns && word >>> 30 !== 0)
      operation = FREE;
    into[0] = operation;
    into[1] = random();
    into[2] = random();
    into[3] = random();
  };
}

async function openRun(shape, options) {
  const { plane, memory, base } = await openPlane({ ...shape, ...options });
  const words = new Int32Array(memory.buffer);
  return new Run(options.wrap?.(plane) ?? plane, { ...shape, words, base });
}

/** Replays recorded steps. @returns The error, or null. */
async function replay(shape, options, steps) {
  const run = await openRun(shape, options);
  try {
    for (const [operation, a, b, c] of steps) {
      run.step(operation, a, b, c);
      if (run.liveCount <= SMALL_BLOCK_COUNT) run.check();
    }
    run.check();
    run.finish();
    return null;
  } catch (error) {
    return error;
  }
}

/** Leaves steps out as long as the rest still fails. */
async function shrink(shape, options, steps) {
  const { shrinkTrialCount = SHRINK_TRIAL_COUNT } = options;
  let kept = steps;
  let trialCount = 0;
  for (let length = kept.length >> 1; length >= 1; length >>= 1) {
    for (let from = 0; from < kept.length; ) {
      if (trialCount++ === shrinkTrialCount) return kept;
      const part = [...kept.slice(0, from), ...kept.slice(from + length)];
      if ((await replay(shape, options, part)) !== null) kept = part;
      else from += length;
    }
  }
  return kept;
}

async function report(error, { shape, options, seed, stepCount }) {
  const random = words(seed);
  random();
  const draw = stepSource(random);
  const steps = [];
  for (let step = 0; step < stepCount; step++) {
    const into = new Uint32Array(WORDS_PER_STEP);
    draw(step, into);
    steps.push(into);
  }
  const shortest = await shrink(shape, options, steps);
  const lines = shortest
    .slice(0, 60)
    .map(([name, ...rest]) => `${OPERATIONS[name]} ${rest.join(" ")}`);
  const arenas = shape.arenas.map((each) => `${each.capacityBytes}/${each.granuleShift}`).join(" ");
  return new Error(
    `${options.build}, episode seed ${seed}, step ${stepCount}: ${error.message}\n` +
      `arenas ${arenas}, ${shape.slotCount} slots; ${shortest.length} steps show it:\n` +
      lines.join("\n"),
    { cause: error },
  );
}

/** One episode. @returns Its counts. @throws {Error} With the seed and a short sequence. */
async function episode(seed, stepCountMax, options) {
  const random = words(seed);
  const shape = options.shape ?? DECK[random() % DECK.length];
  const run = await openRun(shape, options);
  const draw = stepSource(random);
  const into = new Uint32Array(WORDS_PER_STEP);
  const stepCount = Math.min(shape.stepCount, stepCountMax);
  const isSmall = shape.slotCount <= SMALL_BLOCK_COUNT;
  let step = 0;
  try {
    for (; step < stepCount; step++) {
      draw(step, into);
      run.step(into[0], into[1], into[2], into[3]);
      if (isSmall || step % CHECK_STEPS === 0) run.check();
    }
    run.finish();
  } catch (error) {
    throw await report(error, { shape, options, seed, stepCount: Math.min(step + 1, stepCount) });
  }
  return run.counts;
}

/**
 * Runs episodes until so many operations are done.
 *
 * @param options.build Of the core; `wasm` or `wrap` replace its module or its control plane.
 * @param options.episodeStepCountMax Cuts episodes off, for more of them. Default: not.
 * @param options.shrinkTrialCount Replays that shorten a failing sequence. Default: 300.
 * @returns {Promise<Record<string, number>>} The sums of their counts.
 */
export async function runModel({
  seed,
  operationCount,
  episodeStepCountMax = operationCount,
  ...options
}) {
  const seeds = words(seed);
  const sums = { episodes: 0, operations: 0 };
  while (sums.operations < operationCount) {
    const rest = operationCount - sums.operations;
    const counts = await episode(seeds(), Math.min(rest, episodeStepCountMax), options);
    sums.episodes += 1;
    for (const [name, count] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + count;
  }
  return sums;
}
