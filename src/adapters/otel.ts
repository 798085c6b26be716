// Statistics through OpenTelemetry: `tierheap/adapters/otel`. The caller passes a meter of `@opentelemetry/api`; nothing
// of it is imported.
import { type MetricFamily, memoryFamilies } from "../metrics/families.js";
import type { MemoryStats } from "../stats/memory-stats.js";

/** What is used of a `Meter`. */
export interface OtelMeter<I> {
  createObservableGauge(name: string, options: { readonly description: string; unit?: string }): I;
  createObservableCounter(
    name: string,
    options: { readonly description: string; unit?: string },
  ): I;
  addBatchObservableCallback(callback: OtelCallback<I>, observables: I[]): void;
  removeBatchObservableCallback(callback: OtelCallback<I>, observables: I[]): void;
}

/** Called by the SDK for each collection. */
export type OtelCallback<I> = (result: {
  observe(metric: I, value: number, attributes?: Record<string, string>): void;
}) => void;

/** `tierheap_pool_granted_bytes` → `tierheap.pool.granted_bytes`, in OpenTelemetry's manner. */
function instrumentName({ name }: MetricFamily): string {
  const [project = "", group = "", ...rest] = name.replace(/_total$/, "").split("_");
  return [project, group, ...(rest.length > 0 ? [rest.join("_")] : [])].join(".");
}

function unitOf({ name }: MetricFamily): string {
  return /_bytes(_total)?$/.test(name) ? "By" : "1";
}

/**
 * Tells a meter everything that `memory.stats()` counts, at each of its collections.
 *
 * @param meter Such as `metrics.getMeter("tierheap")`.
 * @param attributes Added to each value: which memory it is, where there are several.
 * @returns Ends it; may be called again.
 * @remarks One snapshot for each collection; nothing between them. Ends by itself nowhere: call what it returns before
 *   the memory closes.
 */
export function observeMemory<I>(
  meter: OtelMeter<I>,
  memory: { stats(): MemoryStats },
  attributes: Readonly<Record<string, string>> = {},
): () => void {
  const instruments = new Map<string, I>();
  for (const each of memoryFamilies(memory.stats())) {
    const options = { description: each.help, unit: unitOf(each) };
    const name = instrumentName(each);
    const isCounter = each.type === "counter";
    instruments.set(
      each.name,
      isCounter
        ? meter.createObservableCounter(name, options)
        : meter.createObservableGauge(name, options),
    );
  }
  const callback: OtelCallback<I> = (result) => {
    for (const { name, samples } of memoryFamilies(memory.stats())) {
      const instrument = instruments.get(name) as I;
      for (const { labels, value } of samples) {
        if (Number.isFinite(value)) result.observe(instrument, value, { ...attributes, ...labels });
      }
    }
  };
  const observables = [...instruments.values()];
  meter.addBatchObservableCallback(callback, observables);
  return () => meter.removeBatchObservableCallback(callback, observables);
}
