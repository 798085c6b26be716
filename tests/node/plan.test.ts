// Plans: what they foretell beside what happens, and what they refuse.
import { spawnSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { openPageForms } from "../../src/codecs.js";
import { codedLayout, openKvCaches } from "../../src/kv.js";
import { createTensorMemory } from "../../src/node.js";
import { arenaBytesOf, blockBytesOf, overheadBytesOf } from "../../src/plan/footprint.js";
import { type KvForm, kvTensorsOf } from "../../src/plan/kv-bytes.js";
import { formatPlan, type MemoryPlan, MODEL_SHAPES, planMemory } from "../../src/plan.js";
import { seededRandom } from "../../src/random.js";
import { memoryFileSystem } from "../../src/testing/index.js";
import { temporaryDirectory } from "../support/directories.js";
import { closeMemory, openMemory, openOn, withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;
const main = fileURLToPath(new URL("../../dist/src/cli/main.js", import.meta.url));
/** Small enough to run, large enough that pages are runs of granules. */
const MODEL = { name: "small", layers: 3, kvHeads: 2, headDim: 64, dtype: "f32" } as const;
const PAGE = 64;

const tierOf = (plan: MemoryPlan, name: string) =>
  plan.tiers.find((tier) => tier.name === name) as MemoryPlan["tiers"][number];
/** Distance of what was foretold from what was, as a share of the latter. */
const distance = (planned: number, actual: number) => Math.abs(planned - actual) / actual;

describe("models", () => {
  it("have as many weights as were published", () => {
    const counts = [...MODEL_SHAPES.values()].map(({ parameterCount }) => parameterCount);
    expect(counts).toEqual([2_127_532_032, 4_437_815_808, 8_767_123_696]);
  });

  it.each([
    ["qwen3-vl-2b", 112],
    ["qwen3-vl-4b", 144],
    ["qwen3-vl-8b", 144],
  ])("%s keeps %d KiB a token", (model, kib) => {
    const plan = planMemory({ model, chats: 2, tokens: 100, budgets: { ram: "1GiB" } });
    expect(plan.tokenBytes).toBe(kib * 1024);
    expect(plan.tokenCount).toBe(200);
    expect(plan.isResident).toBe(true);
  });

  it("make an image a token for each square of 32 pixels, in four layers of features", () => {
    const plan = planMemory({
      ...{ model: "qwen3-vl-2b", chats: 3, tokens: 1000 },
      images: { count: 2, width: 640, height: 500 },
      budgets: { ram: "4GiB" },
    });
    const features = plan.kinds.find(({ kind }) => kind === "IMAGE_FEATURES");
    expect(features).toMatchObject({ tensorCount: 6, tensorBytes: 6 * 20 * 16 * 2048 * 4 * 2 });
  });

  it("of any other shape are planned too, weights included", () => {
    const plan = planMemory({
      ...{
        model: { layers: 2, kvHeads: 1, headDim: 8, parameterCount: 1000 },
        chats: 1,
        tokens: 0,
      },
      ...{ weightBits: 4, budgets: { ram: "8MiB" } },
    });
    expect(plan.tokenBytes).toBe(2 * 2 * 8 * 2);
    expect(plan.kinds).toEqual([
      { kind: "PARAMETERS", tensorCount: 2, tensorBytes: 500, blockBytes: 512 },
    ]);
  });
});

describe("what nobody asks for", () => {
  it("a block is as long as the core makes it", () =>
    withSeed("block lengths", async (seed) => {
      const random = seededRandom(seed);
      const memory = await openMemory({ budgets: { ram: "64MiB" } });
      const lengths = [1, 64, 65, 2048, 2049, 32_768, 32_769, 262_144, MIB, MIB + 1];
      for (let index = 0; index < 100; index++) {
        lengths.push(1 + (random.uint32() % 2 ** (4 + (index % 18))));
      }
      for (const byteLength of lengths) {
        const tensor = memory.allocate({ kind: "KV_CACHE", byteLength });
        const granted = memory.stats().pools[0]?.grantedBytes;
        // Between slabs and long runs there may be a class cache, whose blocks are up to 1/16 longer.
        const planned = blockBytesOf(byteLength);
        expect(granted, `${byteLength}`).toBeGreaterThanOrEqual(planned);
        expect(granted, `${byteLength}`).toBeLessThanOrEqual(planned * 1.0625 + 4096);
        if (byteLength <= 32_768) expect(granted, `${byteLength}`).toBe(planned);
        tensor.free();
      }
      await closeMemory(memory);
    }));

  it.each([
    ["16MiB", false],
    ["64MiB", false],
    ["1GiB", false],
    ["16MiB", true],
    ["64MiB", true],
    ["256MiB", true],
    ["4GiB", true],
  ])("of %s, with an SSD: %s", async (ram, hasSsd) => {
    const directory = await temporaryDirectory();
    const budgets = { ram, ...(hasSsd ? { ssd: "64MiB" } : {}) };
    const profile = { ...(await genericProfile()), codecWorkerCount: 1 };
    const memory = await createTensorMemory({ budgets, profile, ssd: { directory } });
    const { limitBytes, byCategory } = memory.stats().budget;
    const actual = byCategory.control + byCategory.staging;
    const planned = overheadBytesOf(limitBytes, hasSsd ? 1 : 0);
    expect(distance(planned, actual), `${planned} for ${actual}`).toBeLessThan(0.1);
    memory.allocate({ kind: "KV_CACHE", byteLength: 1 });
    const arenaBytes = memory.stats().pools[0]?.arenaBytes;
    expect(arenaBytesOf(limitBytes, 0, profile.arenaBytesMax)).toBe(arenaBytes);
    await memory.close();
  });

  it("pages are as long as their forms make them", async () => {
    const forms = await openPageForms();
    const options = { model: MODEL, dtype: "f32", pageTokens: PAGE } as const;
    const layer = { heads: MODEL.kvHeads, headDim: MODEL.headDim, dtype: "f32" } as const;
    for (const form of ["exact", "a8", "a4", "a3", "a2"] as const) {
      const runs = kvTensorsOf({ ...options, form }, 5 * PAGE + 1);
      const exactBytes = 3 * forms.exact.sectionBytes(layer, PAGE);
      const codedBytes = 3 * forms[form].sectionBytes(layer, PAGE);
      const headerBytes = (runs[0]?.byteLength ?? 0) - exactBytes;
      expect(headerBytes).toBeGreaterThan(256);
      expect(headerBytes).toBeLessThan(1024);
      const coded = [{ count: 3, byteLength: headerBytes + codedBytes }];
      const isExact = form === "exact";
      expect(runs, form).toEqual([
        { count: isExact ? 5 : 2, byteLength: headerBytes + exactBytes },
        ...(isExact ? [] : coded),
        { count: 1, byteLength: exactBytes },
      ]);
    }
  });
});

describe("beside what happens", () => {
  const ROWS = Array.from({ length: MODEL.layers }, (_, layer) => {
    const part = (salt: number) =>
      Float32Array.from(
        { length: MODEL.kvHeads * 8 * PAGE * MODEL.headDim },
        (_, index) => Math.sin(index + salt + layer) / 2,
      );
    return { keys: part(1), values: part(2) };
  });
  const rowsOf = (tokens: number) =>
    ROWS.map(({ keys, values }) => {
      const count = MODEL.kvHeads * tokens * MODEL.headDim;
      return { keys: keys.subarray(0, count), values: values.subarray(0, count) };
    });

  it.each(["exact", "a4"] as const)("chats in pages: %s", async (kv: KvForm) => {
    const memory = await openOn(memoryFileSystem(), { codecs: { default: "raw" } });
    const forms = await openPageForms();
    const layout = kv === "exact" ? {} : { layout: codedLayout("quant", forms) };
    const { layers: count, kvHeads: heads, headDim, dtype } = MODEL;
    const caches = openKvCaches(memory, {
      fingerprint: "small",
      layers: { count, heads, headDim, dtype },
      ...layout,
    });
    const chats = kv === "exact" ? 16 : 32;
    const tokens = Array.from({ length: chats }, (_, chat) => 4 * PAGE + chat * 7);
    const plan = await memory.plan({ model: MODEL, chats, tokens, kv });
    for (const [chat, length] of tokens.entries()) {
      const cache = caches.create();
      const ids = Array.from({ length }, (_, index) => chat * 1000 + index);
      await cache.append(ids, rowsOf(length));
    }
    const stats = memory.stats();
    const { heldCount, heldBytes } = caches.stats();
    const [kind] = plan.kinds;
    // All but one of the chats have an unfinished page, which is as long as an exact full one.
    const tailBytes = (chats - 1) * MODEL.layers * 2 * 2 * PAGE * 64 * 4;
    expect(kind?.tensorCount).toBe(heldCount + chats - 1);
    expect(distance(kind?.tensorBytes ?? 0, heldBytes + tailBytes)).toBeLessThan(0.01);
    const ram = tierOf(plan, "ram");
    expect(distance(ram.usedBytes, stats.budget.usedBytesPeak)).toBeLessThan(0.05);
    // The floor: it was too much for RAM, as foretold.
    expect(plan.isResident).toBe(false);
    expect(ram.chatCount).toBeGreaterThan(0);
    if (kv !== "exact") {
      // What a page was before it was coded is there until somebody needs the room.
      caches.close();
      return closeMemory(memory);
    }
    expect(distance(ram.tensorBytes, stats.tensors.hotBytes)).toBeLessThan(0.05);
    // What has left, and what the background has copied before it must.
    const ssd = tierOf(plan, "ssd");
    expect(stats.tier.storedBytes).toBeGreaterThan(0.95 * ssd.usedBytes);
    expect(stats.tier.storedBytes).toBeLessThan(1.05 * ssd.usedBytesMax);
    // And all of it once everything has left.
    for await (const { id, isResident } of memory.list()) if (isResident) await memory.swapOut(id);
    expect(distance(ssd.usedBytesMax, memory.stats().tier.storedBytes)).toBeLessThan(0.05);
    caches.close();
    await closeMemory(memory);
  });

  it("counts with what the tiers have shown, and with what is given", async () => {
    const directory = await temporaryDirectory();
    const memory = await createTensorMemory({
      budgets: { ram: "64MiB", ssd: "256MiB" },
      ssd: { directory },
    });
    const request = { model: MODEL, chats: 1, tokens: 1000 };
    expect(tierOf(await memory.plan(request), "ssd").speed?.source).toBe("assumed");
    for (let index = 0; index < 4; index++) {
      memory.allocate({ kind: "KV_CACHE", id: `${index}`, byteLength: MIB, zero: true });
      await memory.swapOut(`${index}`);
      (await memory.acquire(`${index}`))?.[Symbol.dispose]();
    }
    const measured = tierOf(await memory.plan(request), "ssd");
    expect(measured.speed?.source).toBe("measured");
    const { burstBytesPerSecond } = memory.stats().transfers;
    expect(measured.speed?.bytesPerSecond).toBe(burstBytesPerSecond);
    const speeds = { ssd: { latencyMs: 2, bytesPerSecond: 1e6 } };
    const given = tierOf(await memory.plan({ ...request, speeds, storedRatio: 1 }), "ssd");
    expect(given.speed).toEqual({ latencyMs: 2, bytesPerSecond: 1e6, source: "given" });
    expect(given.chatRestoreMs).toBeGreaterThan(1000 * 3.072);
    await memory.close();
    await expect(memory.plan(request)).rejects.toMatchObject({ code: "closed" });
  });

  it("says what to do, also where nothing has room", () => {
    const request = { model: MODEL, chats: 100, tokens: 1024 };
    const small = planMemory({ ...request, budgets: { ram: "16MiB" } });
    expect(small.advice[0]).toMatch(/RAM holds 4 of 100 chats.*budgets.ssd/);
    const full = planMemory({ ...request, budgets: { ram: "16MiB", ssd: "32MiB" } });
    expect(full.fits).toBe(false);
    expect(full.advice[0]).toMatch(/find no room in any tier: give ssd/);
    const { tiers, spilledBytes, unplacedBytes, kinds } = full;
    const placed = tiers.reduce((sum, { tensorBytes }) => sum + tensorBytes, 0);
    expect(placed + unplacedBytes).toBe(kinds[0]?.tensorBytes);
    expect(spilledBytes - unplacedBytes).toBe(tierOf(full, "ssd").tensorBytes);
    for (const tier of tiers) expect(tier.usedBytes).toBeLessThanOrEqual(tier.capacityBytes);
    const whole = planMemory({ ...request, budgets: { ram: "1GiB" } });
    expect(whole.advice[0]).toMatch(/everything fits into RAM, and about \d+ chats more/);
    const tensors = { ...request, tokens: 8192, kv: "tensors" } as const;
    expect(planMemory({ ...tensors, budgets: { ram: "16MiB" } }).advice[0]).toMatch(
      /one chat alone/,
    );
    expect(formatPlan(full)).toContain("KV_CACHE");
  });
});

describe("what is wrong", () => {
  const fine = { model: MODEL, chats: 2, tokens: 10, budgets: { ram: "16MiB" } } as const;
  it.each([
    ["bad-option", { model: "gpt" }],
    ["bad-option", { model: null }],
    ["bad-shape", { model: { ...MODEL, layers: 0 } }],
    ["bad-dtype", { model: { ...MODEL, dtype: "f64" } }],
    ["bad-option", { chats: 0 }],
    ["bad-option", { chats: 1.5 }],
    ["bad-option", { chats: 1e9 }],
    ["bad-option", { tokens: -1 }],
    ["bad-option", { tokens: [1, 2, 3] }],
    ["bad-option", { sharedTokens: 11 }],
    ["bad-option", { sharedTokens: 5, kv: "tensors" }],
    ["bad-option", { images: { count: 1, width: 10, height: 10 } }],
    ["bad-option", { model: "qwen3-vl-2b", images: { count: 1, width: 640, height: 640 } }],
    ["bad-dtype", { dtype: "i8" }],
    ["bad-option", { kv: "a5" }],
    ["bad-option", { pageTokens: 0 }],
    ["bad-shape", { kv: "a8", pageTokens: 10, tokens: 100 }],
    ["bad-option", { weightBits: 4 }],
    ["bad-option", { storedRatio: 0 }],
    ["bad-option", { tensors: 3 }],
    ["bad-kind", { tensors: [{ kind: "X", count: 1, bytes: 1 }] }],
    ["bad-size", { tensors: [{ kind: "KV_CACHE", count: 1, bytes: "1 MB" }] }],
    ["bad-option", { budgets: undefined }],
    ["bad-size", { budgets: { ram: "much" } }],
    ["bad-option", { budgets: { ram: "16MiB", warm: "16MiB" } }],
    ["bad-option", { budgets: { ram: "16MiB", tape: "1GiB" } }],
    ["bad-option", { speeds: { ssd: { bytesPerSecond: 0 } } }],
    ["bad-option", { speeds: { ssd: { bytesPerSecond: 1, latencyMs: -1 } } }],
    ["bad-option", { chat: 1 }],
  ])("%s: %j", (code, wrong) => {
    const request = { ...fine, ...wrong } as Parameters<typeof planMemory>[0];
    expect(() => planMemory(request)).toThrowError(expect.objectContaining({ code }));
  });
});

describe("tierheap plan", () => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [main, "plan", ...args], { encoding: "utf8", timeout: 60_000 });

  it("prints the plan, and the same as JSON", async () => {
    const args = ["--model", "qwen3-vl-4b", "--chats", "20", "--tokens", "8192", "--ram", "8GiB"];
    const text = run(...args);
    expect(text).toMatchObject({ status: 0, stderr: "" });
    expect(text.stdout).toMatch(/RAM holds 6 of 20 chats/);
    const budgets = { ram: "8GiB", ssd: "64GiB" };
    const plan = planMemory({ model: "qwen3-vl-4b", chats: 20, tokens: 8192, budgets });
    const json = run(...args, "--ssd", "64GiB", "--json");
    expect(JSON.parse(json.stdout)).toEqual(plan);
  });

  it("reads other shapes from a file, and refuses what is wrong", async () => {
    const file = join(await temporaryDirectory(), "model.json");
    await writeFile(file, JSON.stringify(MODEL));
    expect(run("--model", file, "--ram", "16MiB").stdout).toMatch(/^small: 1 chats, 4096 tokens/);
    await writeFile(file, "{");
    for (const args of [
      ["--model", file, "--ram", "16MiB"],
      ["--model", "qwen3-vl-2b"],
      ["--model", "none", "--ram", "1GiB"],
      ["--model", "qwen3-vl-2b", "--ram", "1GiB", "--chats", "x"],
      ["--model", "qwen3-vl-2b", "--ram", "1GiB", "--images", "big"],
      ["here"],
    ]) {
      const { status, stderr } = run(...args);
      expect(status, args.join(" ")).toBe(2);
      expect(stderr.trim().split("\n")).toHaveLength(1);
    }
  });
});

async function genericProfile() {
  const { HARDWARE_PROFILES } = await import("../../src/hardware/hardware-profile.js");
  const profile = HARDWARE_PROFILES.get("generic");
  if (profile === undefined) throw new Error("there is no generic profile");
  return profile;
}
