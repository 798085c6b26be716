// The IndexedDB tier in a real browser: the shared suite, quota, reload, crash, two pages.
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { tierConformance } from "../../src/testing/index.js";
import { Browser, type Site, serve, TEST_PAGE } from "./browser.js";
import type {} from "./page/main.js";

const MIB = 2 ** 20;

let site: Site;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  site = await serve(TEST_PAGE);
  browser = await Browser.launch();
  page = await browser.open(site.url);
});

afterAll(async () => {
  await browser?.close();
  await site?.close();
});

afterEach(() => {
  expect(browser.complaints.splice(0)).toEqual([]);
});

describe("conformance of indexedDbTier", () => {
  const cases = tierConformance(() => Promise.reject(new Error("cases run in the page")));
  for (const { name, skip } of cases) {
    it(name, async (context) => {
      if (skip !== undefined) return context.skip(skip);
      expect(await page.evaluate((each) => window.tierheap.runTierCase(each), name)).toBeNull();
    });
  }
});

/** Opens a memory in the page and saves tensors of known bytes, without closing it. */
async function saveSome(target: Page, directory: string, count: number): Promise<void> {
  const outcomes = await target.evaluate(
    async ([database, tensors, bytes]) => {
      const { createTensorMemory, pattern } = window.tierheap;
      const memory = await createTensorMemory({
        budgets: { ram: "16MiB", ssd: "256MiB" },
        ssd: { directory: database },
      });
      const results = [];
      for (let seed = 0; seed < tensors; seed++) {
        const id = `saved/${seed}`;
        const tensor = memory.allocate({ kind: "KV_CACHE", id, byteLength: bytes });
        {
          using pin = tensor.pin();
          pin.bytes.set(pattern(bytes, seed));
        }
        results.push(await memory.save(id, { mode: "durable" }));
      }
      return results;
    },
    [directory, count, MIB] as const,
  );
  expect(outcomes).toEqual(Array(count).fill("stored"));
}

/** Opens the memory again and says how many tensors are there, with equal bytes. */
function countIntact(target: Page, directory: string): Promise<number> {
  return target.evaluate(async (database) => {
    const { createTensorMemory, isPattern } = window.tierheap;
    const memory = await createTensorMemory({
      budgets: { ram: "16MiB", ssd: "256MiB" },
      ssd: { directory: database },
    });
    let intact = 0;
    const ids: string[] = [];
    for await (const { id } of memory.list({ prefix: "saved/" })) ids.push(id);
    for (const id of ids) {
      using lease = await memory.acquire(id, { access: "read" });
      if (lease !== null && isPattern(lease.bytes, Number(id.split("/")[1]))) intact += 1;
    }
    const { problems } = memory.verify();
    await memory.close();
    return problems.length === 0 ? intact : -1;
  }, directory);
}

it("restores what was saved after a reload that closed nothing", async () => {
  const own = await browser.open(site.url);
  await saveSome(own, "reload", 5);
  await own.reload();
  expect(await countIntact(own, "reload")).toBe(5);
  await own.close();
});

it("restores what was saved after the page crashed in mid-spill", async () => {
  const doomed = await browser.open(site.url);
  await saveSome(doomed, "crash", 5);
  // Writes go on while the renderer is killed; nothing awaits them.
  await doomed.evaluate(
    async ([bytes]) => {
      const { createTensorMemory } = window.tierheap;
      const memory = await createTensorMemory({
        budgets: { ram: "16MiB", ssd: "256MiB" },
        ssd: { directory: "crash-spill" },
      });
      const spill = async () => {
        for (let number = 0; ; number++) {
          const id = `spill/${number % 4}`;
          if (number >= 4) memory.free(id);
          memory.allocate({ kind: "KV_CACHE", id, byteLength: bytes });
          await memory.swapOut(id);
        }
      };
      spill().catch(() => {});
    },
    [MIB] as const,
  );
  await browser.crash(doomed);
  const next = await browser.open(site.url);
  expect(await countIntact(next, "crash")).toBe(5);
  expect(await countIntact(next, "crash-spill")).toBe(0);
  await next.close();
});

it("says no-space at the browser's quota, and nothing is lost", async () => {
  const own = await browser.open(site.url);
  await browser.limitQuota(own, 12 * MIB);
  const result = await own.evaluate(
    async ([bytes]) => {
      const { createTensorMemory, pattern, isPattern } = window.tierheap;
      const memory = await createTensorMemory({
        budgets: { ram: "64MiB", ssd: "1GiB" },
        ssd: { directory: "quota" },
      });
      const outcomes: string[] = [];
      for (let seed = 0; seed < 24; seed++) {
        const tensor = memory.allocate({ kind: "KV_CACHE", id: `${seed}`, byteLength: bytes });
        {
          using pin = tensor.pin();
          pin.bytes.set(pattern(bytes, seed));
        }
        outcomes.push(await memory.swapOut(`${seed}`));
      }
      const refused = outcomes.lastIndexOf("no-space");
      const staysHot = memory.tensor(`${refused}`)?.isResident === true;
      let intact = 0;
      for (let seed = 0; seed < 24; seed++) {
        using lease = await memory.acquire(`${seed}`, { access: "read" });
        if (lease !== null && isPattern(lease.bytes, seed)) intact += 1;
      }
      const { problems } = memory.verify();
      const { noSpaceCount, objectCount } = memory.stats().tier;
      for (let seed = 0; seed < 24; seed++) await memory.delete(`${seed}`);
      await memory.close();
      return { outcomes, staysHot, intact, problems, noSpaceCount, objectCount };
    },
    [MIB] as const,
  );
  const storedCount = result.outcomes.filter((outcome) => outcome === "stored").length;
  expect(new Set(result.outcomes)).toEqual(new Set(["stored", "no-space"]));
  expect(result.objectCount).toBe(storedCount);
  expect(result.noSpaceCount).toBe(24 - storedCount);
  expect(result).toMatchObject({ staysHot: true, intact: 24, problems: [] });
  await browser.limitQuota(own, null);
  await own.close();
});

it("does not let a second page damage the first one's tensors", async () => {
  const first = await browser.open(site.url);
  const second = await browser.open(site.url);
  const open = async (target: Page) =>
    target.evaluate(async () => {
      try {
        const memory = await window.tierheap.createTensorMemory({
          budgets: { ram: "16MiB", ssd: "64MiB" },
          ssd: { directory: "two-pages" },
        });
        Object.assign(window, { memory });
        return "open";
      } catch (error) {
        return (error as { code?: string }).code ?? String(error);
      }
    });
  const swapOut = (target: Page, seed: number) =>
    target.evaluate(async (given) => {
      const { memory, tierheap } = window as unknown as PageWithMemory;
      const tensor = memory.allocate({ kind: "KV_CACHE", id: "same/id", byteLength: 65536 });
      {
        using pin = tensor.pin();
        pin.bytes.set(tierheap.pattern(65536, given));
      }
      return memory.swapOut("same/id");
    }, seed);
  const isIntact = (target: Page, seed: number) =>
    target.evaluate(async (given) => {
      const { memory, tierheap } = window as unknown as PageWithMemory;
      using lease = await memory.acquire("same/id", { access: "read" });
      return lease !== null && tierheap.isPattern(lease.bytes, given);
    }, seed);

  expect(await open(first)).toBe("open");
  expect(await swapOut(first, 1)).toBe("stored");
  // Either the second page is refused, or both keep what they wrote.
  const outcome = await open(second);
  expect(["open", "busy"]).toContain(outcome);
  if (outcome === "open") await swapOut(second, 2);
  expect(await isIntact(first, 1)).toBe(true);
  if (outcome === "open") expect(await isIntact(second, 2)).toBe(true);
  await first.close();
  await second.close();
});

interface PageWithMemory {
  readonly memory: Awaited<ReturnType<Window["tierheap"]["createTensorMemory"]>>;
  readonly tierheap: Window["tierheap"];
}
