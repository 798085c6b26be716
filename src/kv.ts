// KV caches by pages: `tierheap/kv`. Needs no runtime.
import type { KvCachesOptions } from "./kv/kv-caches.js";
import { KvCaches } from "./kv/kv-caches.js";
import type { TensorMemory } from "./tensor-memory.js";

export type { ContentFeatures, FeatureRequest, FeatureStats } from "./kv/content-features.js";
export type { KvCache } from "./kv/kv-cache.js";
export type { KvCaches, KvCachesOptions, KvCachesStats, KvQuery } from "./kv/kv-caches.js";
export { type KvLayout, type PagePlace, pagedLayout, windowLayout } from "./kv/kv-layout.js";
export {
  type CodedLayoutForms,
  type CodedLayoutName,
  type CodedLayoutOptions,
  codedLayout,
} from "./kv/layouts.js";
export type { KvLayerShape, PageForm } from "./kv/page-form.js";
export type { KvExtra } from "./kv/page-key.js";
export type { KvRows } from "./kv/page-plan.js";
export type { PageTableStats } from "./kv/page-table.js";

/**
 * The KV caches of one model in a memory.
 *
 * @throws {MisuseError} `bad-option`, `bad-shape`, `bad-dtype`.
 * @remarks Cheap: nothing is allocated before rows are appended. What earlier caches of the same model left
 *   in the memory or in its tiers is found.
 */
export function openKvCaches(memory: TensorMemory, options: KvCachesOptions): KvCaches {
  return new KvCaches(memory, options);
}
