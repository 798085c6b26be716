// The demo, built, in a real browser: what a visitor does, by the names a visitor sees.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { buildDecoder } from "../../examples/chat/model/decoder.js";
import { ANSWER_TOKENS, MODEL, tokensOf } from "../../examples/demo/model.js";
import { BareChat } from "../support/bare-decoder.js";
import { Browser, buildAndServe, DEMO, type Site, serve } from "./browser.js";

const FIRST_LOAD_BYTES_MAX = 150 * 1024;
const MAP_SHARE_MAX = 0.1;
/** The page says what the map took in so long. */
const SHARE_WINDOW_MS = 5000;
/** The heap has holes when the map has painted so much of a churn. */
const CHURNED_ROWS = 300;
const QUESTIONS = [
  "Hello. Who is there?",
  "What do you remember of it?",
  "And after the crash?",
  "Once more, from a page that is new.",
] as const;
const SCREENSHOTS = fileURLToPath(new URL("../../build/screenshots/", import.meta.url));
const FIGURES = fileURLToPath(new URL("../../build/demo-figures.json", import.meta.url));
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

let site: Site;
let browser: Browser;

beforeAll(async () => {
  mkdirSync(SCREENSHOTS, { recursive: true });
  site = await buildAndServe(DEMO);
  browser = await Browser.launch();
});

/** What `build/demo-figures.json` says after the run. */
const figures: object[] = [];

function note(id: string, value: number, unit: string, target?: number, beside = ""): void {
  const judged = target === undefined ? {} : { target, met: value <= target };
  figures.push({ id, value, unit, ...judged, beside });
  console.log(`${id}: ${value} ${unit} ${beside}`);
}

afterAll(async () => {
  const environment = { node: process.version, platform: process.platform, arch: process.arch };
  writeFileSync(FIGURES, `${JSON.stringify({ environment, figures }, null, 2)}\n`);
  await browser?.close();
  await site?.close();
});

const opened = new Set<Page>();

/** Closed after the test: a page that stays would keep the store from the next one. */
async function open(url: string): Promise<Page> {
  const page = await browser.open(url);
  opened.add(page);
  return page;
}

afterEach(async () => {
  for (const page of opened) await page.close();
  opened.clear();
  expect(browser.complaints.splice(0)).toEqual([]);
});

async function press(page: Page, name: string | RegExp): Promise<void> {
  await page.getByRole("button", { name, exact: true }).click();
}

async function expectStatus(page: Page, text: RegExp): Promise<string> {
  const status = page.getByRole("status").filter({ hasText: text });
  await status.waitFor({ timeout: 30_000 });
  return (await status.textContent()) ?? "";
}

async function ask(page: Page, question: string, chat = 1): Promise<void> {
  await page.getByLabel("Your message").fill(question);
  await press(page, "Ask");
  await page.getByText(question, { exact: true }).waitFor({ timeout: 30_000 });
  await expectStatus(page, new RegExp(`^Chat ${chat}: answered .* the chat is saved`));
}

async function tokensOn(page: Page): Promise<number[]> {
  const text = (await page.getByRole("log").getAttribute("data-tokens")) ?? "";
  return text.split(" ").filter(Boolean).map(Number);
}

async function figure(page: Page, id: string): Promise<number> {
  return Number.parseFloat((await page.locator(`#${id}`).textContent()) ?? "");
}

/** Rows of blocks that the map has painted since the page began. */
async function paintedRows(page: Page): Promise<number> {
  return Number(await page.locator("#map").getAttribute("data-painted-rows"));
}

/** Until the map has painted so many rows more than it had. */
async function untilPainted(page: Page, rowCount: number, before = 0): Promise<void> {
  const more = { timeout: 30_000, message: "the map stands still" };
  await expect.poll(() => paintedRows(page), more).toBeGreaterThanOrEqual(before + rowCount);
}

/** Until two looks at the map agree, with more time between them than the page takes to say so. */
async function untilStill(page: Page): Promise<number> {
  const looks: number[] = [];
  const look = async () => {
    looks.push(await paintedRows(page));
    return looks.length > 1 && looks.at(-1) === looks.at(-2);
  };
  const patience = { timeout: 30_000, interval: 600, message: "the map moves" };
  await expect.poll(look, patience).toBe(true);
  return looks.at(-1) as number;
}

/** Until a browser has painted what was asked of it. */
async function untilDrawn(page: Page): Promise<void> {
  await page.evaluate("new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))");
}

/** Until the charts, which are loaded when somebody scrolls there, are drawn. */
async function untilCharted(page: Page): Promise<void> {
  await page.locator("#charts").scrollIntoViewIfNeeded();
  await page.locator("#charts canvas").first().waitFor({ timeout: 30_000 });
}

/** The whole page, from its top, for people to look at. */
async function shoot(page: Page, name: string): Promise<void> {
  await untilCharted(page);
  await page.evaluate("scrollTo(0, 0)");
  await untilDrawn(page);
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}

/** The same questions to the runtime alone, without a heap and without a browser. */
async function bareTokens(questions: readonly string[]): Promise<BareChat> {
  const ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  const options = { executionProviders: ["wasm"], logSeverityLevel: 4 as const };
  const session = await ort.InferenceSession.create(buildDecoder(MODEL), options);
  const { layers, kvHeads, hidden, heads } = MODEL;
  const shape = { layers, kvHeads, headDim: hidden / heads, capacityTokens: 0 };
  const chat = new BareChat({ ort, session, style: "concat", ...shape });
  for (const question of questions) await chat.say(tokensOf(question), ANSWER_TOKENS);
  await session.release();
  return chat;
}

describe("a session of chat, pressure, compaction, crash, reload", () => {
  it("has the bare runtime's tokens all the way", async () => {
    let page = await open(`${site.url}?quiet`);
    await expectStatus(page, /^Ready\. Nothing was saved/);
    await ask(page, QUESTIONS[0]);
    await press(page, "Run a churn");
    await untilPainted(page, CHURNED_ROWS, await paintedRows(page));
    await press(page, "Pressure");
    await expectStatus(page, /^Pressure:/);
    await press(page, "Pause the churn");
    await expectStatus(page, /^The churn is paused/);
    await press(page, "Compact");
    expect(await expectStatus(page, /^Compacted:/)).not.toContain("Compacted: 0 B");
    await ask(page, QUESTIONS[1]);
    const before = await tokensOn(page);
    await shoot(page, "session-before-crash");

    const reloaded = page.waitForEvent("load");
    await press(page, "Crash and reload");
    await reloaded;
    await expectStatus(page, /^Ready\. One chat is back/);
    expect(await tokensOn(page)).toEqual(before);
    await ask(page, QUESTIONS[2]);
    await page.getByText(/KV (brought back|computed again); saved/).waitFor();
    await shoot(page, "session-after-crash");

    // The renderer is killed, and then another page of the origin goes on.
    await browser.crash(page);
    page = await open(`${site.url}?quiet`);
    await expectStatus(page, /^Ready\. One chat is back/);
    await ask(page, QUESTIONS[3]);
    const after = await tokensOn(page);
    await press(page, "Check the tokens");
    await expectStatus(page, /^Chat 1: all \d+ tokens are equal to the bare runtime's/);

    const bare = await bareTokens(QUESTIONS);
    note(
      "demo/session-tokens",
      after.length,
      "tokens",
      undefined,
      `least gap ${bare.gapMin.toPrecision(2)}`,
    );
    expect(after.slice(0, before.length)).toEqual(before);
    expect(after).toEqual(bare.tokens);
    expect(new Set(after).size).toBeGreaterThan(30);

    await press(page, "New");
    await ask(page, QUESTIONS[0], 2);
    expect(await tokensOn(page)).toEqual(after.slice(0, (await tokensOn(page)).length));
    await press(page, "Forget all");
    await expectStatus(page, /^Forgotten/);
    await page.reload();
    await expectStatus(page, /^Ready\. Nothing was saved/);
  }, 240_000);

  it("opens the heap anew with another budget, and keeps the chat", async () => {
    const page = await open(`${site.url}?quiet`);
    await expectStatus(page, /^Ready/);
    await ask(page, QUESTIONS[0]);
    const before = await tokensOn(page);
    await page.getByRole("slider", { name: /^RAM/ }).focus();
    await page.keyboard.press("ArrowLeft");
    await expectStatus(page, /^Opened anew: 48 MiB/);
    expect(await tokensOn(page)).toEqual(before);
    await ask(page, QUESTIONS[1]);
    await page.getByText(/KV brought back; saved/).waitFor();
    expect((await tokensOn(page)).slice(0, before.length)).toEqual(before);
    await press(page, "Check the tokens");
    await expectStatus(page, /^Chat 1: all \d+ tokens are equal/);
    await page.getByRole("slider", { name: /^RAM/ }).focus();
    await page.keyboard.press("ArrowRight");
    await expectStatus(page, /^Opened anew: 64 MiB/);
    await press(page, "Forget all");
    await expectStatus(page, /^Forgotten/);
  }, 120_000);

  it("says that its storage has gone, and keeps no chat by word only", async () => {
    const fresh = await Browser.launch();
    const page = await fresh.open(`${site.url}?quiet`);
    await expectStatus(page, /^Ready/);
    await ask(page, QUESTIONS[0]);
    await fresh.clearData(page);
    await page.getByLabel("Your message").fill(QUESTIONS[1]);
    await press(page, "Ask");
    await expectStatus(page, /could not be saved|^The storage was cleared/);
    await page.getByText("RAM only: storage was cleared").waitFor();
    await fresh.close();
  }, 120_000);

  it("works in a page without isolation", async () => {
    const plain = await serve({ ...DEMO, mode: "plain" });
    const page = await open(`${plain.url}?quiet`);
    await expectStatus(page, /^Ready/);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(false);
    await ask(page, QUESTIONS[0]);
    const { tokens } = await bareTokens(QUESTIONS.slice(0, 1));
    expect(await tokensOn(page)).toEqual(tokens);
    await page.close();
    await plain.close();
  }, 120_000);
});

describe("the map", () => {
  it("moves under churn and compaction, for a small share of the main thread", async () => {
    const page = await open(`${site.url}?quiet`);
    await expectStatus(page, /^Ready/);
    const map = page.locator("#map-canvas");
    await press(page, "Run a churn");
    await page.waitForTimeout(SHARE_WINDOW_MS);
    const share = (await figure(page, "cost-map")) / 100;
    note("demo/map-share-under-churn", share, "of the main thread", MAP_SHARE_MAX);
    expect(share).toBeGreaterThan(0);
    expect(share).toBeLessThanOrEqual(MAP_SHARE_MAX);
    const moving = await paintedRows(page);
    expect(moving).toBeGreaterThan(100);
    await press(page, "Pause the churn");
    const rows = await untilStill(page);
    const still = await map.screenshot();
    expect(rows).toBeGreaterThan(moving);
    await page.waitForTimeout(1000);
    expect(await paintedRows(page)).toBe(rows);
    expect((await map.screenshot()).equals(still)).toBe(true);
    await press(page, "Compact");
    await expectStatus(page, /^Compacted:/);
    await untilPainted(page, 1, rows);
    expect((await map.screenshot()).equals(still)).toBe(false);
  });

  it("follows wheel, drag and keyboard, and says in words what it shows", async () => {
    const page = await open(`${site.url}?quiet`);
    await expectStatus(page, /^Ready/);
    await press(page, "Run a churn");
    await untilPainted(page, CHURNED_ROWS, await paintedRows(page));
    await press(page, "Pause the churn");
    await untilStill(page);
    const zoom = page.locator("#map-zoom");
    const map = page.getByRole("application", { name: /^Map of the arenas/ });
    await map.focus();
    await page.keyboard.press("+");
    expect(await zoom.textContent()).toBe("1.4×");
    const before = await map.screenshot();
    await page.keyboard.press("ArrowRight");
    await expect.poll(async () => (await map.screenshot()).equals(before)).toBe(false);
    await page.keyboard.press("0");
    expect(await zoom.textContent()).toBe("1.0×");
    const box = await map.boundingBox();
    if (box === null) throw new Error("the map has no place");
    await page.mouse.move(box.x + 60, box.y + 60);
    expect(await page.locator("#map-tip").textContent()).toMatch(/^(anonymous|free)/);
    await page.mouse.wheel(0, -300);
    await expect.poll(() => zoom.textContent()).not.toBe("1.0×");
    const zoomed = await map.screenshot();
    await page.mouse.down();
    await page.mouse.move(box.x + 20, box.y + 30, { steps: 4 });
    await page.mouse.up();
    await expect.poll(async () => (await map.screenshot()).equals(zoomed)).toBe(false);
    await page.getByText("The map as a table").click();
    await page.getByRole("rowheader").first().waitFor();
    expect(await page.locator("#map-rows tr").count()).toBeGreaterThan(1);
  });
});

describe("a visitor's own weights", () => {
  it("are read from a file, found where they are, and equal to it", async () => {
    const page = await open(`${site.url}?quiet&ram=32&warm=0`);
    await expectStatus(page, /^Ready/);
    await press(page, "Make one up");
    await expectStatus(page, /^24 tensors, 24\.0 MiB, read/);
    await press(page, "Pressure");
    await expectStatus(page, /^Pressure: .* \d+ tensors left RAM/);
    await page.getByText(/: 24 tensors, 24\.0 MiB; \d+ in RAM, [1-9]\d* in colder tiers/).waitFor();
    await press(page, "Compare");
    await expectStatus(page, /^All 24 tensors are equal to the file/);

    const header = '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'.padEnd(56);
    const bytes = Buffer.concat([Buffer.from([56, 0, 0, 0, 0, 0, 0, 0]), Buffer.from(header)]);
    const mimeType = "application/octet-stream";
    const file = (name: string, buffer: Buffer) => ({ name, mimeType, buffer });
    const own = file("own.safetensors", Buffer.concat([bytes, Buffer.from([1, 2, 3, 4])]));
    await page.locator("#file").setInputFiles(own);
    await expectStatus(page, /^1 tensors, 4 B, read/);
    const transfer = await page.evaluateHandle(
      (content) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(content)], "dropped.safetensors"));
        return data;
      },
      [...own.buffer.subarray(0, -1)],
    );
    await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
    await expectStatus(page, /truncated|bytes|beyond|end/i);
    await press(page, "Forget all");
    await expectStatus(page, /^Forgotten/);
  });
});

describe("the page", () => {
  /** In a profile of its own, so that nothing is there already. */
  async function visit(url: string, isThere: (page: Page) => Promise<unknown>) {
    const fresh = await Browser.launch();
    const page = await fresh.open("about:blank");
    const bodies: Promise<number>[] = [];
    page.on("response", (response) => {
      if (!response.url().startsWith("http")) return;
      const lengthOf = (body: Buffer) => gzipSync(body, { level: 9 }).length;
      bodies.push(response.body().then(lengthOf, () => 0));
    });
    await page.goto(url);
    await expectStatus(page, /^Ready/);
    await isThere(page);
    await page.waitForLoadState("networkidle");
    const lengths = await Promise.all(bodies);
    const bytes = lengths.reduce((sum, length) => sum + length, 0);
    const blockingMs = await figure(page, "cost-blocking");
    const shift = await figure(page, "cost-shift");
    expect(fresh.complaints).toEqual([]);
    await fresh.close();
    return { bytes, fileCount: lengths.length, blockingMs, shift };
  }

  /** What the first question takes of the page's thread, on top of what the page took to be ready. */
  async function askFirst(query: string) {
    let tokens: number[] = [];
    let scripts: string[] = [];
    let readyMs = 0;
    const visited = await visit(`${site.url}${query}`, async (page) => {
      await page.waitForTimeout(500);
      readyMs = await figure(page, "cost-blocking");
      await ask(page, QUESTIONS[0]);
      tokens = await tokensOn(page);
      scripts = page.workers().map((worker) => new URL(worker.url()).pathname);
    });
    const hasRuntime = scripts.some((script) => script.includes("onnxruntime"));
    return { tokens, hasRuntime, blockingMs: visited.blockingMs - readyMs };
  }

  it("stays alive while the runtime starts, in a worker", async () => {
    const inWorker = await askFirst("?quiet");
    const inPage = await askFirst("?quiet&runtime=page");
    const beside = `${inPage.blockingMs} ms with the runtime in the page's thread`;
    note("demo/first-question-blocking", inWorker.blockingMs, "ms", undefined, beside);
    expect([inWorker.hasRuntime, inPage.hasRuntime]).toEqual([true, false]);
    expect(inWorker.tokens.length).toBeGreaterThan(ANSWER_TOKENS);
    expect(inWorker.tokens).toEqual(inPage.tokens);
  }, 120_000);

  it("loads little, blocks little and shifts nothing", async () => {
    const first = await visit(`${site.url}?quiet`, async () => undefined);
    const files = `${first.fileCount} files`;
    note("demo/first-load-gzip", first.bytes, "bytes", FIRST_LOAD_BYTES_MAX, files);
    note("demo/first-load-blocking", first.blockingMs, "ms");
    note("demo/first-load-shift", first.shift, "", 0);
    // The trace has moved tensors out by then, for which codecs are loaded.
    const later = await visit(site.url, (page) =>
      page
        .getByText(/^[1-9][\d,]* records/)
        .first()
        .waitFor({ timeout: 60_000 }),
    );
    const beside = `with codecs, ${later.fileCount} files`;
    note("demo/first-seconds-gzip", later.bytes, "bytes", FIRST_LOAD_BYTES_MAX, beside);
    note("demo/first-seconds-blocking", later.blockingMs, "ms");
    expect(first.fileCount).toBeGreaterThan(3);
    expect(first.bytes).toBeGreaterThan(50 * 1024);
    expect(first.bytes).toBeLessThanOrEqual(FIRST_LOAD_BYTES_MAX);
    expect(later.fileCount).toBeGreaterThan(first.fileCount);
    expect(later.bytes).toBeLessThanOrEqual(FIRST_LOAD_BYTES_MAX);
    expect([first.shift, later.shift]).toEqual([0, 0]);
  }, 120_000);

  it.each([
    { name: "light", width: 1360, height: 900, colorScheme: "light" },
    { name: "dark", width: 1360, height: 900, colorScheme: "dark" },
    { name: "phone", width: 375, height: 760, colorScheme: "light" },
  ] as const)("is accessible and fits: $name", async ({ name, width, height, colorScheme }) => {
    const page = await open("about:blank");
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    await page.goto(site.url);
    await expectStatus(page, /^Ready/);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
    await untilCharted(page);
    await page.getByText(/[1-9]\d* KV pages found/).waitFor({ timeout: 60_000 });
    await page.addScriptTag({ content: readFileSync(AXE, "utf8") });
    const results = (await page.evaluate("axe.run()")) as AxeResults;
    const violations = results.violations.map(
      ({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`,
    );
    expect(violations).toEqual([]);
    expect(results.passes.length).toBeGreaterThan(20);
    const overflowPixels = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    expect(overflowPixels).toBeLessThanOrEqual(0);
    await shoot(page, name);
    await press(page, "Forget all");
    await expectStatus(page, /^Forgotten/);
  });

  it("stands still for visitors who want that", async () => {
    const page = await open("about:blank");
    await page.emulateMedia({ reducedMotion: "reduce" });
    await page.goto(site.url);
    await expectStatus(page, /^Ready/);
    await page.waitForTimeout(500);
    expect(await page.locator("#run-trace").getAttribute("aria-pressed")).toBe("false");
  });
});
