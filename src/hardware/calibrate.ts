// A short benchmark of the machine at hand: copies in RAM, the SSD tier, the lossless codec, and a GPU if
// there is one. It ends in time whatever a disk does: what could not be measured by then stays unknown.

import type { Clock } from "../clock.js";
import type { Codec } from "../codec/codec.js";
import type { GpuDevice } from "../gpu/gpu-device.js";
import type { Tier } from "../tier/tier.js";
import { type PrivateBytes, privateBytes, privatePart } from "../util/private-bytes.js";
import {
  type Calibration,
  type CalibrationFigures,
  type CalibrationPlace,
  NO_FIGURES,
} from "./calibration.js";
import { measureGpu } from "./measure-gpu.js";
import { OutOfTime, Stopwatch } from "./stopwatch.js";

export interface CalibrateOptions {
  readonly place: CalibrationPlace;
  readonly clock: Clock;
  readonly createCodec: () => Codec;
  /** Default: none is measured. */
  readonly gpu?: GpuDevice | undefined;
  /** Milliseconds for everything. Default: 300. */
  readonly limitMs?: number;
}

type Figures = { -readonly [name in keyof CalibrationFigures]: CalibrationFigures[name] };

const LIMIT_MS = 300;
/** Parts of the time after which the next thing is measured. */
const COPY_SHARE = 0.1;
const SSD_SHARE = 0.55;
const CODEC_SHARE = 0.75;
/** The rest is for ending what has been begun. */
const GPU_SHARE = 0.9;

const MIB = 2 ** 20;
const COPY_BYTES = 4 * MIB;
/** Work that is timed in a row, until it takes so long together. */
const BATCH_MS = 1;
const BATCH_LENGTH_MAX = 64;
const RUN_COUNT = 10;
/** Objects as long tensors are. */
const OBJECT_BYTES = MIB;
const OBJECT_COUNT = 4;
/** A tier is given so many bytes at once. */
const CHUNK_BYTES = 2 ** 18;
const SHORT_BYTES = 4096;
const DURABLE_BYTES = 2 * MIB;
const DEPTHS = [1, 2, 4] as const;
/** More transfers at once have to be so much faster: they take staging buffers. */
const DEPTH_GAIN = 1.5;
const REPEATS = 3;
/** Of a head's keys. */
const COLUMNS = 128;

export async function calibrate(options: CalibrateOptions): Promise<Calibration> {
  const { place, clock, limitMs = LIMIT_MS } = options;
  const startMs = clock.monotonicMs();
  const whole = new Stopwatch(clock, startMs + limitMs);
  const until = (share: number) => whole.until(startMs + share * limitMs);
  const figures: Figures = { ...NO_FIGURES };
  measureCopies(figures, until(COPY_SHARE));
  const tier = place.makeTier();
  await asFarAs(() => measureTier(figures, tier, until(SSD_SHARE)));
  // A tier that does not answer is closed whenever it does.
  const removed = tier.close().then(() => place.removeTier());
  removed.catch(() => {});
  await asFarAs(() => measureCodec(figures, options.createCodec(), until(CODEC_SHARE)));
  const { gpu } = options;
  if (gpu !== undefined) await asFarAs(() => measureGpu(figures, gpu, until(GPU_SHARE)));
  await asFarAs(() => whole.limit(() => removed));
  return {
    machine: place.machine,
    measuredMs: clock.wallMs(),
    durationMs: clock.monotonicMs() - startMs,
    ...figures,
  };
}

/** What fails, or takes too long, leaves its figures unknown. */
async function asFarAs(measure: () => Promise<unknown>): Promise<void> {
  try {
    await measure();
  } catch (error) {
    // Whatever a disk or a device answers, the memory works without its figures, or says so itself.
    if (!(error instanceof Error)) throw error;
  }
}

/** null where the clock is too coarse to tell. */
function perSecond(bytes: number, durationMs: number): number | null {
  return durationMs > 0 ? (1000 * bytes) / durationMs : null;
}

/** Milliseconds that a short piece of work takes at least: done so often in a row that a coarse clock can tell. */
function leastNow(watch: Stopwatch, work: () => void): number {
  let count = 1;
  let leastMs = Number.POSITIVE_INFINITY;
  // One at least, however late it is.
  for (let run = 0; run === 0 || (run < RUN_COUNT && watch.leftMs > 0); run++) {
    const batchMs = watch.timeNow(() => {
      for (let index = 0; index < count; index++) work();
    });
    const isLong = batchMs >= BATCH_MS;
    // What a short batch took counts as long as there is no longer one.
    leastMs = isLong && run > 0 ? Math.min(leastMs, batchMs / count) : batchMs / count;
    if (!isLong && count < BATCH_LENGTH_MAX) count *= 2;
  }
  return leastMs;
}

/**
 * The least of what several runs took: whatever else the machine does lengthens them.
 *
 * @param countMin With fewer than so many in time, nothing is known. Default: 1.
 */
async function least(
  count: number,
  run: (index: number) => Promise<number>,
  countMin = 1,
): Promise<number> {
  let leastMs = Number.POSITIVE_INFINITY;
  for (let index = 0; index < count; index++) {
    try {
      leastMs = Math.min(leastMs, await run(index));
    } catch (error) {
      if (!(error instanceof OutOfTime) || index < countMin) throw error;
      break;
    }
  }
  return leastMs;
}

function measureCopies(figures: Figures, watch: Stopwatch): void {
  const source = new Uint8Array(COPY_BYTES).fill(1);
  const target = new Uint8Array(COPY_BYTES).fill(2);
  const durationMs = leastNow(watch, () => target.set(source));
  figures.copyBytesPerSecond = perSecond(COPY_BYTES, durationMs);
}

const keyOf = (number: number) => number.toString(16).padStart(64, "0");

/** Bytes that no disk finds a pattern in. */
function noise(byteLength: number): PrivateBytes {
  const bytes = privateBytes(byteLength);
  const words = new Uint32Array(bytes.buffer, 0, byteLength / 4);
  let word = 1;
  for (let index = 0; index < words.length; index++) {
    word = Math.imul(word, 1_664_525) + 1_013_904_223;
    words[index] = word;
  }
  return bytes;
}

async function writeObject(tier: Tier, key: string, bytes: PrivateBytes, durable: boolean) {
  const writer = await tier.begin(key, bytes.byteLength);
  if (writer === "no-space") throw new Error("there is no room to measure in");
  for (let offset = 0; offset < bytes.byteLength; offset += CHUNK_BYTES) {
    const end = Math.min(bytes.byteLength, offset + CHUNK_BYTES);
    if ((await writer.write(privatePart(bytes, offset, end))) === "no-space") break;
  }
  if ((await writer.commit({ durable })) === "no-space") throw new Error("there is no room");
}

async function readObject(tier: Tier, key: string, target: PrivateBytes): Promise<void> {
  const reader = await tier.openRead(key);
  if (reader === null) throw new Error("what was written is not there");
  try {
    await reader.read(0, target);
  } finally {
    await reader.close();
  }
}

async function measureTier(figures: Figures, tier: Tier, watch: Stopwatch): Promise<void> {
  await watch.limit(() => tier.open());
  const object = noise(OBJECT_BYTES);
  const short = noise(SHORT_BYTES);
  const target = privateBytes(OBJECT_BYTES);
  const [shortNumber, longNumber] = [OBJECT_COUNT, OBJECT_COUNT + 1];
  const timeWrite = (number: number, bytes: PrivateBytes, durable: boolean) =>
    watch.time(() => writeObject(tier, keyOf(number), bytes, durable));
  const timeRead = (number: number) => watch.time(() => readObject(tier, keyOf(number), target));
  const writeMs = await least(OBJECT_COUNT, (index) => timeWrite(index, object, false));
  figures.ssdWriteBytesPerSecond = perSecond(OBJECT_BYTES, writeMs);
  figures.ssdReadBytesPerSecond = perSecond(OBJECT_BYTES, await least(OBJECT_COUNT, timeRead));
  await timeWrite(shortNumber, short, false);
  figures.ssdLatencyMs = await least(OBJECT_COUNT, () => timeRead(shortNumber));
  if (tier.capabilities.hasDurableCommit) {
    const shortMs = await least(REPEATS, () => timeWrite(shortNumber, short, true));
    figures.ssdDurableMs = shortMs;
    const long = noise(DURABLE_BYTES);
    // One alone may have waited for another process: a slow device is not concluded from it.
    const longMs = await least(REPEATS, () => timeWrite(longNumber, long, true), 2);
    // What a short one takes as well is no matter of bytes.
    const bytesMs = Math.max(longMs - shortMs, longMs / 2);
    figures.ssdDurableBytesPerSecond = perSecond(DURABLE_BYTES, bytesMs);
  }
  figures.ssdQueueDepth = await bestDepth(tier, watch);
}

/** The fewest reads at once that are about as fast as any. */
async function bestDepth(tier: Tier, watch: Stopwatch): Promise<number> {
  const targets = Array.from({ length: OBJECT_COUNT }, () => privateBytes(OBJECT_BYTES));
  let best: { readonly depth: number; readonly durationMs: number } | null = null;
  for (const depth of DEPTHS) {
    const readAll = async () => {
      for (let first = 0; first < OBJECT_COUNT; first += depth) {
        const together = targets.slice(first, first + depth);
        await Promise.all(
          together.map((target, index) => readObject(tier, keyOf(first + index), target)),
        );
      }
    };
    const durationMs = await least(REPEATS, () => watch.time(readAll));
    if (best === null || DEPTH_GAIN * durationMs < best.durationMs) best = { depth, durationMs };
  }
  return best?.depth ?? 1;
}

/** Values about as KV caches have them, as bf16: about normal, so that the exponents are few. */
function kvValues(byteLength: number): Uint8Array {
  const halves = new Uint16Array(byteLength / 2);
  const value = new Float32Array(1);
  const word = new Uint32Array(value.buffer);
  let state = 7;
  for (let index = 0; index < halves.length; index++) {
    let sum = 0;
    for (let draw = 0; draw < 4; draw++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
      sum += state / 2 ** 31;
    }
    value[0] = sum;
    halves[index] = (word[0] as number) / 2 ** 16;
  }
  return new Uint8Array(halves.buffer);
}

async function measureCodec(figures: Figures, codec: Codec, watch: Stopwatch): Promise<void> {
  const coder = await watch.limit(() => codec.load());
  const partBytes = coder.partBytes("bf16", COLUMNS);
  const bytes = kvValues(partBytes);
  const part = { bytes, dtype: "bf16", columns: COLUMNS, limit: null, mayFactor: false } as const;
  let unit = coder.encode(part).bytes.slice();
  const half = watch.until(watch.untilMs - watch.leftMs / 2);
  const encodeMs = leastNow(half, () => {
    unit = coder.encode(part).bytes.slice();
  });
  const target = new Uint8Array(partBytes);
  const decodeMs = leastNow(watch, () => coder.decode(unit, part.dtype, target));
  figures.encodeBytesPerSecond = perSecond(partBytes, encodeMs);
  figures.decodeBytesPerSecond = perSecond(partBytes, decodeMs);
}
