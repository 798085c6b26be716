// What layouts keep and what they cost: bytes of KV per token, and the error of the attention output.
//
// Bytes are those of a cache shaped like Llama-3-8B's: 32 layers, 8 KV heads of 128, f16. Errors are of
// synthetic heads of 2,048 tokens, with the first and the last page exact, and of one head of the chat
// example's decoder.
import { openPageForms } from "../../dist/src/codecs.js";
import { openLayoutKernels } from "../../dist/src/layout.js";
import { Head, PAGE_TOKENS } from "./layout-heads.mjs";

const LAYERS = 32;
const MODEL_LAYER = { heads: 8, headDim: 128, dtype: "f16" };
const HEAD_DIM = MODEL_LAYER.headDim;
/** Bytes may pass the aim by one line of 64 a section, and by what blocks of 32 cost over whole rows. */
const BYTES_SLACK = 1.03;

const F16_AIM = { bytes: 131_072, error: 0.0005 };

/**
 * Rows of the table: how a head is coded; the bytes per token and the error to aim at, where there are
 * such: those of the recipes that the forms follow.
 */
const ROWS = [
  { id: "int8", name: "quant8", aim: { bytes: 68_096, error: 0.008 } },
  { id: "int4", name: "quant", aim: { bytes: 35_328, error: 0.043 } },
  {
    id: "int2",
    name: "hybrid",
    options: { a8Pages: 0, a4Pages: 0 },
    aim: { bytes: 20_992, error: 0.178 },
  },
  { id: "low-rank-50-8bit", name: "lowrank", keys: { rank: 64, bits: 8 } },
  {
    id: "low-rank-50-4bit",
    name: "lowrank",
    keys: { rank: 64, bits: 4 },
    aim: { bytes: 28_672, error: 0.06 },
  },
  { id: "low-rank-2bit", name: "lowrank", keys: { bitsPerValue: 2 } },
  {
    id: "components-3bit",
    name: "lowrank",
    keys: { bitsPerValue: 3 },
    values: { bitsPerValue: 3 },
  },
  { id: "hybrid-by-age", name: "hybrid" },
  { id: "hybrid-by-age-and-mass", name: "hybrid", isNoted: true },
  {
    id: "hybrid-low-rank",
    name: "hybrid",
    keys: { bitsPerValue: 3 },
    values: { bitsPerValue: 3 },
    aim: { error: 0.043 },
  },
];

const geometricMean = (values) =>
  Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
const percent = (value) => (value === undefined ? "" : `${(value * 100).toFixed(2)} %`);
const bytes = (value) => Math.round(value).toLocaleString("en-US");

/** The layout of a row for a head, with bases found on that head where it needs some. */
async function specOf(forms, head, { name, options = {}, keys, values, isNoted }) {
  const masses = isNoted ? head.masses() : null;
  if (keys === undefined) return { name, options, masses };
  const bases = {
    keys: await head.basis(forms, "keys", keys),
    ...(values === undefined ? {} : { values: await head.basis(forms, "values", values) }),
  };
  const form = forms.lowRank(bases);
  return { name, isBefore: true, options: { ...options, lowRankOfLayer: () => form }, masses };
}

/** A row's ranks, for heads half as wide. */
const halved = (row) =>
  row.keys?.rank === undefined ? row : { ...row, keys: { ...row.keys, rank: row.keys.rank / 2 } };

/** Bytes of a token of the whole model, were all its pages in this form. */
function modelBytes(forms, form, headShape) {
  // A basis belongs to heads: its form says what one of them takes.
  const isOwn = form.name.startsWith("lowrank");
  const layer = isOwn ? { ...headShape, areKeysBeforeRope: true } : MODEL_LAYER;
  const section = form === forms.exact ? exactBytes() : form.sectionBytes(layer, PAGE_TOKENS);
  const heads = isOwn ? MODEL_LAYER.heads : 1;
  return ((section * heads) / PAGE_TOKENS) * LAYERS;
}

/** Error of the attention output with keys and values rounded to f16. */
function halfError(kernels, head) {
  const rounded = (rows) => {
    const halves = new Uint16Array(rows.length);
    kernels.convert(rows, "f32", halves, "f16");
    const back = new Float32Array(rows.length);
    kernels.convert(halves, "f16", back, "f32");
    return back;
  };
  return head.error(rounded(head.keys), rounded(head.values));
}

const exactBytes = () => MODEL_LAYER.heads * PAGE_TOKENS * HEAD_DIM * 2 * 2;

export async function runLayouts({ isQuick, figure }) {
  const forms = await openPageForms();
  const kernels = await openLayoutKernels();
  const halfErrors = [];
  const found = new Map(ROWS.map(({ id }) => [id, { errors: [], core: [], whole: [] }]));
  for (const head of Head.synthetic(isQuick ? [100] : [100, 200])) {
    halfErrors.push(halfError(kernels, head));
    for (const row of ROWS) {
      const { error, used } = head.code(forms, await specOf(forms, head, row));
      const each = used.map((form) => modelBytes(forms, form, head.shape));
      const coded = each.filter((_, page) => used[page] !== forms.exact);
      const mean = (list) => list.reduce((a, b) => a + b) / list.length;
      const { errors, core, whole } = found.get(row.id);
      errors.push(error);
      core.push(mean(coded));
      whole.push(mean(each));
    }
  }
  const captured = await Head.captured();
  const f16 = (exactBytes() / PAGE_TOKENS) * LAYERS;
  const half = geometricMean(halfErrors);
  const table = {
    f16: {
      "bytes/token": bytes(f16),
      "aim ": bytes(F16_AIM.bytes),
      "at 2,048 tokens": bytes(f16),
      "attention error": percent(half),
      aim: percent(F16_AIM.error),
      worst: percent(Math.max(...halfErrors)),
      "seeded decoder": percent(halfError(kernels, captured)),
    },
  };
  const f16Beside = "Llama-3-8B's shape";
  figure("kv/bytes-per-token-f16", f16, "bytes", F16_AIM.bytes, f16 <= F16_AIM.bytes, f16Beside);
  const isHalfNear = half <= F16_AIM.error;
  figure("kv/attention-error-f16", half, "share", F16_AIM.error, isHalfNear, "rounded, not coded");
  for (const row of ROWS) {
    const { errors, core, whole } = found.get(row.id);
    const error = geometricMean(errors);
    const coreBytes = geometricMean(core);
    const own = captured.code(forms, await specOf(forms, captured, halved(row))).error;
    table[row.id] = {
      "bytes/token": bytes(coreBytes),
      "aim ": row.aim?.bytes === undefined ? "" : bytes(row.aim.bytes),
      "at 2,048 tokens": bytes(geometricMean(whole)),
      "attention error": percent(error),
      aim: percent(row.aim?.error),
      worst: percent(Math.max(...errors)),
      "seeded decoder": percent(own),
    };
    const wanted = row.aim?.bytes === undefined ? undefined : row.aim.bytes * BYTES_SLACK;
    const isShort = wanted === undefined ? undefined : coreBytes <= wanted;
    const aim = wanted === undefined ? "" : `aim ${bytes(row.aim.bytes)}; `;
    const beside = `${aim}${((coreBytes * 8) / (f16 / 2)).toFixed(2)} bits a value, ${bytes(geometricMean(whole))} with exact pages`;
    figure(`kv/bytes-per-token-${row.id}`, coreBytes, "bytes", wanted, isShort, beside);
    const limit = row.aim?.error;
    const isNear = limit === undefined ? undefined : error <= limit;
    const worst = `worst head ${percent(Math.max(...errors))}`;
    figure(`kv/attention-error-${row.id}`, error, "share", limit, isNear, worst);
  }
  console.log(
    "\nlayouts: bytes of a coded token, and the error of the attention output beside them",
  );
  console.table(table);
}
