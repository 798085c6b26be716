// Encoders and decoders beside memory.copy of the same f32 bytes, and beside the best plain JavaScript.
import { atLeast, kernelsOn, median, memoryCopy, pair, plain, speedup } from "../timing.mjs";

const SIZES = { l2: 2 ** 18, large: 2 ** 28 };
const TARGETS = {
  "q8-encode": { l2: 0.24, large: 0.85 },
  "q8-decode": { l2: 0.69, large: 0.9 },
};

/** The best form found: no Math.round, a branch for the largest value. */
function q8EncodeScript(source, codes, scales) {
  const blocks = source.length >> 5;
  for (let block = 0; block < blocks; block++) {
    const from = block << 5;
    let largest = 0;
    for (let i = from; i < from + 32; i++) {
      const magnitude = Math.abs(source[i]);
      if (magnitude > largest) largest = magnitude;
    }
    scales[block] = largest / 127;
    const inverse = largest > 0 ? 127 / largest : 0;
    for (let i = from; i < from + 32; i++) codes[i] = ((source[i] * inverse + 128.5) | 0) - 128;
  }
}

function q8DecodeScript(codes, scales, target) {
  const blocks = codes.length >> 5;
  for (let block = 0; block < blocks; block++) {
    const scale = scales[block];
    const from = block << 5;
    for (let i = from; i < from + 32; i++) target[i] = codes[i] * scale;
  }
}

async function measure(size, bytes, isQuick) {
  const isLarge = size === "large";
  const { kernels, memory, take, f32 } = await kernelsOn(bytes * 2.7 + 2 ** 20);
  const copy = await memoryCopy(memory);
  const count = bytes / 4;
  const source = take(bytes);
  const target = take(bytes);
  const codes = take(bytes / 2);
  const scales = take(bytes / 16);
  const scratch = take(65536);
  const cells = f32(source, count);
  for (let i = 0; i < count; i++) cells[i] = Math.sin(i * 12.9898) * 2;
  const pages = count / 8192;
  const each = (work) => () => {
    for (let page = 0; page < pages; page++) work(page * 32768, page * 8192, page * 512);
  };
  const contestants = {
    copy: () => copy(target, source, bytes),
    "q8-encode": () => kernels.q8Encode(source, codes, scales, count / 32),
    "q8-decode": () => kernels.q8Decode(codes, scales, target, count / 32),
    "q4-encode": () => kernels.q4Encode(source, codes, scales, count / 32),
    "q4-decode": () => kernels.q4Decode(codes, scales, target, count / 32),
    "chan4-encode": each((f, c, r) => {
      kernels.chanEncode(source + f, 512, 64, 128, 4, codes + c / 2, scales + r, scratch);
    }),
    "chan4-decode": each((f, c, r) => {
      kernels.chanDecode(codes + c / 2, scales + r, 64, 128, 4, target + f, 512, scratch);
    }),
    "f16-encode": () => kernels.f16Encode(source, codes, count),
    "f16-decode": () => kernels.f16Decode(codes, target, count),
    "bf16-encode": () => kernels.bf16Encode(source, codes, count),
    "bf16-decode": () => kernels.bf16Decode(codes, target, count),
  };
  const rounds = isLarge ? (isQuick ? 2 : 5) : 300;
  const samples = pair(contestants, { rounds, repeats: isLarge ? 1 : 4, warmUp: isLarge ? 1 : 60 });
  const gigabytes = bytes / median(samples.copy) / 1e6;
  const figures = Object.keys(contestants).flatMap((name) => {
    if (name === "copy") return [];
    const value = speedup(samples, name, "copy");
    const id = `${name}-over-copy/${size}`;
    const target_ = TARGETS[name]?.[size];
    const beside = `memory.copy ${gigabytes.toFixed(1)} GB/s`;
    return [target_ ? atLeast(id, value, target_, beside) : plain(id, value, "ratio", beside)];
  });
  if (isLarge) return figures;
  const scriptSource = cells.slice();
  const scriptCodes = new Int8Array(count);
  const scriptScales = new Float32Array(count / 32);
  const scriptTarget = new Float32Array(count);
  const scripts = pair(
    {
      "q8-encode": contestants["q8-encode"],
      "q8-encode-script": () => q8EncodeScript(scriptSource, scriptCodes, scriptScales),
      "q8-decode": contestants["q8-decode"],
      "q8-decode-script": () => q8DecodeScript(scriptCodes, scriptScales, scriptTarget),
    },
    { rounds: 200, repeats: 2, warmUp: 60 },
  );
  const encode = speedup(scripts, "q8-encode", "q8-encode-script");
  const decode = speedup(scripts, "q8-decode", "q8-decode-script");
  figures.push(atLeast("q8-encode-over-script", encode, 9, "the best plain JavaScript found"));
  figures.push(plain("q8-decode-over-script", decode, "ratio", "the best plain JavaScript found"));
  return figures;
}

export async function run({ isQuick }) {
  const figures = [];
  for (const [size, bytes] of Object.entries(SIZES)) {
    figures.push(...(await measure(size, bytes, isQuick)));
  }
  return { figures };
}
