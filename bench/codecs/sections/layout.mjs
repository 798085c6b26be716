// Layout kernels beside plain JavaScript on the same typed arrays: by way of the workspace, and in place
// where both views lie in one memory.
import { readFile } from "node:fs/promises";
import { openLayoutKernels } from "../../../dist/src/layout.js";
import { atLeast, pair, plain, speedup } from "../timing.mjs";

/** Elements one by one, the target from left to right. */
function swapElements(source, target, { outer, inner }) {
  for (let i = 0, at = 0; i < inner; i++) {
    for (let o = 0; o < outer; o++, at++) target[at] = source[o * inner + i];
  }
}

/** Rows by `set`. */
function swapRows(source, target, { outer, inner, row }) {
  for (let i = 0; i < inner; i++) {
    for (let o = 0; o < outer; o++) {
      const from = (o * inner + i) * row;
      target.set(source.subarray(from, from + row), (i * outer + o) * row);
    }
  }
}

/** Rows element by element. */
function swapRowElements(source, target, { outer, inner, row }) {
  for (let i = 0; i < inner; i++) {
    for (let o = 0; o < outer; o++) {
      const from = (o * inner + i) * row;
      const to = (i * outer + o) * row;
      for (let c = 0; c < row; c++) target[to + c] = source[from + c];
    }
  }
}

const CASES = {
  "nchw-to-nhwc-f32-128x56x56": { View: Float32Array, outer: 128, inner: 56 * 56, row: 1 },
  "nhwc-to-nchw-f32-56x56x128": { View: Float32Array, outer: 56 * 56, inner: 128, row: 1 },
  "nhwc-to-nchw-u8-512x512x3": { View: Uint8Array, outer: 512 * 512, inner: 3, row: 1 },
  "swap-f16-1024x1024": { View: Uint16Array, outer: 1024, inner: 1024, row: 1 },
  "heads-to-tokens-f32-8x2048x128": { View: Float32Array, outer: 8, inner: 2048, row: 128 },
  "heads-to-tokens-f16-8x2048x64": { View: Uint16Array, outer: 8, inner: 2048, row: 64 },
};
const TARGET = 1;

async function fill(View, count, memory, at) {
  const view = new View(memory.buffer, at, count);
  for (let index = 0; index < count; index++) view[index] = index * 2654435761;
  return view;
}

export async function run({ isQuick }) {
  const wasm = await readFile(new URL("../../../build/kernels.wasm", import.meta.url));
  const figures = [];
  for (const [name, { View, ...shape }] of Object.entries(CASES)) {
    const count = shape.outer * shape.inner * shape.row;
    const bytes = count * View.BYTES_PER_ELEMENT;
    const memory = new WebAssembly.Memory({ initial: Math.ceil((bytes * 2) / 65536) });
    const inPlace = await openLayoutKernels({ memory, wasm });
    const elsewhere = await openLayoutKernels({ wasm });
    const source = await fill(View, count, memory, 0);
    const target = new View(memory.buffer, bytes, count);
    const forms = shape.row === 1 ? [swapElements] : [swapRows, swapRowElements];
    const contestants = {
      workspace: () => elsewhere.swapAxes(source, target, shape),
      place: () => inPlace.swapAxes(source, target, shape),
    };
    for (const form of forms) contestants[form.name] = () => form(source, target, shape);
    const samples = pair(contestants, { rounds: isQuick ? 9 : 25 });
    const best = forms
      .map((form) => form.name)
      .reduce((a, b) => (speedup(samples, a, b) >= 1 ? a : b));
    const beside = `over ${best}`;
    figures.push(
      atLeast(`layout-${name}/workspace`, speedup(samples, "workspace", best), TARGET, beside),
      atLeast(`layout-${name}/in-place`, speedup(samples, "place", best), TARGET, beside),
    );
  }
  figures.push(...(await gathering(wasm, isQuick)));
  return { figures };
}

/** Pages of 64 tokens into one tensor with a stride, and rows of one token, as a step of decoding has. */
async function gathering(wasm, isQuick) {
  const figures = [];
  for (const [name, heads, pageTokens, headDim, pageCount] of [
    ["pages-of-64-f16", 8, 64, 128, 32],
    ["pages-of-16-f16", 8, 16, 64, 64],
    ["rows-of-one-token-f16", 32, 1, 64, 32],
  ]) {
    const tokens = pageTokens * pageCount;
    const pageElements = heads * pageTokens * headDim;
    const memory = new WebAssembly.Memory({
      initial: Math.ceil((pageElements * pageCount * 4) / 65536),
    });
    const kernels = await openLayoutKernels({ memory, wasm });
    const pages = Array.from(
      { length: pageCount },
      (_, page) => new Uint16Array(memory.buffer, page * pageElements * 2, pageElements),
    );
    const start = pageCount * pageElements * 2;
    const target = new Uint16Array(memory.buffer, start, heads * tokens * headDim);
    const shape = { heads, pageTokens, headDim, tokens, strideTokens: tokens };
    const headElements = pageTokens * headDim;
    const samples = pair(
      {
        place: () => kernels.gatherPages(pages, target, shape),
        set: () => {
          pages.forEach((page, index) => {
            for (let head = 0; head < heads; head++) {
              const own = page.subarray(head * headElements, (head + 1) * headElements);
              target.set(own, (head * tokens + index * pageTokens) * headDim);
            }
          });
        },
      },
      { rounds: isQuick ? 21 : 101, repeats: 4 },
    );
    figures.push(
      plain(`layout-gather-${name}`, speedup(samples, "place", "set"), "ratio", "over set"),
    );
  }
  return figures;
}
