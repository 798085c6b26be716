// A model in a worker that is ended and started again: onnxruntime-web's heap goes, its chats stay.
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { promptsFor } from "../support/decoder-families.js";
import { Browser, buildAndServe, ORT_PAGE, type Site } from "./browser.js";
import type {} from "./ort-page/main.js";

const MIB = 2 ** 20;
const SEED = 3;
const ANSWER_TOKENS = 12;

let site: Site;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  site = await buildAndServe(ORT_PAGE);
  browser = await Browser.launch();
});

afterAll(async () => {
  await browser?.close();
  await site?.close();
});

beforeEach(async () => {
  page = await browser.open(site.url);
});

afterEach(async () => {
  await page.close();
  expect(browser.complaints.splice(0)).toEqual([]);
});

const prompts = promptsFor(SEED);

async function expected(familyIndex: number): Promise<number[][]> {
  const answers = await page.evaluate(
    ([index, seed, given, count]) => window.ortWeb.speakBare(index, seed, given, count),
    [familyIndex, SEED, prompts, ANSWER_TOKENS] as const,
  );
  expect(new Set(answers.flat()).size).toBeGreaterThan(5);
  return answers;
}

/** All turns in the worker, with something in between. */
async function speakAll(between: (turn: number, tokens: readonly number[]) => Promise<object>) {
  const tokens: number[] = [];
  const answers: number[][] = [];
  for (const [turn, prompt] of prompts.entries()) {
    tokens.push(...prompt);
    const extra = await between(turn, tokens);
    const answer = await page.evaluate((input) => window.ortWeb.speak("a", input), {
      tokens: [...tokens],
      answerTokens: ANSWER_TOKENS,
      ...extra,
    });
    if (typeof answer === "string") throw new Error(answer);
    answers.push(answer);
    tokens.push(...answer);
  }
  return answers;
}

const open = (familyIndex: number, heapBytesMax?: number) =>
  page.evaluate(([index, seed, bytes]) => window.ortWeb.openModel(index, seed, bytes), [
    familyIndex,
    SEED,
    heapBytesMax,
  ] as const);
const stats = () => page.evaluate(() => window.ortWeb.statsOfModel());

async function close(): Promise<void> {
  const closed = await page.evaluate(() => window.ortWeb.closeModel());
  expect(closed).toEqual({ problems: [], leftBytes: 0 });
}

it.each([0, 1])(
  "family %i answers the same when it is restarted before every turn",
  async (family) => {
    const bare = await expected(family);
    await open(family);
    let awayCount = 0;
    const answers = await speakAll(async (turn) => {
      // KV goes as far as the colder tier.
      if (turn > 0) awayCount += await page.evaluate(() => window.ortWeb.putAway());
      return {};
    });
    expect(answers).toEqual(bare);
    expect(awayCount).toBe((prompts.length - 1) * 4);
    expect(await stats()).toMatchObject({
      startCount: prompts.length,
      suspendCount: prompts.length - 1,
      resumeCount: prompts.length - 1,
      deathCount: 0,
    });
    await close();
  },
);

/** When the system has given or taken what was asked of it: two looks that agree. */
async function settledResidentMiB(): Promise<number> {
  let before = Number.NaN;
  return vi.waitFor(
    () => {
      const now = Math.round(browser.residentBytes() / MIB);
      const isSettled = Math.abs(now - before) <= 2;
      before = now;
      if (!isSettled) throw new Error(`it still changes: ${now} MiB`);
      return now;
    },
    { interval: 300, timeout: 20_000 },
  );
}

it("gives the runtime's heap back when it has grown beyond its limit", async () => {
  const bare = await expected(0);
  await open(0);
  const resident: number[] = [];
  const heaps: number[] = [];
  const note = async () => {
    await page.requestGC();
    resident.push(await settledResidentMiB());
    heaps.push(Math.round((await stats()).heapBytes / MIB));
  };
  const tokens = [...(prompts[0] as number[])];
  const turn = { tokens, answerTokens: ANSWER_TOKENS };
  expect(await page.evaluate((input) => window.ortWeb.speak("a", input), turn)).toEqual(bare[0]);
  await note();
  tokens.push(...(bare[0] as number[]), ...(prompts[1] as number[]));
  const heavy = { ...turn, tokens, isHeavy: true };
  expect(await page.evaluate((input) => window.ortWeb.speak("a", input), heavy)).toEqual(bare[1]);
  await note();
  await page.evaluate(() => window.ortWeb.putAway());
  await note();
  tokens.push(...(bare[1] as number[]), ...(prompts[2] as number[]));
  expect(
    await page.evaluate((input) => window.ortWeb.speak("a", input), { ...turn, tokens }),
  ).toEqual(bare[2]);
  console.log(
    `resident MiB: ${resident[0]} before, ${resident[1]} when the heap has grown, ${resident[2]} after the restart; ` +
      `heap MiB: ${heaps.join(", ")}`,
  );
  const [heapBefore, heapGrown, heapAfter] = heaps as [number, number, number];
  expect(heapGrown).toBeGreaterThan(heapBefore + 50);
  expect(heapAfter).toBeLessThan(heapGrown - 50);
  const [, grown, after] = resident as [number, number, number];
  expect(after).toBeLessThan(grown - 40);
  await close();
});

it("restarts by itself at the limit, and tokens stay equal", async () => {
  const bare = await expected(0);
  await open(0, 64 * MIB);
  const answers = await speakAll(async (turn) => ({ isHeavy: turn === 1 }));
  expect(answers).toEqual(bare);
  const { startCount, heapBytes, heapBytesPeak } = await stats();
  expect(startCount).toBe(2);
  expect(heapBytesPeak).toBeGreaterThan(64 * MIB);
  expect(heapBytes).toBeLessThan(64 * MIB);
  await close();
});

it("goes on from the last suspension when the worker never answers", async () => {
  const bare = await expected(0);
  await open(0);
  const answers = await speakAll(async (turn, tokens) => {
    if (turn === 1) await page.evaluate(() => window.ortWeb.putAway());
    if (turn !== 2) return {};
    const outcome = await page.evaluate((input) => window.ortWeb.speak("a", input), {
      tokens: [...tokens],
      answerTokens: 1,
      isDeadly: true,
    });
    expect(outcome).toBe("TierError closed");
    return {};
  });
  expect(answers).toEqual(bare);
  expect(await stats()).toMatchObject({ deathCount: 1, startCount: 3 });
  await close();
});
