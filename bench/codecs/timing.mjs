// Pairs short runs of contestants, round by round, so that a busy moment hits all of them; ratios are the
// median over rounds.

export const median = (samples) => [...samples].sort((a, b) => a - b)[samples.length >> 1];

/**
 * @param contestants Functions by name.
 * @param options.rounds Rounds that count; `repeats` calls of each contestant per round.
 * @returns Milliseconds per call by name, a list per contestant, one entry per round.
 */
export function pair(contestants, { rounds, repeats = 1, warmUp = 3 }) {
  const names = Object.keys(contestants);
  const samples = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = -warmUp; round < rounds; round++) {
    for (const name of names) {
      const start = performance.now();
      for (let repeat = 0; repeat < repeats; repeat++) contestants[name]();
      const each = (performance.now() - start) / repeats;
      if (round >= 0) samples[name].push(each);
    }
  }
  return samples;
}

/** How many times faster `fast` is than `slow`: the median over rounds. */
export function speedup(samples, fast, slow) {
  return median(samples[slow].map((ms, round) => ms / samples[fast][round]));
}

/** A module whose one export copies bytes in its memory by the instruction memory.copy. */
export async function memoryCopy(memory) {
  const binary = Uint8Array.of(
    ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 3, 127, 127, 127, 0, 2, 15, 1, 3, 101, 110, 118],
    ...[6, 109, 101, 109, 111, 114, 121, 2, 0, 1, 3, 2, 1, 0, 7, 8, 1, 4, 99, 111, 112, 121, 0, 0],
    ...[10, 14, 1, 12, 0, 32, 0, 32, 1, 32, 2, 252, 10, 0, 0, 11],
  );
  const { instance } = await WebAssembly.instantiate(binary, { env: { memory } });
  return instance.exports.copy;
}

/** A figure whose value must reach its target. */
export function atLeast(id, value, target, beside, unit = "ratio") {
  return { id: `codecs/${id}`, value, unit, target, met: value >= target, beside };
}

/** A figure whose value must not pass its target. */
export function atMost(id, value, target, beside, unit = "ratio") {
  return { id: `codecs/${id}`, value, unit, target, met: value <= target, beside };
}

/** A figure without a target. */
export function plain(id, value, unit, beside) {
  return { id: `codecs/${id}`, value, unit, beside };
}

/** kernels.wasm on a memory of its own, with a simple way to take room in it. */
export async function kernelsOn(byteLength) {
  const { readFile } = await import("node:fs/promises");
  const memory = new WebAssembly.Memory({ initial: Math.ceil(byteLength / 65536) });
  const binary = await readFile(new URL("../../build/kernels.wasm", import.meta.url));
  const { instance } = await WebAssembly.instantiate(binary, { env: { memory } });
  const kernels = instance.exports;
  let top = kernels.kernelsHeapBase();
  const take = (bytes) => {
    const address = top;
    top += Math.ceil(bytes / 64) * 64;
    if (top > byteLength) throw new RangeError("the bench's memory is too small");
    return address;
  };
  return { kernels, memory, take, f32: (at, count) => new Float32Array(memory.buffer, at, count) };
}
