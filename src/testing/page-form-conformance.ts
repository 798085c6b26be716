// Conformance suite of the seam `kv/page-form.ts`.
import type { KvLayerShape, PageForm } from "../kv/page-form.js";
import { seededRandom } from "../random.js";
import {
  assert,
  assertBytes,
  assertEqual,
  assertThrows,
  type ConformanceCase,
} from "./conformance.js";

/** What a form is tried with. */
export interface PageFormFixture {
  readonly form: PageForm;
  /** Layers that it takes; not empty. */
  readonly layers: readonly KvLayerShape[];
  /** Most relative error of keys, and of values, over rows of one size. Not looked at if the form is exact. */
  readonly errorMax: { readonly keys: number; readonly values: number };
}

const PAGE_TOKENS = [16, 64];
const UNTOUCHED = 0xa5;

/** f32 to the layer's bytes and back: an oracle, not a kernel. */
function bytesOf(values: Float32Array, dtype: KvLayerShape["dtype"]): Uint8Array {
  const { buffer } = values.slice();
  if (dtype === "f32") return new Uint8Array(buffer);
  // bf16: the lower bits are cut off; any will do.
  const halves = Uint16Array.from(
    new Uint32Array(buffer),
    dtype === "bf16" ? (bits) => bits >>> 16 : halfOf,
  );
  return new Uint8Array(halves.buffer);
}

function valuesOf(bytes: Uint8Array, dtype: KvLayerShape["dtype"]): Float32Array {
  const { buffer } = bytes.slice();
  if (dtype === "f32") return new Float32Array(buffer);
  const halves = new Uint16Array(buffer);
  if (dtype === "f16") return Float32Array.from(halves, ofHalf);
  return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
}

/** Cuts the lower bits of an f32 off; what f16 cannot hold as a normal number becomes zero or infinity. */
function halfOf(bits: number): number {
  const exponent = ((bits >>> 23) & 255) - 112;
  const sign = (bits >>> 16) & 0x8000;
  if (exponent <= 0) return sign;
  if (exponent === 143 && (bits & 0x7f_ffff) !== 0) return 0x7e00;
  return exponent >= 31 ? sign | 0x7c00 : sign | (exponent << 10) | ((bits >>> 13) & 0x3ff);
}

function ofHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const mantissa = half & 1023;
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : Number.NaN;
  return exponent === 0
    ? sign * mantissa * 2 ** -24
    : sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** Rows with an offset and two large channels, as keys have. */
function rowsOf(layer: KvLayerShape, pageTokens: number, seed: number, factor = 1): Uint8Array {
  const random = seededRandom(seed);
  const { heads, headDim } = layer;
  const values = Float32Array.from({ length: heads * pageTokens * headDim }, (_, index) => {
    const sum = (random.uint32() + random.uint32()) / 2 ** 31 - 2;
    const channel = index % headDim;
    return factor * (sum + (channel === 1 ? 3 : 0) + (channel % 7) * 0.05);
  });
  return bytesOf(values, layer.dtype);
}

function relativeError(actual: Float32Array, expected: Float32Array): number {
  let errors = 0;
  let squares = 0;
  actual.forEach((value, index) => {
    errors += (value - (expected[index] as number)) ** 2;
    squares += (expected[index] as number) ** 2;
  });
  return Math.sqrt(errors / squares);
}

/** @param make A form, with fresh state if it has any. */
export function pageFormConformance(make: () => Promise<PageFormFixture>): ConformanceCase[] {
  const each = async (
    work: (
      fixture: PageFormFixture,
      layer: KvLayerShape,
      pageTokens: number,
      section: Uint8Array,
    ) => void,
  ) => {
    const fixture = await make();
    assert(fixture.layers.length > 0, "no layer to try");
    for (const layer of fixture.layers) {
      for (const pageTokens of PAGE_TOKENS) {
        const section = new Uint8Array(fixture.form.sectionBytes(layer, pageTokens));
        work(fixture, layer, pageTokens, section.fill(UNTOUCHED));
      }
    }
  };
  return [
    {
      name: "says how long a section is by its shape alone, in multiples of 64",
      run: () =>
        each(({ form }, layer, pageTokens, { byteLength }) => {
          assert(byteLength > 0 && byteLength % 64 === 0, `a section of ${byteLength} bytes`);
          form.encode(
            layer,
            pageTokens,
            rowsOf(layer, pageTokens, 1),
            rowsOf(layer, pageTokens, 2),
            new Uint8Array(byteLength),
          );
          assertEqual(form.sectionBytes(layer, pageTokens), byteLength, "the length afterwards");
        }),
    },
    {
      name: "refuses shapes that are none",
      run: async () => {
        const { form, layers } = await make();
        const [layer] = layers as [KvLayerShape];
        for (const pageTokens of [0, -64, 1.5, Number.NaN]) {
          const work = () => form.sectionBytes(layer, pageTokens);
          assertThrows(work, ["bad-shape"], `${pageTokens} tokens`);
        }
        for (const wrong of [{ heads: 0 }, { headDim: 0 }, { heads: 0.5 }, { heads: 2 ** 30 }]) {
          const work = () => form.sectionBytes({ ...layer, ...wrong }, 64);
          assertThrows(work, ["bad-shape"], JSON.stringify(wrong));
        }
        const integers = { ...layer, dtype: "i8" as never };
        assertThrows(() => form.sectionBytes(integers, 64), ["bad-dtype"], "an integer type");
      },
    },
    {
      name: "gives rows back, exactly or within its error, from views anywhere",
      run: () =>
        each(({ form, errorMax }, layer, pageTokens, section) => {
          const keys = rowsOf(layer, pageTokens, 3);
          const values = rowsOf(layer, pageTokens, 4);
          const odd = (bytes: Uint8Array) => {
            const target = new Uint8Array(bytes.byteLength + 3).fill(UNTOUCHED);
            target.set(bytes, 1);
            return target.subarray(1, 1 + bytes.byteLength);
          };
          form.encode(layer, pageTokens, odd(keys), odd(values), section);
          const keysBack = odd(new Uint8Array(keys.byteLength));
          const valuesBack = odd(new Uint8Array(values.byteLength));
          form.decode(layer, pageTokens, odd(section), keysBack, valuesBack);
          for (const [what, original, back, limit] of [
            ["keys", keys, keysBack, errorMax.keys],
            ["values", values, valuesBack, errorMax.values],
          ] as const) {
            const around = new Uint8Array(back.buffer);
            assertEqual(around[0], UNTOUCHED, `the byte before the ${what}`);
            assertEqual(around.at(-1), UNTOUCHED, `the byte behind the ${what}`);
            if (form.isExact) {
              assertBytes(back, original, what);
              continue;
            }
            const { dtype } = layer;
            const error = relativeError(valuesOf(back, dtype), valuesOf(original, dtype));
            assert(error <= limit, `${what}: the error is ${error}`);
            assert(error > 0, `${what} come back exactly, which was not promised`);
          }
        }),
    },
    {
      name: "writes the same bytes for the same rows, and leaves the rows alone",
      run: () =>
        each(({ form }, layer, pageTokens, section) => {
          const keys = rowsOf(layer, pageTokens, 5);
          const values = rowsOf(layer, pageTokens, 6);
          form.encode(layer, pageTokens, keys, values, section);
          form.encode(layer, pageTokens, values, keys, section.slice());
          const again = new Uint8Array(section.byteLength).fill(1);
          form.encode(layer, pageTokens, keys, values, again);
          assertBytes(again, section, "the second section");
          assertBytes(keys, rowsOf(layer, pageTokens, 5), "the keys");
          assertBytes(values, rowsOf(layer, pageTokens, 6), "the values");
        }),
    },
    {
      name: "decodes only what is wanted",
      run: () =>
        each(({ form }, layer, pageTokens, section) => {
          const keys = rowsOf(layer, pageTokens, 7);
          const values = rowsOf(layer, pageTokens, 8);
          form.encode(layer, pageTokens, keys, values, section);
          const whole = [new Uint8Array(keys.byteLength), new Uint8Array(keys.byteLength)] as const;
          form.decode(layer, pageTokens, section, ...whole);
          const part = new Uint8Array(keys.byteLength);
          form.decode(layer, pageTokens, section, part, null);
          assertBytes(part, whole[0], "keys alone");
          form.decode(layer, pageTokens, section, null, part);
          assertBytes(part, whole[1], "values alone");
          form.decode(layer, pageTokens, section, null, null);
        }),
    },
    {
      name: "refuses buffers of another length, and writes nothing then",
      run: () =>
        each(({ form }, layer, pageTokens, section) => {
          const keys = rowsOf(layer, pageTokens, 9);
          for (const change of [-1, 1]) {
            const wrong = new Uint8Array(keys.byteLength + change).fill(UNTOUCHED);
            const wrongSection = new Uint8Array(section.byteLength + change).fill(UNTOUCHED);
            const refused = (work: () => void, what: string) =>
              assertThrows(work, ["bad-size"], what);
            refused(() => form.encode(layer, pageTokens, wrong, keys, section), "keys");
            refused(() => form.encode(layer, pageTokens, keys, wrong, section), "values");
            refused(() => form.encode(layer, pageTokens, keys, keys, wrongSection), "section");
            refused(() => form.decode(layer, pageTokens, section, wrong, null), "target");
            refused(() => form.decode(layer, pageTokens, wrongSection, keys, null), "source");
            for (const bytes of [wrong, wrongSection, section]) {
              assert(
                bytes.every((byte) => byte === UNTOUCHED),
                "something was written",
              );
            }
          }
        }),
    },
    {
      name: "keeps values that are not finite exactly, or refuses them before it writes",
      run: () =>
        each(({ form }, layer, pageTokens, section) => {
          const elements = layer.heads * pageTokens * layer.headDim;
          for (const [round, value] of [Number.NaN, Infinity, -Infinity].entries()) {
            const odd = Float32Array.from({ length: elements }, (_, index) => (index % 5) - 2);
            odd[(round * 131 + elements - 1) % elements] = value;
            const keys = bytesOf(odd, layer.dtype);
            const plain = rowsOf(layer, pageTokens, 10);
            for (const [first, second] of [
              [keys, plain],
              [plain, keys],
            ] as const) {
              const work = () => form.encode(layer, pageTokens, first, second, section);
              if (form.isExact) {
                work();
                const back = new Uint8Array(keys.byteLength);
                form.decode(layer, pageTokens, section, back, null);
                assertBytes(back, first, "keys that are not finite");
                continue;
              }
              assertThrows(work, ["unsupported"], "a value that is not finite");
              assert(
                section.every((byte) => byte === UNTOUCHED),
                "a part of the section was written",
              );
            }
          }
        }),
    },
    {
      name: "takes rows of zeros, and tiny and large ones, with the same relative error",
      run: () =>
        each(({ form, errorMax }, layer, pageTokens, section) => {
          const { dtype } = layer;
          const zeros = new Uint8Array(rowsOf(layer, pageTokens, 0).byteLength);
          const back = new Uint8Array(zeros.byteLength);
          form.encode(layer, pageTokens, zeros, zeros, section);
          form.decode(layer, pageTokens, section, back, null);
          assertBytes(back, zeros, "keys of zeros");
          for (const factor of dtype === "f16" ? [1e-2, 100] : [1e-30, 1e-6, 1e4, 1e20]) {
            const rows = rowsOf(layer, pageTokens, 11, factor);
            form.encode(layer, pageTokens, rows, rows, section);
            form.decode(layer, pageTokens, section, back, null);
            const error = relativeError(valuesOf(back, dtype), valuesOf(rows, dtype));
            const limit = form.isExact ? 0 : errorMax.keys;
            assert(error <= limit, `keys times ${factor}: the error is ${error}`);
          }
        }),
    },
    {
      name: "takes any bytes for a section without harm: refuses them, or gives some rows",
      run: () =>
        each(({ form }, layer, pageTokens, section) => {
          const rows = rowsOf(layer, pageTokens, 12);
          form.encode(layer, pageTokens, rows, rows, section);
          const good = [new Uint8Array(rows.byteLength), new Uint8Array(rows.byteLength)] as const;
          form.decode(layer, pageTokens, section, ...good);
          const random = seededRandom(13);
          for (let round = 0; round < 8; round++) {
            const odd = section.map((byte, index) =>
              // The first rounds leave the head of the section as it is.
              round < 4 && index < 8 ? byte : random.uint32() & 0xff,
            );
            const target = new Uint8Array(rows.byteLength);
            try {
              form.decode(layer, pageTokens, odd, target, target.slice());
            } catch (error) {
              const code = String((error as { code?: unknown }).code);
              assertEqual(code, "foreign-cache", "what a section of noise throws");
            }
          }
          const again = [new Uint8Array(rows.byteLength), new Uint8Array(rows.byteLength)] as const;
          form.decode(layer, pageTokens, section, ...again);
          assertBytes(again[0], good[0], "the keys of a good section afterwards");
          assertBytes(again[1], good[1], "the values of a good section afterwards");
        }),
    },
  ];
}
