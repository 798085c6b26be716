// Statistics for others: Prometheus, OpenTelemetry, developer tools, and who leaks.
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { expect, it, vi } from "vitest";
import { observeMemory } from "../../src/adapters/otel.js";
import {
  arenaGaps,
  formatArenas,
  formatPrometheus,
  LeakSites,
  memoryFamilies,
  prometheusText,
  timelineSink,
} from "../../src/metrics.js";
import { memoryTier } from "../../src/testing/index.js";
import { closeMemory, openMemory } from "../support/oracle.js";

const MIB = 2 ** 20;

/** A memory in which something has happened. */
async function usedMemory(statsSink = {}) {
  const memory = await openMemory({ seams: { tier: memoryTier(), ...statsSink } });
  for (let index = 0; index < 6; index++) {
    memory.allocate({ kind: "KV_CACHE", id: `${index}`, byteLength: MIB, zero: true });
  }
  memory.allocate({ kind: "ACTIVATIONS", byteLength: 100 });
  for (const id of ["1", "2"]) await memory.swapOut(id);
  (await memory.acquire("1"))?.[Symbol.dispose]();
  memory.free("3");
  return memory;
}

/** The samples of a page, by name and labels; throws on a line that is none. */
function samplesOf(page: string): Map<string, number> {
  const samples = new Map<string, number>();
  const typed = new Set<string>();
  for (const line of page.trimEnd().split("\n")) {
    const type = /^# TYPE (\S+) (counter|gauge)$/.exec(line);
    if (type !== null) typed.add(type[1] as string);
    if (line.startsWith("#")) continue;
    const match = /^([a-z_]+)(\{.*\})? (\S+)$/.exec(line);
    if (match === null) throw new Error(`no sample: ${line}`);
    const [, name = "", labels = "", value = ""] = match;
    expect(typed.has(name), name).toBe(true);
    expect(name.endsWith("_total"), name).toBe(page.includes(`# TYPE ${name} counter`));
    samples.set(name + labels, Number(value.replace("Inf", "Infinity")));
  }
  return samples;
}

it("one page says what stats() says, for Prometheus", async () => {
  const memory = await usedMemory();
  const stats = memory.stats();
  const samples = samplesOf(prometheusText(stats));
  expect(samples.size).toBeGreaterThan(50);
  expect(samples.get("tierheap_budget_limit_bytes")).toBe(16 * MIB);
  expect(samples.get('tierheap_pool_requested_bytes{kind="KV_CACHE"}')).toBe(4 * MIB);
  expect(samples.get('tierheap_pool_allocations_total{kind="ACTIVATIONS"}')).toBe(1);
  expect(samples.get('tierheap_transfers_total{move="swap-out"}')).toBe(2);
  expect(samples.get('tierheap_lookups_total{result="misses"}')).toBe(stats.lookups.misses);
  expect(samples.get("tierheap_tensors")).toBe(5);
  await closeMemory(memory);
});

it("labels, help and numbers are escaped", () => {
  const page = formatPrometheus([
    {
      ...{ name: "a", type: "gauge", help: "one\\two\nthree" },
      samples: [
        { labels: { who: 'a "b"\\c\nd' }, value: Number.POSITIVE_INFINITY },
        { labels: { who: "e" }, value: Number.NEGATIVE_INFINITY },
      ],
    },
  ]);
  expect(page).toBe(
    '# HELP a one\\\\two\\nthree\n# TYPE a gauge\na{who="a \\"b\\"\\\\c\\nd"} +Inf\na{who="e"} -Inf\n',
  );
});

it("OpenTelemetry's own SDK collects the same figures", async () => {
  const memory = await usedMemory();
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 2 ** 30 });
  const provider = new MeterProvider({ readers: [reader] });
  let snapshots = 0;
  const counted = {
    stats: () => {
      snapshots += 1;
      return memory.stats();
    },
  };
  const end = observeMemory(provider.getMeter("tierheap"), counted, { memory: "chats" });
  await reader.forceFlush();
  const points = () =>
    exporter
      .getMetrics()
      .at(-1)
      ?.scopeMetrics.flatMap(({ metrics }) => metrics)
      .flatMap(({ descriptor, dataPoints }) =>
        dataPoints.map(({ attributes, value }) => ({ ...descriptor, attributes, value })),
      ) ?? [];
  const expected = memoryFamilies(memory.stats()).flatMap(({ samples }) => samples);
  expect(points().length).toBeGreaterThan(50);
  expect(points().length).toBe(expected.filter(({ value }) => Number.isFinite(value)).length);
  const granted = points().find(
    ({ name, attributes }) =>
      name === "tierheap.pool.granted_bytes" && attributes["kind"] === "KV_CACHE",
  );
  const attributes = { kind: "KV_CACHE", memory: "chats" };
  expect(granted).toMatchObject({ unit: "By", value: 4 * MIB, attributes });
  const moves = points().filter(({ name }) => name === "tierheap.transfers");
  const byMove = new Map(moves.map(({ attributes, value }) => [attributes["move"], value]));
  expect([byMove.size, byMove.get("swap-out"), byMove.get("swap-in")]).toEqual([5, 2, 1]);
  // One to know the figures, one for the collection, and none once it has ended.
  expect(snapshots).toBe(2);
  end();
  end();
  await reader.forceFlush();
  expect(snapshots).toBe(2);
  await provider.shutdown();
  await closeMemory(memory);
});

it("transfers are measures on the platform's timeline, of which it keeps a bounded number", async () => {
  performance.clearMeasures();
  const next = { count: vi.fn(), time: vi.fn() };
  const memory = await usedMemory({ statsSink: timelineSink(performance, next) });
  expect(performance.getEntriesByName("tierheap swap.store")).toHaveLength(2);
  expect(performance.getEntriesByName("tierheap swap.load")).toHaveLength(1);
  const transfers = next.time.mock.calls.filter(([name]) => name.startsWith("swap."));
  expect(transfers).toHaveLength(3);
  expect(next.count).toHaveBeenCalledWith("swap.out", 1);
  await closeMemory(memory);
  const sink = timelineSink();
  for (let index = 0; index < 5000; index++) sink.time("swap.load", 1);
  expect(performance.getEntriesByName("tierheap swap.load").length).toBeLessThanOrEqual(4097);
  performance.clearMeasures();
});

it("leaks are told by the place that allocated them", async () => {
  const memory = await openMemory({ debug: true });
  const sites = new LeakSites();
  const controller = new AbortController();
  const watching = sites.watch(memory, { signal: controller.signal });
  expect(`${sites}`).toBe("no leaks");
  for (let index = 0; index < 3; index++) {
    memory.allocate({ kind: "ACTIVATIONS", byteLength: 1000, tag: "forgotten" });
  }
  memory.allocate({ kind: "KV_CACHE", byteLength: 64, tag: "once" });
  await vi.waitFor(() => {
    globalThis.gc?.();
    expect(sites.list()).toHaveLength(2);
    expect(sites.list()[0]?.count).toBe(3);
  });
  expect(sites.list()[0]).toMatchObject({ kind: "ACTIVATIONS", tag: "forgotten", bytes: 3000 });
  expect(`${sites}`).toMatch(/1 +ACTIVATIONS +forgotten +3 +2\.9 KiB +at .*metrics\.test/);
  controller.abort();
  await watching;
  await closeMemory(memory);
});

it("further places are counted together, and events that are no leaks are passed over", () => {
  const sites = new LeakSites();
  sites.note({ type: "drop", id: "x", bytes: 1 });
  for (let index = 0; index < 1500; index++) {
    sites.note({ type: "leak", kind: "KV_CACHE", bytes: 1, tag: `${index}`, callSite: null });
  }
  expect(sites.list()).toHaveLength(1001);
  expect(sites.list()[0]).toMatchObject({ tag: "(further places)", count: 500, bytes: 500 });
});

it("arenas are told one by one, with the gaps between blocks", async () => {
  const memory = await usedMemory();
  const map = await memory.map();
  const gaps = map.arenas.map(arenaGaps);
  const kv = map.arenas.flatMap(({ kind }, index) => (kind === "KV_CACHE" ? [gaps[index]] : []));
  expect(kv.reduce((sum, each) => sum + (each?.requestedBytes ?? 0), 0)).toBe(4 * MIB);
  const table = formatArenas(map);
  expect(table.split("\n")).toHaveLength(map.arenas.length + 1);
  expect(table).toMatch(/KV_CACHE +2\.0 MiB/);
  const arena = { id: 1, kind: "KV_CACHE", byteLength: 100 } as const;
  const block = { kind: "KV_CACHE", id: null, isPinned: false } as const;
  expect(
    arenaGaps({
      ...arena,
      blocks: [
        { ...block, offset: 10, byteLength: 20, requestedBytes: 15 },
        { ...block, offset: 30, byteLength: 10, requestedBytes: 10 },
      ],
    }),
  ).toEqual({
    ...{ liveBytes: 30, requestedBytes: 25, gapCount: 2, longestGapBytes: 60 },
    externalFragmentation: 1 - 60 / 70,
  });
  expect(arenaGaps({ ...arena, blocks: [] })).toMatchObject({
    gapCount: 1,
    externalFragmentation: 0,
  });
  await closeMemory(memory);
});
