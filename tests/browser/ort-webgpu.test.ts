// onnxruntime-web's WebGPU provider in a real browser, on an adapter in software: KV in buffers of the
// device, and the heap behind them. Says nothing about speed.
import { describe, expect, it } from "vitest";
import { FAMILIES, SEEDS } from "../support/decoder-families.js";
import { useGpuPage } from "../support/gpu-page.js";
import { ORT_PAGE } from "./browser.js";
import type {} from "./ort-page/main.js";

const given = useGpuPage(ORT_PAGE, (page) => page.evaluate(() => window.ortWeb.hasAdapter()));

/** Concat and GroupQueryAttention; the others differ from them by heads and by how lengths are told. */
const [CONCAT, , GROUPED] = FAMILIES.map(({ name }, index) => ({ name, index })) as [
  ...[{ name: string; index: number }, unknown, { name: string; index: number }],
];
const MODELS = [CONCAT, GROUPED];
const CASES = FAMILIES.flatMap(({ name }, index) =>
  (MODELS.some((model) => model.index === index) ? SEEDS : [1]).map((seed) => ({
    ...{ name, index, seed },
  })),
);

it.each(CASES)("$name, seed $seed, answers as the bare runtime", async ({ index, seed }) => {
  const result = await given.page.evaluate(
    ([family, number]) => window.ortWeb.runGpu(family, number),
    [index, seed] as const,
  );
  expect(result.answers).toEqual(result.expected);
  expect(new Set(result.expected.flat()).size).toBeGreaterThan(5);
  expect(result.stats).toMatchObject({ checkedTokens: 3, stepCount: 20, readBackBytes: 0 });
  expect(result.gpu).toMatchObject({ heldBytes: 0, lossCount: 0 });
  expect(result.problems).toEqual([]);
});

describe.each(MODELS)("$name", ({ index }) => {
  it("makes no buffer in a decode step", async () => {
    const { own, plain } = await given.page.evaluate((f) => window.ortWeb.countCreated(f), index);
    expect(own.byTierheap).toBe(0);
    expect(own.byRuntime).toBeLessThan(plain.byRuntime);
  });

  it("goes on after its chat left the device, and the heap", async () => {
    const result = await given.page.evaluate((f) => window.ortWeb.suspendBetweenTurns(f, 2), index);
    expect(result.answers).toEqual(result.expected);
    expect(result.outcomes).toEqual(Array(10).fill("stored"));
    expect(result.usedBytes).toEqual([0, 0, 0, 0]);
    expect(result.stats).toMatchObject({ suspendCount: 4, restoreCount: 3, evictCount: 0 });
    expect(result.problems).toEqual([]);
  });

  it("suspends chats for others when the budget is full, which tensors share", async () => {
    const result = await given.page.evaluate((f) => window.ortWeb.crowd(f, 4), index);
    for (const answers of result.all) expect(answers).toEqual(result.expected);
    expect(result.stats.evictCount).toBeGreaterThan(0);
    expect(result.stats.peakBytes).toBeLessThanOrEqual(result.budget);
    expect(result.one).toEqual({
      besideKv: "out-of-memory",
      leftFor: 1,
      refusal: "out-of-memory",
      refusedTokens: 0,
      heldBytes: 0,
    });
    expect(result.problems).toEqual([]);
  });

  it("refuses misuse by a code, and says no wrong token", async () => {
    const result = await given.page.evaluate((f) => window.ortWeb.misuses(f), index);
    expect(Object.fromEntries(result.rows)).toEqual({
      "step under a step": "re-entrant",
      "free under a step": "re-entrant",
      "truncate under a step": "re-entrant",
      "suspend under a step": "re-entrant",
      "save under a step": "re-entrant",
      "step with changed tokens": "token-mismatch",
      "step with fewer tokens": "token-mismatch",
      "step with nothing new": "token-mismatch",
      "step with no token": "bad-option",
      "another model's step": "foreign-cache",
      "another memory's step": "foreign-cache",
      "another model's suspend": "foreign-cache",
      "suspend without an id": "bad-id",
      "truncate to too many": "bad-option",
      "another model's open": "foreign-cache",
      "open with changed tokens": "token-mismatch",
      "open with fewer tokens": "token-mismatch",
      "step over a copy that was written": "overwritten",
      "free twice": "freed",
      "step of what was freed": "freed",
      "step of a closed decoder": "closed",
    });
    expect(result.answers[0]).toEqual(result.expected[0]);
    expect(result.saidBefore).toEqual(result.expected[0]?.slice(0, 5));
    expect(result.problems).toEqual([]);
  });

  it("goes on after the device was lost: on the CPU, on another device, in another page", async () => {
    const doomed = await given.browser.open(given.site.url);
    const lost = await doomed.evaluate((f) => window.ortWeb.loseDevice(f), index);
    expect(lost.refusals).toEqual(Array(6).fill("device-lost"));
    expect(lost.outcome).toBe("stored");
    expect(lost.answers).toEqual(lost.expected);
    expect(lost.again).toEqual(lost.expected.slice(2));
    expect(lost.problems).toEqual([]);
    await doomed.close();
    const next = await given.browser.open(given.site.url);
    const found = await next.evaluate((f) => window.ortWeb.goOnAfterLoss(f), index);
    expect(found.restoredTokens).toBe(37 + 8 + 4 + 5 - 1);
    expect(found.answers).toEqual(found.expected.slice(2));
    expect(found.stats.restoreCount).toBe(1);
    expect(found.problems).toEqual([]);
    await next.close();
  }, 300_000);
});

it("the runtime reads and writes tensors of the heap in buffers that both share", async () => {
  const result = await given.page.evaluate(() => window.ortWeb.runOnHeapBuffers());
  expect(result.answers).toEqual(Array(3).fill(result.expected));
  expect(result.expected.some((value) => value !== 0)).toBe(true);
  // Twelve layers and one input, three times, and what was foretold last; results are never uploaded.
  expect(result.stats?.uploadCount).toBeLessThanOrEqual(40);
  expect(result.stats?.evictedCount).toBeGreaterThan(10);
  expect(result.stats?.leaseCount).toBe(0);
  // All weights but the very first are foretold, and there in time.
  expect(result.stats?.prefetch).toMatchObject({ usedCount: 35, lateCount: 0, wastedCount: 0 });
  expect(result.problems).toEqual([]);
});

it("a pool refuses what its budget or the device has no room for", async () => {
  expect(await given.page.evaluate(() => window.ortWeb.poolRefusals())).toEqual({
    "over the budget": "out-of-memory",
    "in use stay": 2,
    "free ones are used again": true,
    "free ones make room": 589_824,
    "as few as do": 1,
    "longer than the device binds": "out-of-memory",
    "no number of bytes": "bad-size",
    "the device has none": "out-of-memory",
    "charged after that": 0,
  });
});
