// Axes, pages and conversions against a naive oracle: every small shape, in both builds, in place and by
// way of a workspace that is too short for the whole.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Elements, openLayoutKernels } from "../../src/codec/layout-kernels.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import { seededRandom } from "../../src/random.js";
import { KERNEL_BUILDS, type KernelBuild } from "../support/kernels.js";

const WORKSPACE_BYTES = 2 ** 16;

function wasmOf(build: KernelBuild) {
  return readFileSync(new URL(`../../build/${build}.wasm`, import.meta.url));
}

async function open(build: KernelBuild) {
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 16 });
  const wasm = wasmOf(build);
  const kernels = await openLayoutKernels({ memory, wasm, workspaceBytes: WORKSPACE_BYTES });
  return { memory, kernels };
}

function randomBytes(byteLength: number, seed = byteLength): Uint8Array {
  const random = seededRandom(seed);
  return Uint8Array.from({ length: byteLength }, () => random.uint32() & 0xff);
}

const VIEWS = [Uint8Array, Uint16Array, Float32Array, BigUint64Array] as const;
type View = (typeof VIEWS)[number];

/** A view of bytes that begin at any offset that its elements allow. */
function viewOf(View: View, bytes: Uint8Array): Elements {
  const padded = new Uint8Array(bytes.byteLength + View.BYTES_PER_ELEMENT);
  padded.set(bytes, View.BYTES_PER_ELEMENT);
  const count = bytes.byteLength / View.BYTES_PER_ELEMENT;
  return new View(padded.buffer, View.BYTES_PER_ELEMENT, count);
}

const bytesOf = (view: Elements) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** [batch, outer, inner, row] to [batch, inner, outer, row], row by row. */
function swapped(source: Uint8Array, batch: number, outer: number, inner: number, row: number) {
  const target = new Uint8Array(source.byteLength);
  for (let b = 0; b < batch; b++) {
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        const from = ((b * outer + o) * inner + i) * row;
        const to = ((b * inner + i) * outer + o) * row;
        for (let at = 0; at < row; at++) target[to + at] = source[from + at] as number;
      }
    }
  }
  return target;
}

/** Lengths around the edges of squares and bands. */
const LENGTHS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 65];

describe.each(KERNEL_BUILDS)("%s", (build) => {
  it("exchanges axes of every small shape and element, by way of the workspace and in place", async () => {
    const { kernels, memory } = await open(build);
    const room = new Uint8Array(memory.buffer);
    let shapes = 0;
    for (const View of VIEWS) {
      const width = View.BYTES_PER_ELEMENT;
      for (const outer of LENGTHS) {
        for (const inner of LENGTHS) {
          const bytes = randomBytes(outer * inner * width);
          const expected = swapped(bytes, 1, outer, inner, width);
          const target = viewOf(View, new Uint8Array(bytes.byteLength));
          kernels.swapAxes(viewOf(View, bytes), target, { outer, inner });
          expect(Buffer.compare(bytesOf(target), expected)).toBe(0);
          // Bytes around the target are not touched.
          const from = 64 + width;
          const to = from + bytes.byteLength + width;
          room.fill(0xa5, 0, to + bytes.byteLength + 64);
          room.set(bytes, from);
          const count = outer * inner;
          const source = new View(memory.buffer, from, count);
          kernels.swapAxes(source, new View(memory.buffer, to, count), { outer, inner });
          expect(Buffer.compare(room.subarray(to, to + bytes.byteLength), expected)).toBe(0);
          const around = [room.subarray(to - width, to), room.subarray(to + bytes.byteLength)];
          for (const edge of around)
            expect(edge.subarray(0, width).every((b) => b === 0xa5)).toBe(true);
          shapes++;
        }
      }
    }
    expect(shapes).toBe(VIEWS.length * LENGTHS.length ** 2);
  });

  it("keeps rows of any length together", async () => {
    const { kernels, memory } = await open(build);
    const room = new Uint8Array(memory.buffer);
    for (const row of [
      2, 3, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 100, 511, 512, 513, 5000,
    ]) {
      for (const [batch, outer, inner] of [
        [1, 1, 1],
        [2, 3, 5],
        [1, 8, 2],
      ] as const) {
        const bytes = randomBytes(batch * outer * inner * row, row);
        const expected = swapped(bytes, batch, outer, inner, row);
        const target = new Uint8Array(bytes.byteLength);
        kernels.swapAxes(bytes, target, { batch, outer, inner, row });
        expect(Buffer.compare(target, expected)).toBe(0);
        const to = bytes.byteLength + 1;
        room.set(bytes, 0);
        room.fill(0xa5, bytes.byteLength, to + bytes.byteLength + 1);
        const views = [0, to].map((at) => room.subarray(at, at + bytes.byteLength)) as [
          Uint8Array,
          Uint8Array,
        ];
        kernels.swapAxes(...views, { batch, outer, inner, row });
        expect(Buffer.compare(views[1], expected)).toBe(0);
        expect([room[bytes.byteLength], room[to + bytes.byteLength]]).toEqual([0xa5, 0xa5]);
      }
    }
  });

  it("cuts what does not fit the workspace into bands and squares", async () => {
    const { kernels } = await open(build);
    for (const [outer, inner, row] of [
      [3, 20_000, 1],
      [20_000, 3, 1],
      [300, 310, 1],
      [2000, 70, 1],
      [70, 33, 60],
      [5, 7, 4000],
    ] as const) {
      const bytes = randomBytes(outer * inner * row * 4, outer);
      const source = new Float32Array(bytes.buffer);
      const target = new Float32Array(source.length);
      kernels.swapAxes(source, target, { outer, inner, row });
      expect(Buffer.compare(bytesOf(target), swapped(bytes, 1, outer, inner, row * 4))).toBe(0);
    }
  });

  it("names the orders of images and heads, and goes back", async () => {
    const { kernels } = await open(build);
    const image = { images: 2, channels: 3, height: 5, width: 7 };
    const pixels = randomBytes(2 * 3 * 5 * 7);
    const turned = new Uint8Array(pixels.length);
    const back = new Uint8Array(pixels.length);
    kernels.nchwToNhwc(pixels, turned, image);
    for (let n = 0; n < 2; n++) {
      for (let c = 0; c < 3; c++) {
        for (let h = 0; h < 5; h++) {
          for (let w = 0; w < 7; w++) {
            const value = pixels[((n * 3 + c) * 5 + h) * 7 + w];
            expect(turned[((n * 5 + h) * 7 + w) * 3 + c]).toBe(value);
          }
        }
      }
    }
    kernels.nhwcToNchw(turned, back, image);
    expect(back).toEqual(pixels);
    const heads = { batch: 2, heads: 3, tokens: 4, headDim: 5 };
    const rows = Float32Array.from({ length: 120 }, (_, index) => index);
    const tokens = new Float32Array(120);
    kernels.headsToTokens(rows, tokens, heads);
    // Batch 1, head 2, token 3, element 4.
    expect(tokens[((1 * 4 + 3) * 3 + 2) * 5 + 4]).toBe(((1 * 3 + 2) * 4 + 3) * 5 + 4);
    const again = new Float32Array(120);
    kernels.tokensToHeads(tokens, again, heads);
    expect(again).toEqual(rows);
  });

  it("gathers pages and scatters them again, the last one partly filled", async () => {
    const { kernels, memory } = await open(build);
    for (const isInPlace of [false, true]) {
      for (const [heads, pageTokens, headDim, tokens, strideTokens] of [
        [1, 4, 1, 3, 3],
        [2, 4, 3, 9, 9],
        [3, 8, 5, 24, 40],
        [2, 16, 80, 33, 64],
        [2, 4, 3, 0, 8],
      ] as const) {
        let top = 8;
        const make = (count: number) => {
          const view = isInPlace
            ? new Uint16Array(memory.buffer, top, count)
            : new Uint16Array(count);
          top += view.byteLength + 6;
          return view.fill(0xa5a5);
        };
        const shape = { heads, pageTokens, headDim, tokens, strideTokens };
        const pages = Array.from({ length: Math.ceil(tokens / pageTokens) }, (_, page) =>
          make(heads * pageTokens * headDim).map((_, index) => page * 10_000 + index),
        ).map((values) => {
          const page = make(values.length);
          page.set(values);
          return page;
        });
        const tensor = make(heads * strideTokens * headDim);
        kernels.gatherPages(pages, tensor, shape);
        for (let head = 0; head < heads; head++) {
          for (let token = 0; token < strideTokens; token++) {
            const page = Math.floor(token / pageTokens);
            const own = ((head * pageTokens + (token % pageTokens)) * headDim) | 0;
            const expected = token < tokens ? page * 10_000 + own : 0xa5a5;
            expect(tensor[(head * strideTokens + token) * headDim]).toBe(expected);
          }
        }
        const others = pages.map((page) => make(page.length));
        kernels.scatterPages(tensor, others, shape);
        others.forEach((other, index) => {
          const filled = Math.min(pageTokens, tokens - index * pageTokens);
          other.forEach((value, at) => {
            const token = Math.floor(at / headDim) % pageTokens;
            expect(value).toBe(token < filled ? pages[index]?.[at] : 0xa5a5);
          });
        });
      }
    }
  });

  it("converts floats of every width into every other, over more than the workspace", async () => {
    const { kernels } = await open(build);
    const values = Float32Array.from({ length: 20_001 }, (_, index) => (index % 4001) - 2000);
    const halves = new Uint16Array(values.length);
    const back = new Float32Array(values.length);
    kernels.convert(values, "f32", halves, "f16");
    kernels.convert(halves, "f16", back, "f32");
    expect(back).toEqual(values);
    const brains = new Uint16Array(values.length);
    kernels.convert(halves, "f16", brains, "bf16");
    const straight = new Uint16Array(values.length);
    kernels.convert(values, "f32", straight, "bf16");
    expect(brains).toEqual(straight);
    expect(straight[2001]).toBe(0x3f80);
    kernels.convert(brains, "bf16", halves, "f16");
    expect(halves[2001]).toBe(0x3c00);
    const copy = new Float32Array(values.length);
    kernels.convert(values, "f32", copy, "f32");
    expect(copy).toEqual(values);
  });
});

describe("misuse", () => {
  it("is refused before anything is written", async () => {
    const { kernels } = await open("kernels");
    const source = new Float32Array(12);
    const target = new Float32Array(12).fill(7);
    const paged = { heads: 1, pageTokens: 4, headDim: 1, tokens: 12, strideTokens: 12 };
    const pages = [0, 1, 2].map(() => new Float32Array(4));
    const cases: [() => void, string][] = [
      [() => kernels.swapAxes(source, target, { outer: 3, inner: -4 }), "bad-shape"],
      [() => kernels.swapAxes(source, target, { outer: 1.5, inner: 8 }), "bad-shape"],
      [() => kernels.swapAxes(source, target, { outer: 3, inner: 5 }), "bad-size"],
      [() => kernels.swapAxes(source.subarray(1), target, { outer: 3, inner: 4 }), "bad-size"],
      [() => kernels.swapAxes(source, target.subarray(1), { outer: 3, inner: 4 }), "bad-size"],
      [() => kernels.swapAxes(new Int16Array(12), target, { outer: 3, inner: 4 }), "bad-dtype"],
      [() => kernels.swapAxes(target, target, { outer: 3, inner: 4 }), "bad-option"],
      [
        () =>
          kernels.swapAxes(target.subarray(0, 6), target.subarray(5, 11), { outer: 2, inner: 3 }),
        "bad-option",
      ],
      [() => kernels.gatherPages(pages.slice(1), target, paged), "bad-shape"],
      [() => kernels.gatherPages(pages, target, { ...paged, tokens: 13 }), "bad-shape"],
      [() => kernels.gatherPages(pages, target, { ...paged, pageTokens: 0 }), "bad-shape"],
      [() => kernels.gatherPages(pages, target.subarray(1), paged), "bad-size"],
      [
        () => kernels.scatterPages(target, [...pages.slice(1), target.subarray(0, 4)], paged),
        "bad-option",
      ],
      [
        () => kernels.scatterPages(target, [...pages.slice(1), new Float32Array(5)], paged),
        "bad-size",
      ],
      [() => kernels.convert(source, "f32", target, "f16"), "bad-dtype"],
      [() => kernels.convert(source, "f64" as never, target, "f32"), "bad-dtype"],
      [() => kernels.convert(source, "f32", new Uint16Array(11), "f16"), "bad-size"],
    ];
    for (const [work, code] of cases) {
      expect(work).toThrow(expect.objectContaining({ code }));
      expect(target.every((value) => value === 7)).toBe(true);
    }
    kernels.swapAxes(new Float32Array(0), new Float32Array(0), { outer: 0, inner: 9 });
    const opening = openLayoutKernels({ workspaceBytes: 1024 });
    await expect(opening).rejects.toMatchObject({ code: "bad-option" });
  });

  it("does not disturb a memory beside the views that it is given", async () => {
    const memory = createUnsharedMemory(1);
    const before = randomBytes(65536, 3);
    new Uint8Array(memory.buffer).set(before);
    const kernels = await openLayoutKernels({ memory, wasm: wasmOf("kernels") });
    const after = new Uint8Array(memory.buffer);
    expect(Buffer.compare(after, before)).toBe(0);
    kernels.swapAxes(after.subarray(0, 600), after.subarray(600, 1200), { outer: 20, inner: 30 });
    before.set(swapped(before.subarray(0, 600), 1, 20, 30, 1), 600);
    expect(Buffer.compare(after, before)).toBe(0);
  });
});
