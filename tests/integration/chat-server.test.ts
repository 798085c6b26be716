// The chat server as its users meet it: the built program, spoken to by HTTP, killed and started again;
// its tokens beside those of a plain run without tierheap.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type ChatState, Conversation } from "../../examples/chat/conversation.js";
import { PlainKvStore } from "../../examples/chat/kv-store.js";
import { type OpenedModel, openModel } from "../../examples/chat/open-model.js";
import { TurnQueue } from "../../examples/chat-server/turn-queue.js";

const program = fileURLToPath(new URL("../../build/examples/chat-server/main.js", import.meta.url));
const ANSWER_TOKENS = 10;
const POLL = { timeout: 30_000 };

interface ServerProcess {
  readonly child: ChildProcess;
  readonly url: string;
  readonly exited: Promise<{ code: number | null; signal: string | null }>;
  stderr: string;
}

let directory = "";
const children = new Set<ChildProcess>();
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tierheap-chat-server-"));
});
afterEach(async () => {
  for (const child of children) {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await gone;
    }
  }
  children.clear();
  rmSync(directory, { recursive: true, force: true });
});

function run(args: readonly string[]) {
  const all = [program, "--port", "0", "--directory", directory, ...args];
  const child = spawn(process.execPath, all);
  children.add(child);
  const exited = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.on("exit", (code, signal) => resolve({ code, signal }));
  });
  return { child, exited };
}

async function start(args: readonly string[] = []): Promise<ServerProcess> {
  const { child, exited } = run(args);
  let stdout = "";
  const server = { child, exited, url: "", stderr: "" };
  child.stderr?.on("data", (chunk) => {
    server.stderr += chunk;
  });
  const url = await Promise.race([
    new Promise<string>((resolve) => {
      child.stdout?.on("data", (chunk) => {
        stdout += chunk;
        const match = /listening on (http:\S+)/.exec(stdout);
        if (match?.[1] !== undefined) resolve(match[1]);
      });
    }),
    exited.then(() => Promise.reject(new Error(`the server ended: ${server.stderr}`))),
  ]);
  return Object.assign(server, { url });
}

interface Turn {
  readonly status: number;
  /** Of the events, in their order. */
  readonly tokens: number[];
  readonly done: { turn: number; answer: number[]; origin: string } | null;
  readonly error: { code: string; turn?: number } | null;
}

interface TurnOptions {
  readonly turn?: number;
  readonly answerTokens?: number;
  readonly signal?: AbortSignal;
  readonly onToken?: (count: number) => void;
}

/** Takes a turn and reads its events to their end, or to that of the server. */
async function say(
  url: string,
  chat: string,
  prompt: string,
  options: TurnOptions = {},
): Promise<Turn> {
  const { turn, answerTokens = ANSWER_TOKENS, signal = null, onToken } = options;
  const body = JSON.stringify({ prompt, answerTokens, ...(turn !== undefined && { turn }) });
  const tokens: number[] = [];
  let done: Turn["done"] = null;
  let error: Turn["error"] = null;
  let status = 0;
  try {
    const response = await fetch(`${url}/chats/${chat}/turns`, { method: "POST", body, signal });
    status = response.status;
    if (status !== 200)
      return { status, tokens, done, ...((await response.json()) as Pick<Turn, "error">) };
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      text += decoder.decode(chunk, { stream: true });
      const events = text.split("\n\n");
      text = events.pop() ?? "";
      for (const event of events) {
        const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(event) ?? [];
        const value = JSON.parse(data as string);
        if (name === "token") expect(tokens.push(value.token)).toBe(value.index + 1);
        if (name === "token") onToken?.(tokens.length);
        if (name === "done") done = value;
        if (name === "error") error = value;
      }
    }
  } catch (failure) {
    // The server was killed, or the test has aborted.
    expect(["TypeError", "AbortError"]).toContain((failure as Error).name);
  }
  return { status, tokens, done, error };
}

/** Samples of the page by `name{labels}`. */
async function metricsOf(url: string): Promise<Map<string, number>> {
  const response = await fetch(`${url}/metrics`);
  expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4");
  const lines = (await response.text()).trimEnd().split("\n");
  const samples = new Map<string, number>();
  let family = "";
  for (const line of lines) {
    if (line.startsWith("# TYPE ")) family = line.split(" ")[2] as string;
    if (line.startsWith("#")) continue;
    const [, name = "", labels = "", value = ""] = /^(\w+)(\{.*\})? (\S+)$/.exec(line) ?? [];
    expect(name, line).toBe(family);
    samples.set(name + labels, value === "+Inf" ? Number.POSITIVE_INFINITY : Number(value));
  }
  expect(samples.size).toBeGreaterThan(40);
  expect([...samples.values()].some(Number.isNaN)).toBe(false);
  return samples;
}

function sumOf(samples: ReadonlyMap<string, number>, name: string): number {
  const members = [...samples].filter(([key]) => key === name || key.startsWith(`${name}{`));
  expect(members.length, name).toBeGreaterThan(0);
  return members.reduce((sum, [, value]) => sum + value, 0);
}

function checkAddsUp(samples: ReadonlyMap<string, number>): void {
  expect(sumOf(samples, "chat_turns_total")).toBe(samples.get("chat_turns_begun_total"));
  expect(sumOf(samples, "chat_kv_total")).toBe(samples.get('chat_turns_total{end="done"}'));
  expect(samples.get("chat_queue_running")).toBe(0);
  expect(samples.get("chat_queue_waiting")).toBe(0);
  expect(sumOf(samples, "tierheap_budget_used_bytes")).toBeLessThanOrEqual(
    samples.get("tierheap_budget_peak_bytes") as number,
  );
  expect(samples.get("tierheap_budget_peak_bytes")).toBeLessThanOrEqual(
    samples.get("tierheap_budget_limit_bytes") as number,
  );
  const kv = (name: string) => samples.get(`tierheap_pool_${name}{kind="KV_CACHE"}`) as number;
  expect(kv("requested_bytes")).toBe(samples.get("tierheap_tensors_hot_bytes"));
  expect(kv("requested_bytes")).toBeLessThanOrEqual(kv("granted_bytes"));
  expect(kv("granted_bytes")).toBeLessThanOrEqual(kv("capacity_bytes"));
  expect(kv("pinned")).toBe(0);
  expect(samples.get("tierheap_tensors_hot")).toBeLessThanOrEqual(
    samples.get("tierheap_tensors") as number,
  );
  expect(samples.get("tierheap_leaked_bytes")).toBe(0);
}

const USERS = ["ada", "ben", "cyd", "dan", "eve", "fay"];
const promptOf = (user: string, turn: number) =>
  turn === 0
    ? `This is ${user}. ${"The heap holds what is hot, and the disk the rest. ".repeat(6)}`
    : `\n${user} asks for the ${turn}. time.\n`;

let opened: OpenedModel;
beforeAll(async () => {
  opened = await openModel({ model: undefined, seed: 1 });
});
afterAll(() => opened.runtime.close());

/** The answers of a plain run: the bare runtime, its KV in plain arrays. */
async function plainAnswers(prompts: readonly string[]): Promise<number[][]> {
  const { runtime } = opened;
  const answerTokens = ANSWER_TOKENS;
  const conversation = new Conversation({ runtime, store: new PlainKvStore(), answerTokens });
  const chat: ChatState = { chat: 0, turn: 0, tokens: [], cachedTokens: 0 };
  const answers: number[][] = [];
  for (const prompt of prompts) {
    await conversation.takeTurn(chat, new TextEncoder().encode(prompt), async () => {});
    answers.push(chat.tokens.slice(-answerTokens));
  }
  return answers;
}

describe("the chat server", { timeout: 180_000 }, () => {
  test("is killed in the middle of six conversations and goes on with equal tokens", async () => {
    const turnCount = 4;
    const expected = new Map<string, number[][]>();
    for (const user of USERS) {
      const prompts = Array.from({ length: turnCount }, (_, turn) => promptOf(user, turn));
      expected.set(user, await plainAnswers(prompts));
    }
    // Answers that did not depend on what was said would prove little.
    const distinct = new Set([...expected.values()].flat().map((answer) => `${answer}`));
    expect(distinct.size).toBeGreaterThan(USERS.length);

    const first = await start(["--ram", "8MiB"]);
    for (const turn of [0, 1]) {
      const turns = await Promise.all(
        USERS.map((user) => say(first.url, user, promptOf(user, turn), { turn })),
      );
      for (const [index, user] of USERS.entries()) {
        expect(turns[index]).toMatchObject({ status: 200, done: { turn: turn + 1 } });
        expect(turns[index]?.tokens).toEqual(expected.get(user)?.[turn]);
        expect(turns[index]?.done?.answer).toEqual(expected.get(user)?.[turn]);
      }
    }
    const before = await metricsOf(first.url);
    checkAddsUp(before);
    expect(before.get('chat_turns_total{end="done"}')).toBe(2 * USERS.length);
    expect(before.get("chat_tokens_total")).toBe(2 * USERS.length * ANSWER_TOKENS);
    // More chats than the budget holds.
    expect(before.get('chat_kv_total{origin="restored"}')).toBeGreaterThan(0);
    expect(before.get('chat_kv_total{origin="recomputed"}')).toBe(0);

    // In the middle of the third turn of somebody.
    const cut = await Promise.all(
      USERS.map((user, index) => {
        const onToken = (count: number) => {
          if (index === 2 && count === 5) first.child.kill("SIGKILL");
        };
        return say(first.url, user, promptOf(user, 2), { turn: 2, onToken });
      }),
    );
    expect(await first.exited).toMatchObject({ signal: "SIGKILL" });
    expect(cut.filter(({ done }) => done === null).length).toBeGreaterThan(0);
    for (const [index, user] of USERS.entries()) {
      const { tokens = [] } = cut[index] ?? {};
      expect(tokens).toEqual(expected.get(user)?.[2]?.slice(0, tokens.length));
    }

    const second = await start(["--ram", "8MiB"]);
    expect(await (await fetch(`${second.url}/chats`)).json()).toEqual({ chats: USERS });
    let takenAgain = 0;
    for (const [index, user] of USERS.entries()) {
      const again = await say(second.url, user, promptOf(user, 2), { turn: 2 });
      // What was acknowledged has happened; what was not may have.
      if (cut[index]?.done !== null) expect(again.status).toBe(409);
      if (again.status === 409) {
        expect(again.error).toMatchObject({ code: "turn-mismatch", turn: 3 });
        const state = await (await fetch(`${second.url}/chats/${user}`)).json();
        expect(state.tokens.slice(-ANSWER_TOKENS)).toEqual(expected.get(user)?.[2]);
        continue;
      }
      takenAgain += 1;
      expect(again.tokens).toEqual(expected.get(user)?.[2]);
    }
    expect(takenAgain).toBeGreaterThan(0);
    const turns = await Promise.all(
      USERS.map((user) => say(second.url, user, promptOf(user, 3), { turn: 3 })),
    );
    for (const [index, user] of USERS.entries()) {
      expect(turns[index]?.tokens).toEqual(expected.get(user)?.[3]);
    }
    const after = await metricsOf(second.url);
    checkAddsUp(after);
    expect(after.get('chat_turns_total{end="done"}')).toBe(takenAgain + USERS.length);
    // Rows were read from disk, not computed again: but for the chat whose save was cut off.
    expect(after.get('chat_kv_total{origin="restored"}')).toBeGreaterThanOrEqual(USERS.length - 2);
    second.child.kill("SIGTERM");
    expect(await second.exited).toEqual({ code: 0, signal: null });
  });

  test("forgets a turn whose client has gone, and takes it again", async () => {
    const [answer, next] = await plainAnswers(["Hello", "And now?"]);
    const server = await start();
    const controller = new AbortController();
    const { signal } = controller;
    const onToken = (count: number) => {
      if (count === 3) controller.abort();
    };
    const cut = await say(server.url, "ada", "Hello", { answerTokens: 256, signal, onToken });
    expect(cut.done).toBeNull();
    await expect
      .poll(async () => (await metricsOf(server.url)).get('chat_turns_total{end="aborted"}'), POLL)
      .toBe(1);
    expect((await fetch(`${server.url}/chats/ada`)).status).toBe(404);
    expect((await say(server.url, "ada", "Hello", { turn: 0 })).tokens).toEqual(answer);
    // Another way to go on, which nobody hears to the end.
    const late = new AbortController();
    await say(server.url, "ada", "Something else", {
      answerTokens: 256,
      signal: late.signal,
      onToken: () => late.abort(),
    });
    await expect
      .poll(async () => (await metricsOf(server.url)).get('chat_turns_total{end="aborted"}'), POLL)
      .toBe(2);
    const again = await say(server.url, "ada", "And now?", { turn: 1 });
    expect(again.tokens).toEqual(next);
    expect(again.done?.origin).toBe("resident");
    checkAddsUp(await metricsOf(server.url));
  });

  test("says what is wrong as JSON", async () => {
    const server = await start(["--concurrency", "1", "--queue", "1", "--context", "300"]);
    const { url } = server;
    const post = (path: string, body: string) => fetch(url + path, { method: "POST", body });
    const cases: [() => Promise<Response>, number, string][] = [
      [() => fetch(`${url}/nothing`), 404, "not-found"],
      [() => fetch(`${url}/chats/nobody`), 404, "not-found"],
      [() => fetch(`${url}/chats/nobody`, { method: "DELETE" }), 404, "not-found"],
      [() => fetch(`${url}/chats/a%20b`), 404, "not-found"],
      [() => fetch(`${url}/chats/${"a".repeat(65)}`), 404, "not-found"],
      [() => fetch(`${url}/chats/ada/turns`), 405, "method-not-allowed"],
      [() => post("/metrics", ""), 405, "method-not-allowed"],
      [() => post("/chats/ada/turns", "{"), 400, "bad-request"],
      [() => post("/chats/ada/turns", "[]"), 400, "bad-request"],
      [() => post("/chats/ada/turns", "{}"), 400, "bad-request"],
      [() => post("/chats/ada/turns", '{"prompt":""}'), 400, "bad-request"],
      [() => post("/chats/ada/turns", '{"prompt":"a","answerTokens":0}'), 400, "bad-request"],
      [() => post("/chats/ada/turns", '{"prompt":"a","turn":-1}'), 400, "bad-request"],
      [() => post("/chats/ada/turns", '{"prompt":"a","user":"b"}'), 400, "bad-request"],
      [() => post("/chats/ada/turns", '{"prompt":"a","turn":1}'), 409, "turn-mismatch"],
      [() => post("/chats/ada/turns", `{"prompt":"${"a".repeat(400)}"}`), 413, "too-long"],
      [() => post("/chats/ada/turns", `{"prompt":"${"a".repeat(70_000)}"}`), 413, "too-long"],
    ];
    for (const [answer, status, code] of cases) {
      const response = await answer();
      expect(response.headers.get("content-type")).toBe("application/json");
      const { error } = (await response.json()) as { error: { code: string; message: string } };
      expect([response.status, error.code]).toEqual([status, code]);
      expect(error.message).toMatch(/^\S.*\S$/);
    }
    // One computes, one waits, and there is no room for a third; nor may a chat take two turns at once.
    const refusals: Promise<Turn[]>[] = [];
    const refuse = async () => {
      const waiting = say(url, "ben", "Hello");
      await expect.poll(async () => (await metricsOf(url)).get("chat_queue_waiting"), POLL).toBe(1);
      return Promise.all([say(url, "cyd", "Hello"), say(url, "ada", "More"), waiting]);
    };
    const long = await say(url, "ada", "Hello", {
      answerTokens: 256,
      onToken: (count) => {
        if (count === 1) refusals.push(refuse());
      },
    });
    expect(long.done?.answer).toHaveLength(256);
    const [full, busy, waited] = (await refusals[0]) ?? [];
    expect([full?.status, full?.error?.code]).toEqual([503, "queue-full"]);
    expect([busy?.status, busy?.error?.code]).toEqual([409, "chat-busy"]);
    expect(waited?.tokens).toEqual((await plainAnswers(["Hello"]))[0]);
    expect((await fetch(`${url}/chats/ben`, { method: "DELETE" })).status).toBe(204);
    expect((await fetch(`${url}/chats/ben`)).status).toBe(404);
    const help = await (await fetch(url)).text();
    expect(help).toContain(`curl -N ${url}/chats/ada/turns`);
    const samples = await metricsOf(url);
    checkAddsUp(samples);
    expect(samples.get("chat_queue_rejected_total")).toBe(1);
    expect(samples.get('chat_turns_total{end="failed"}')).toBe(0);
    expect(server.stderr).toBe("");
  });

  test("ends its turns before it stops, and takes no others", async () => {
    const server = await start();
    const refused: Promise<Turn>[] = [];
    const turn = await say(server.url, "ada", "Hello", {
      answerTokens: 128,
      onToken: (count) => {
        if (count === 1) server.child.kill("SIGTERM");
        // By then it has heard.
        if (count === 64) refused.push(say(server.url, "ben", "Hello"));
      },
    });
    expect(turn.done?.answer).toHaveLength(128);
    const [late] = await Promise.all(refused);
    expect(late?.status).not.toBe(200);
    expect(late?.done).toBeNull();
    expect(await server.exited).toEqual({ code: 0, signal: null });
    expect(server.stderr).toMatch(/^stopping/);
  });

  const complaints: [string, readonly string[], RegExp][] = [
    ["an unknown option", ["--quantum"], /^Unknown option '--quantum'/],
    ["a number out of range", ["--concurrency", "0"], /^--concurrency is a whole number from 1/],
    ["a missing model", ["--model", "/nowhere/model.onnx"], /^There is no model at \/nowhere/],
    ["a port that is taken", ["--port", "1", "--host", "192.0.2.1"], /^listen /],
  ];
  test.each(complaints)("%s is one clear line", async (_name, args, pattern) => {
    const { child, exited } = run(args);
    let stderr = "";
    child.stderr?.on("data", (chunk) => {
      stderr += chunk;
    });
    expect(await exited).toEqual({ code: 1, signal: null });
    expect(stderr).toMatch(pattern);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });
});

describe("the queue", () => {
  test("keeps order and limits, and lets go of who has gone", async () => {
    const queue = new TurnQueue({ runningMax: 2, waitingMax: 3 });
    const order: string[] = [];
    const ends = new Map<string, () => void>();
    const controllers = new Map<string, AbortController>();
    const enter = (name: string) => {
      const controller = new AbortController();
      controllers.set(name, controller);
      const work = () =>
        new Promise<void>((resolve) => {
          order.push(name);
          ends.set(name, resolve);
        });
      return queue.run(work, controller.signal).catch((error: Error) => error.message);
    };
    const all = ["a", "b", "c", "d", "e", "f"].map(enter);
    await expect(all[5]).resolves.toMatch(/too many/);
    expect(queue.stats()).toEqual({ runningCount: 2, waitingCount: 3, rejectedCount: 1 });
    controllers.get("d")?.abort(new Error("gone"));
    await expect(all[3]).resolves.toBe("gone");
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    for (const name of ["b", "a", "c", "e"]) {
      await turn();
      ends.get(name)?.();
    }
    await Promise.all(all);
    expect(order).toEqual(["a", "b", "c", "e"]);
    expect(queue.stats()).toMatchObject({ runningCount: 0, waitingCount: 0 });
    const late = new AbortController();
    late.abort(new Error("before"));
    await expect(queue.run(async () => {}, late.signal)).rejects.toThrow("before");
  });
});
