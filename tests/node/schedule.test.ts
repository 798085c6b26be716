/** The chat example's schedule, prompts and progress display, each with its own seed or clock. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  type ProgressOptions,
  type ProgressState,
  startProgress,
} from "../../examples/chat/progress.js";
import {
  loadDocuments,
  makePrompts,
  type PromptOptions,
  type TextDocument,
} from "../../examples/chat/prompts.js";
import { makeSchedule, type ScheduleOptions, type Visit } from "../../examples/chat/schedule.js";

/** A linear congruential generator: enough for tests, and the same everywhere. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const SEEDS = [1, 2, 3, 42, 4_000_000_000];

describe("makeSchedule", () => {
  const options = (seed: number, rest: Partial<ScheduleOptions> = {}): ScheduleOptions => ({
    chats: 12,
    roundRobinRounds: 2,
    skewedVisits: 60,
    turnsMaxPerChat: 8,
    random: seeded(seed),
    ...rest,
  });

  const turnsByChat = (visits: readonly Visit[]): Map<number, number[]> => {
    const turns = new Map<number, number[]>();
    for (const { chat, turn } of visits) turns.set(chat, [...(turns.get(chat) ?? []), turn]);
    return turns;
  };

  it("starts with whole rounds", () => {
    const visits = makeSchedule(options(1)).slice(0, 24);
    const expected = [0, 1].flatMap((turn) =>
      Array.from({ length: 12 }, (_, chat) => ({ chat, turn })),
    );
    expect(visits).toEqual(expected);
  });

  it.each(SEEDS)("counts each chat's turns without a gap, up to the limit (seed %i)", (seed) => {
    const visits = makeSchedule(options(seed));
    expect(visits).toHaveLength(24 + 60);
    for (const [chat, turns] of turnsByChat(visits)) {
      expect(chat).toBeLessThan(12);
      expect(turns.length).toBeLessThanOrEqual(8);
      expect(turns).toEqual(turns.map((_, index) => index));
    }
  });

  it.each(SEEDS)("ends when every chat is over (seed %i)", (seed) => {
    const visits = makeSchedule(options(seed, { skewedVisits: 10_000 }));
    expect(visits).toHaveLength(12 * 8);
    expect([...turnsByChat(visits).values()].every((turns) => turns.length === 8)).toBe(true);
  });

  it("is the same for the same seed, and another for another", () => {
    expect(makeSchedule(options(7))).toEqual(makeSchedule(options(7)));
    expect(makeSchedule(options(8))).not.toEqual(makeSchedule(options(7)));
  });

  it("follows Zipf's law, with the ranks dealt at random", () => {
    const favourites = new Set<number>();
    for (const seed of SEEDS) {
      const visits = makeSchedule(
        options(seed, { roundRobinRounds: 0, skewedVisits: 20_000, turnsMaxPerChat: 20_000 }),
      );
      const counts = [...turnsByChat(visits)].map(([chat, turns]) => ({ chat, n: turns.length }));
      counts.sort((a, b) => b.n - a.n);
      favourites.add(counts[0]?.chat ?? -1);
      const total = Array.from({ length: 12 }, (_, rank) => (rank + 1) ** -0.9).reduce(
        (sum, weight) => sum + weight,
        0,
      );
      for (const rank of [0, 1, 5, 11]) {
        const share = (counts[rank]?.n ?? 0) / 20_000;
        expect(Math.abs(share - (rank + 1) ** -0.9 / total)).toBeLessThan(0.02);
      }
    }
    expect(favourites.size).toBeGreaterThan(1);
  });

  it("serves the limits: no visits, one chat, a limit below the rounds", () => {
    expect(makeSchedule(options(1, { roundRobinRounds: 0, skewedVisits: 0 }))).toEqual([]);
    expect(makeSchedule(options(1, { turnsMaxPerChat: 0 }))).toEqual([]);
    const one = makeSchedule(options(1, { chats: 1, roundRobinRounds: 1, skewedVisits: 2 }));
    expect(one.map(({ turn }) => turn)).toEqual([0, 1, 2]);
    expect(makeSchedule(options(1, { roundRobinRounds: 5, turnsMaxPerChat: 3 }))).toHaveLength(36);
  });

  it("serves a generator that yields its largest value", () => {
    const visits = makeSchedule(options(1, { random: () => 1 - 2 ** -53 }));
    expect(visits).toHaveLength(84);
  });

  it.each([{ chats: 0 }, { chats: 1.5 }, { roundRobinRounds: -1 }, { skewedVisits: Number.NaN }])(
    "refuses %o",
    (wrong) => {
      expect(() => makeSchedule(options(1, wrong))).toThrow(RangeError);
    },
  );
});

const encoder = new TextEncoder();
const strictDecoder = new TextDecoder("utf-8", { fatal: true });

describe("loadDocuments", () => {
  let root: string;

  const add = async (path: string, text: string): Promise<void> => {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  };

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "documents-"));
  });

  afterEach(() => rm(root, { recursive: true }));

  it("reads documents in a fixed order, and sources only where these are short", async () => {
    await add("docs/b/deep.md", "deep");
    await add("docs/a.md", "a");
    await add("docs/picture.svg", "<svg/>");
    await add("README.md", "x".repeat(20_000));
    await add("src/index.ts", "export {};");
    const documents = await loadDocuments(root);
    expect(documents.map(({ path }) => path)).toEqual(["README.md", "docs/a.md", "docs/b/deep.md"]);
    expect(strictDecoder.decode(documents[1]?.bytes)).toBe("a");
  });

  it("adds package.json and sources to short documents", async () => {
    await add("LICENSE", "MIT");
    await add("package.json", "{}");
    await add("src/z.ts", "z");
    await add("src/a/b.ts", "b");
    await add("src/node_modules/c.ts", "c");
    await add("src/.hidden/d.ts", "d");
    const documents = await loadDocuments(root);
    const paths = ["LICENSE", "package.json", "src/a/b.ts", "src/z.ts"];
    expect(documents.map(({ path }) => path)).toEqual(paths);
  });

  it("is never empty", async () => {
    for (const place of [root, join(root, "absent")]) {
      const documents = await loadDocuments(place);
      expect(documents.reduce((sum, { bytes }) => sum + bytes.byteLength, 0)).toBeGreaterThan(1000);
    }
  });

  it("reads this repository", async () => {
    const documents = await loadDocuments(".");
    expect(documents.length).toBeGreaterThan(0);
    for (const { bytes } of documents) strictDecoder.decode(bytes);
  });
});

describe("makePrompts", () => {
  const text = Array.from(
    { length: 400 },
    (_, index) =>
      `Nº ${index} moves to a colder tier. It is «clean» now; naïve copies are not kept…`,
  ).join("\n");
  const documents: TextDocument[] = [{ path: "a.md", bytes: encoder.encode(text) }];
  const options = (seed: number, rest: Partial<PromptOptions> = {}): PromptOptions => ({
    chats: 20,
    openingBytes: { min: 600, max: 1000 },
    followUpBytes: { min: 16, max: 40 },
    turnsMax: 6,
    random: seeded(seed),
    ...rest,
  });

  it.each(SEEDS)("keeps the ranges, in valid UTF-8, at word boundaries (seed %i)", (seed) => {
    const words = new Set(text.split(/\s+/u));
    const prompts = makePrompts(documents, options(seed));
    expect(prompts).toHaveLength(20);
    for (const { opening, followUps } of prompts) {
      expect(opening.byteLength).toBeGreaterThanOrEqual(600);
      expect(opening.byteLength).toBeLessThanOrEqual(1000);
      const passage = /^User: [^:]+: (.+)\nAssistant: $/su.exec(strictDecoder.decode(opening))?.[1];
      expect(passage?.split(" ").every((word) => words.has(word))).toBe(true);
      expect(followUps).toHaveLength(5);
      for (const followUp of followUps) {
        expect(followUp.byteLength).toBeGreaterThanOrEqual(16);
        expect(followUp.byteLength).toBeLessThanOrEqual(40);
        expect(strictDecoder.decode(followUp)).toMatch(/^\nUser: .+\n$/u);
      }
    }
  });

  it("gives each chat a passage of its own", () => {
    const openings = makePrompts(documents, options(3)).map(({ opening }) =>
      strictDecoder.decode(opening),
    );
    expect(new Set(openings).size).toBe(20);
  });

  it("is the same for the same seed, and another for another", () => {
    expect(makePrompts(documents, options(7))).toEqual(makePrompts(documents, options(7)));
    expect(makePrompts(documents, options(8))).not.toEqual(makePrompts(documents, options(7)));
  });

  it.each([
    ["a text shorter than a prompt", "Too short."],
    ["a single character", "é"],
    ["words longer than a prompt", "é".repeat(5000)],
    ["words of four-byte characters", "🙂".repeat(3000)],
    ["bytes that are not UTF-8", "\u00ff"],
  ])("keeps the ranges over %s", (name, content) => {
    const isRaw = name.startsWith("bytes");
    const bytes = isRaw ? Uint8Array.of(0xff, 0xfe, 0x20, 0x80) : encoder.encode(content);
    const narrow = { openingBytes: { min: 90, max: 93 }, followUpBytes: { min: 17, max: 18 } };
    const prompts = makePrompts([{ path: "a", bytes }], options(5, narrow));
    for (const { opening, followUps } of prompts) {
      strictDecoder.decode(opening);
      expect(opening.byteLength).toBeGreaterThanOrEqual(90);
      expect(opening.byteLength).toBeLessThanOrEqual(93);
      for (const followUp of followUps) {
        strictDecoder.decode(followUp);
        expect(followUp.byteLength).toBeGreaterThanOrEqual(17);
        expect(followUp.byteLength).toBeLessThanOrEqual(18);
      }
    }
  });

  it("needs no follow-ups for a single turn", () => {
    const prompts = makePrompts(documents, options(1, { turnsMax: 1 }));
    expect(prompts.every(({ followUps }) => followUps.length === 0)).toBe(true);
  });

  it("refuses ranges without room, and documents without text", () => {
    const wrong: Partial<PromptOptions>[] = [
      { openingBytes: { min: 20, max: 1000 } },
      { openingBytes: { min: 700, max: 600 } },
      { followUpBytes: { min: 4, max: 40 } },
      { followUpBytes: { min: 16.5, max: 40 } },
    ];
    for (const options_ of wrong) {
      expect(() => makePrompts(documents, options(1, options_))).toThrow(RangeError);
    }
    const blank = [{ path: "a", bytes: encoder.encode(" \n ") }];
    expect(() => makePrompts(blank, options(1))).toThrow(RangeError);
  });
});

describe("startProgress", () => {
  const REWRITE = "\r\u001b[K";
  let writes: string[];
  let nowMs: number;

  const start = (rest: Partial<ProgressOptions> = {}, isTTY = false, columns?: number) => {
    const write = (chunk: string): unknown => writes.push(chunk);
    const stream = columns === undefined ? { isTTY, write } : { isTTY, write, columns };
    return startProgress({ stream, now: () => nowMs, visitsTotal: 40, ...rest });
  };
  const state = (visitsDone: number, counters = "hits 3"): ProgressState => ({
    visitsDone,
    chat: 4,
    tokens: 1234,
    counters,
  });

  beforeEach(() => {
    writes = [];
    nowMs = 1000;
  });

  it("rewrites one line on a terminal", () => {
    const progress = start({}, true);
    progress.update(state(10));
    const line = "[####------------] visit 10/40  chat 5  1234 tokens  hits 3";
    expect(writes).toEqual([REWRITE + line]);
    nowMs += 1;
    progress.update(state(11));
    expect(writes).toHaveLength(1);
    nowMs += 100;
    progress.update(state(12));
    expect(writes).toHaveLength(2);
    nowMs += 1;
    progress.update(state(40));
    expect(writes[2]).toContain("[################] visit 40/40");
  });

  it("leaves an empty line behind when it stops, once", () => {
    const progress = start({}, true);
    progress.update(state(1));
    progress.stop();
    progress.stop();
    progress.update(state(2));
    progress.print("late");
    expect(writes.slice(1)).toEqual([REWRITE]);
  });

  it("writes nothing when nothing happened", () => {
    start({}, true).stop();
    start().stop();
    expect(writes).toEqual([]);
  });

  it("prints above the live line", () => {
    const progress = start({}, true);
    progress.print("before");
    progress.update(state(1));
    progress.print("between");
    expect(writes[0]).toBe(`${REWRITE}before\n`);
    expect(writes[2]).toBe(`${REWRITE}between\n`);
    expect(writes[3]).toBe(writes[1]);
  });

  it.each([1, 2, 10, 30, 60, 61, 200])("fits a terminal of %i columns", (columns) => {
    const progress = start({}, true, columns);
    progress.update(state(10, "🙂 hits\n3\u001b[2J"));
    const shown = (writes[0] ?? "").slice(REWRITE.length);
    expect(Array.from(shown).length).toBeLessThanOrEqual(columns - 1);
    expect(shown).not.toMatch(/\p{Cc}/u);
    expect(shown.endsWith("…")).toBe(columns > 1 && columns < 68);
  });

  it("takes a width of 0 as unknown", () => {
    start({}, true, 0).update(state(1));
    expect(writes[0]).toContain("1234 tokens");
  });

  it("prints a plain line for each tenth of the visits", () => {
    const progress = start();
    for (let visit = 0; visit <= 40; visit++) progress.update(state(visit));
    progress.stop();
    expect(writes).toHaveLength(10);
    expect(writes.every((line) => /^\[[#-]{16}\] visit [ \d]\d\/40 .*hits 3\n$/.test(line))).toBe(
      true,
    );
  });

  it("prints a plain line after a long silence, and the last state", () => {
    const progress = start({ visitsTotal: 10_000, plainIntervalMs: 5000 });
    progress.update(state(1));
    nowMs += 4999;
    progress.update(state(2));
    expect(writes).toHaveLength(0);
    nowMs += 1;
    progress.update(state(3));
    progress.update(state(4));
    expect(writes).toHaveLength(1);
    progress.print("note");
    progress.stop();
    progress.stop();
    expect(writes).toHaveLength(3);
    expect(writes[2]).toContain("visit     4/10000");
  });

  it("obeys a mode that is asked for", () => {
    start({ mode: "plain" }, true).update(state(40));
    start({ mode: "live" }, false).update(state(40));
    expect(writes[0]).not.toContain("\r");
    expect(writes[1]).toContain("\r");
  });

  it.each([0, -1, 1.5, Number.NaN])("refuses %d visits", (visitsTotal) => {
    expect(() => start({ visitsTotal })).toThrow(RangeError);
  });
});
