// Between a cache in pages, which chats share and tiers keep, and the tensors that a runtime reads: rows
// are copied, since a runtime wants the past without gaps.
import { MisuseError } from "../../errors.js";
import type { KvCache } from "../../kv/kv-cache.js";
import type { KvLayerShape } from "../../kv/page-form.js";
import type { KvEntry } from "../onnx/decoder-graph.js";
import { ModelError } from "../onnx/model-error.js";
import type { OrtKvCache } from "./kv-cache.js";
import { clearBehind, copyRows, type RowShape } from "./layout.js";

type Elements = Float32Array | Uint16Array;

/** Places of a layer's keys and values among a model's KV tensors. */
interface LayerAt {
  readonly key: number;
  readonly value: number;
  readonly shape: KvLayerShape;
}

function layersAt(entries: readonly KvEntry[]): LayerAt[] {
  const numbers = [...new Set(entries.map(({ layer }) => layer))].sort((a, b) => a - b);
  return numbers.map((layer) => {
    const at = (part: "key" | "value") =>
      entries.findIndex((entry) => entry.layer === layer && entry.part === part);
    const [key, value] = [at("key"), at("value")];
    const [one, other] = [entries[key], entries[value]];
    const isEven =
      one?.heads === other?.heads && one?.headDim === other?.headDim && one?.dtype === other?.dtype;
    if (one === undefined || !isEven) {
      throw new ModelError("unsupported", `keys and values of layer ${layer} differ in shape`);
    }
    const { heads, headDim, dtype } = one;
    return { key, value, shape: { heads, headDim, dtype } };
  });
}

/** What a cache in pages keeps of each layer. @throws {ModelError} `unsupported` — of unlike keys and values. */
export function kvLayersOf(entries: readonly KvEntry[]): KvLayerShape[] {
  return layersAt(entries).map(({ shape }) => shape);
}

/** @throws {MisuseError} `foreign-cache`; `unsupported` — rows of it have left. */
function checkPages(pages: KvCache, fingerprint: string): void {
  if (pages.fingerprint !== fingerprint) {
    throw new MisuseError("foreign-cache", "the pages are of another model");
  }
  if (pages.rowCount !== pages.tokenCount) {
    throw new MisuseError("unsupported", "a cache whose pages left has no past without gaps");
  }
}

/**
 * Fills an empty cache of the runtime with the rows of pages.
 *
 * @throws {MisuseError} `foreign-cache`, `unsupported`; whatever `KvCache.gather` throws.
 * @throws {OutOfMemoryError} There is no room. The cache is empty as before.
 */
export async function fillFromPages(
  cache: OrtKvCache,
  entries: readonly KvEntry[],
  pages: KvCache,
): Promise<void> {
  checkPages(pages, cache.fingerprint);
  const { tokens } = pages;
  if (tokens.length === 0) return;
  await cache.begin(tokens.length, "anything");
  try {
    const stride = cache.strideFor(tokens.length);
    const viewOf = (index: number, { heads, headDim }: RowShape) =>
      cache.view(index).subarray(0, heads * stride * headDim);
    const into = layersAt(entries).map(({ key, value, shape }) => ({
      keys: viewOf(key, shape),
      values: viewOf(value, shape),
    }));
    await pages.gather(into, stride);
    for (const [index, entry] of entries.entries()) {
      clearBehind(cache.view(index), entry, stride, tokens.length);
    }
    cache.checkRunUntouched();
    cache.commit(tokens);
  } finally {
    cache.end();
  }
}

/**
 * Appends to pages what a cache of the runtime has and they have not.
 *
 * @throws {MisuseError} `token-mismatch` — the pages' tokens are not its beginning; `foreign-cache`,
 *   `unsupported`; whatever `KvCache.append` throws.
 * @remarks A page at a time. Where it fails the pages hold a longer beginning than before.
 */
export async function appendToPages(
  cache: OrtKvCache,
  entries: readonly KvEntry[],
  pages: KvCache,
): Promise<void> {
  checkPages(pages, cache.fingerprint);
  const { tokens } = cache;
  const known = pages.tokens;
  if (known.length > tokens.length || known.some((token, index) => token !== tokens[index])) {
    throw new MisuseError("token-mismatch", "the pages do not hold the beginning of the cache");
  }
  const { pageTokens } = pages;
  const layers = layersAt(entries);
  await cache.lend(async (views, stride) => {
    for (let from = known.length; from < tokens.length; ) {
      const to = Math.min(tokens.length, from - (from % pageTokens) + pageTokens);
      const rowsOf = (index: number, shape: RowShape) => {
        const whole = views[index] as Elements;
        const { heads, headDim } = shape;
        const rows = whole.slice(0, heads * (to - from) * headDim);
        copyRows(rows, to - from, whole.subarray(from * headDim), stride, shape, to - from);
        return rows;
      };
      const rows = layers.map(({ key, value, shape }) => ({
        keys: rowsOf(key, shape),
        values: rowsOf(value, shape),
      }));
      await pages.append(tokens.slice(from, to), rows);
      from = to;
    }
  });
}
