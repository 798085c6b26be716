// Attention on compressed pages beside the same on f32: keys one token at a time, and, stronger, four far
// apart.
import { atLeast, kernelsOn, pair, plain, speedup } from "../timing.mjs";

const D = 128;
const PAGE = 64;
/** Bytes of the f32 keys or values. */
const SIZES = { l2: 2 ** 18, "32MiB": 2 ** 25, "256MiB": 2 ** 28 };
const TARGETS = {
  "scores-q8": { "32MiB": 3.5, "256MiB": 3.5 },
  "scores-chan4": { l2: 1.5, "32MiB": 3, "256MiB": 3 },
  "sum-lm4": { "32MiB": 3, "256MiB": 3 },
};

async function measure(size, bytes, isQuick) {
  const { kernels, take, f32 } = await kernelsOn(bytes * 2 + 2 ** 21);
  const count = bytes / 4;
  const tokens = count / D;
  const pages = tokens / PAGE;
  const source = take(bytes);
  const q8Codes = take(count);
  const q8Scales = take(count / 16);
  const chanCodes = take(count / 2);
  const ranges = take(pages * 512);
  const lmCodes = take(count / 2);
  const gains = take(tokens * 2);
  const query = take(512);
  const scores = take(tokens * 4);
  const weights = take(tokens * 4);
  const sum = take(512);
  const scratch = take(65536);
  const rotated = take(PAGE * D * 4);
  const cells = f32(source, count);
  for (let i = 0; i < count; i++) cells[i] = Math.sin(i * 12.9898) * 2;
  f32(query, D).forEach((_, c, all) => (all[c] = Math.cos(c * 1.3)));
  f32(weights, tokens).forEach((_, t, all) => (all[t] = (1 + (t % 7)) / tokens));
  kernels.q8Encode(source, q8Codes, q8Scales, count / 32);
  for (let page = 0; page < pages; page++) {
    const from = source + page * 32768;
    kernels.chanEncode(
      from,
      512,
      PAGE,
      D,
      4,
      chanCodes + page * 4096,
      ranges + page * 512,
      scratch,
    );
    f32(rotated, PAGE * D).set(f32(from, PAGE * D));
    kernels.lmEncode(rotated, PAGE, D, 4, lmCodes + page * 4096, gains + page * 128, scratch);
  }
  const contestants = {
    "scores-f32": () => kernels.attendScoresF32(source, tokens, D, query, scores),
    "scores-q8": () => kernels.attendScoresQ8(q8Codes, q8Scales, tokens, D, query, scores, scratch),
    "scores-chan4": () => {
      kernels.attendScoresChan(chanCodes, ranges, pages, PAGE, D, 4, query, scores, scratch);
    },
    // Below four tokens the kernel takes them one by one.
    "scores-one": () => {
      for (let token = 0; token + 3 <= tokens; token += 3) {
        kernels.attendScoresF32(source + token * 512, 3, D, query, scores + token * 4);
      }
    },
    "sum-f32": () => kernels.attendSumF32(source, tokens, D, weights, sum),
    "sum-lm4": () => {
      for (let page = 0; page < pages; page++) {
        const codes = lmCodes + page * 4096;
        const w = weights + page * 256;
        kernels.attendSumLm4(codes, gains + page * 128, PAGE, D, w, sum, scratch);
      }
    },
  };
  const isL2 = size === "l2";
  const rounds = isL2 ? 300 : isQuick ? 5 : 11;
  const samples = pair(contestants, { rounds, repeats: isL2 ? 4 : 1, warmUp: isL2 ? 60 : 2 });
  return ["scores-q8", "scores-chan4", "sum-lm4"].flatMap((name) => {
    const isSum = name === "sum-lm4";
    const value = speedup(samples, name, isSum ? "sum-f32" : "scores-one");
    const far = isSum ? null : speedup(samples, name, "scores-f32");
    const id = `attend-${name}-over-f32/${size}`;
    const target = TARGETS[name][size];
    const beside = isSum ? "four tokens at a time" : "one token at a time";
    return [
      target === undefined ? plain(id, value, "ratio", beside) : atLeast(id, value, target, beside),
      ...(far === null
        ? []
        : [plain(`attend-${name}-over-far-f32/${size}`, far, "ratio", "four tokens far apart")]),
    ];
  });
}

export async function run({ isQuick }) {
  const figures = [];
  for (const [size, bytes] of Object.entries(SIZES)) {
    figures.push(...(await measure(size, bytes, isQuick)));
  }
  return { figures };
}
