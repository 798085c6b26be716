// What chats on a GPU go through: pauses, a full pool, misuse, the loss of the device.
import { greedyToken as greedyOnCpu, openOrtDecoder } from "tierheap/adapters/ort";
import { greedyToken, openOrtGpuDecoder } from "tierheap/adapters/ort-webgpu";
import { GpuBufferPool } from "../../../src/gpu/gpu-buffer-pool.js";
import {
  answersOf,
  bareChat,
  FAMILIES,
  type Family,
  promptsFor,
  SHORT_TURNS,
  type Speaker,
} from "../../support/decoder-families.js";
import {
  bareAnswers,
  closeSetting,
  type Gpu,
  GpuChat,
  loadRuntime,
  OPTIONS,
  openDevice,
  openGpuMemory,
  openSetting,
  type Setting,
} from "./gpu.js";
import { RUNTIME_FILES } from "./wasm.js";

/** Buffers that are made in 12 decode steps, by whom: with tierheap, and by the runtime with its own KV. */
export async function countCreated(familyIndex: number) {
  const family = FAMILIES[familyIndex] as Family;
  const [prompt] = promptsFor(1) as [number[]];
  const setting = await openSetting(family, 1, { pageTokens: 64 });
  const { gpu, decoder } = setting;
  const chat = new GpuChat(decoder);
  const own = await countIn(gpu, chat, prompt);
  chat.cache.free();
  const ort = await loadRuntime();
  const sessionOptions = {
    ...OPTIONS,
    executionProviders: [{ name: "webgpu", device: gpu.device as unknown as GPUDevice }] as const,
    // KV that stays on the device, in buffers of the runtime's own.
    preferredOutputLocation: Object.fromEntries(
      ["0.key", "0.value", "1.key", "1.value"].map((name) => [`present.${name}`, "gpu-buffer"]),
    ) as Record<string, "gpu-buffer">,
  };
  const bare = await bareChat(family, family.build(1), { ort, sessionOptions });
  const plain = await countIn(gpu, bare.chat, prompt);
  await bare.release();
  const problems = await closeSetting(setting);
  return { own, plain, problems };
}

async function countIn(gpu: Gpu, chat: Speaker, prompt: number[]) {
  await chat.say(prompt, 4);
  const before = { all: gpu.createdCount(), heap: gpu.heapCreatedCount() };
  await chat.say([], 12);
  const byTierheap = gpu.heapCreatedCount() - before.heap;
  return { byTierheap, byRuntime: gpu.createdCount() - before.all - byTierheap };
}

/** Between its turns a chat leaves the device; in every second pause it leaves the heap as well. */
export async function suspendBetweenTurns(familyIndex: number, seed: number) {
  const family = FAMILIES[familyIndex] as Family;
  const setting = await openSetting(family, seed, { directory: `suspend-${familyIndex}-${seed}` });
  const { memory, level, decoder } = setting;
  const expected = await bareAnswers(family, seed, setting.gpu.device);
  const chat = new GpuChat(decoder, decoder.createCache({ id: "chat" }));
  const answers: number[][] = [];
  const outcomes: string[] = [];
  const usedBytes: number[] = [];
  for (const [turn, prompt] of promptsFor(seed).entries()) {
    answers.push(await chat.say(prompt, SHORT_TURNS[turn]?.[1] ?? 0));
    await decoder.suspend(chat.cache);
    usedBytes.push(level.stats().heldBytes);
    if (turn % 2 === 0) continue;
    for (const id of chat.cache.ids) outcomes.push(await memory.swapOut(id));
  }
  const stats = decoder.stats();
  chat.cache.free();
  return { expected, answers, outcomes, usedBytes, stats, problems: await closeSetting(setting) };
}

/** More chats than the device has room for. */
export async function crowd(familyIndex: number, chatCount: number) {
  const family = FAMILIES[familyIndex] as Family;
  // Both parts of both layers of a chat of 96 tokens: room for two and a half.
  const budget = Math.floor(2.5 * 4 * family.kvHeads * 16 * 4 * 96);
  const setting = await openSetting(family, 1, { budget, checkTokens: 0 });
  const { gpu, memory, level, decoder } = setting;
  gpu.heapPeakBytes();
  const expected = await bareAnswers(family, 1, setting.gpu.device);
  const chats = Array.from(
    { length: chatCount },
    (_, index) => new GpuChat(decoder, decoder.createCache({ id: `chat/${index}` })),
  );
  const all = await Promise.all(chats.map((chat) => answersOf(chat, 1, SHORT_TURNS)));
  const stats = { ...decoder.stats(), peakBytes: gpu.heapPeakBytes() };
  for (const { cache } of chats) cache.free();
  // Those without an id cannot leave.
  const staying = [1, 2, 3, 4].map(() => decoder.createCache());
  const long = Array.from({ length: 90 }, (_, index) => index);
  let refusal = "";
  let refusedTokens = -1;
  for (const cache of staying) {
    if (refusal !== "") break;
    refusal = await decoder.step(cache, long).then(() => "", codeOf);
    refusedTokens = cache.tokenCount;
  }
  // The budget is one for tensors and for KV: neither gets what the other holds, tensors leave for KV.
  memory.allocate({ kind: "PARAMETERS", id: "w", byteLength: Math.floor(budget * 0.7) });
  const besideKv = await refusalOf(() => level.acquire("w"));
  for (const cache of staying) cache.free();
  (await level.acquire("w"))?.[Symbol.dispose]();
  const before = level.stats().evictedCount;
  const last = decoder.createCache();
  await decoder.step(last, long);
  const leftFor = level.stats().evictedCount - before;
  last.free();
  const one = { besideKv, leftFor, refusal, refusedTokens, heldBytes: level.stats().heldBytes };
  return { expected, all, stats, budget, one, problems: await closeSetting(setting) };
}

function codeOf(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: string };
  return typeof code === "string" ? code : `untyped: ${message}`;
}

/** The code with which something is refused. */
function refusalOf(act: () => unknown): Promise<string> {
  return new Promise((resolve) => resolve(act())).then(() => "accepted", codeOf);
}

/** What a pool refuses, and how. */
export async function poolRefusals() {
  const { device } = await openDevice();
  const pool = new GpuBufferPool({ device, budget: 2 ** 20 });
  const found: Record<string, unknown> = {};
  const buffers = [await pool.acquire(400_000), await pool.acquire(400_000)];
  found["over the budget"] = await refusalOf(() => pool.acquire(400_000));
  pool.trim();
  found["in use stay"] = pool.stats().bufferCount;
  for (const buffer of buffers) pool.release(buffer);
  for (const buffer of buffers) pool.release(buffer);
  found["free ones are used again"] = buffers.includes(await pool.acquire(400_001));
  found["free ones make room"] = (await pool.acquire(550_000)).size;
  found["as few as do"] = pool.stats().destroyedCount;
  const wide = new GpuBufferPool({ device, budget: 2 ** 40 });
  found["longer than the device binds"] = await refusalOf(() => wide.acquire(2 ** 33));
  found["no number of bytes"] = await refusalOf(() => wide.acquire(-1));
  // The adapter in software has no such block, though it says that it could.
  found["the device has none"] = await refusalOf(() => wide.acquire(2 ** 30));
  found["charged after that"] = wide.stats().usedBytes + wide.stats().freeBytes;
  pool.trim();
  return found;
}

/** [what is done, code of the refusal] */
export async function misuses(familyIndex: number) {
  const family = FAMILIES[familyIndex] as Family;
  const setting = await openSetting(family, 1, { checkTokens: 0 });
  const { memory, decoder, gpu } = setting;
  const ort = await loadRuntime();
  const twin = { ort, memory, checkTokens: 0, sessionOptions: OPTIONS };
  const other = await openOrtGpuDecoder({ ...twin, model: family.build(2) });
  const elsewhere = await openGpuMemory(gpu.device, 2 ** 22);
  const far = await openOrtGpuDecoder({
    ...{ ...twin, memory: elsewhere.memory, model: family.build(1) },
  });
  const chat = new GpuChat(decoder, decoder.createCache({ id: "chat" }));
  const nameless = decoder.createCache();
  const expected = await bareAnswers(family, 1, gpu.device);
  const [prompt] = promptsFor(1) as [number[]];
  await chat.say(prompt, 4);
  const { cache, tokens } = chat;
  const changed = tokens.with(5, ((tokens[5] as number) + 1) % 256);
  const rows: [string, string][] = [];
  const row = async (name: string, act: () => unknown) => {
    rows.push([name, await refusalOf(act)]);
  };
  const underWay = decoder.step(cache, tokens.slice());
  await row("step under a step", () => decoder.step(cache, tokens));
  await row("free under a step", () => cache.free());
  await row("truncate under a step", () => cache.truncate(1));
  await row("suspend under a step", () => decoder.suspend(cache));
  await row("save under a step", () => decoder.save(cache));
  tokens.push(greedyToken((await underWay).logits));
  await row("step with changed tokens", () => decoder.step(cache, changed));
  await row("step with fewer tokens", () => decoder.step(cache, tokens.slice(0, 9)));
  await row("step with nothing new", () => decoder.step(cache, tokens.slice(0, -1)));
  await row("step with no token", () => decoder.step(cache, [...tokens, 256]));
  await row("another model's step", () => other.step(cache, tokens));
  await row("another memory's step", () => far.step(cache, tokens));
  await row("another model's suspend", () => other.suspend(cache));
  await row("suspend without an id", () => decoder.suspend(nameless));
  await row("truncate to too many", () => cache.truncate(10_000));
  await decoder.suspend(cache);
  await row("another model's open", () => other.openCache({ id: "chat" }));
  const held = [...changed.slice(0, -1), 0];
  await row("open with changed tokens", () => decoder.openCache({ id: "chat", tokens: held }));
  await row("open with fewer tokens", () => decoder.openCache({ id: "chat", tokens: [1] }));
  {
    using pin = memory.tensor("chat/0.key")?.pin();
    pin?.bytes.fill(1);
  }
  await row("step over a copy that was written", () => decoder.step(cache, tokens));
  cache.free();
  await row("free twice", () => cache.free());
  await row("step of what was freed", () => decoder.step(cache, tokens));
  // What was refused left no trace.
  const after = new GpuChat(decoder);
  const answers = [await after.say(prompt, SHORT_TURNS[0][1])];
  after.cache.free();
  nameless.free();
  await other.close();
  await far.close();
  await elsewhere.memory.close();
  await decoder.close();
  await row("step of a closed decoder", () => decoder.step(nameless, [1]));
  const saidBefore = tokens.slice(prompt.length);
  return { rows, answers, saidBefore, expected, problems: await closeSetting(setting) };
}

const LOST = { id: "chat", seed: 3 };

async function openLost(familyIndex: number) {
  const family = FAMILIES[familyIndex] as Family;
  const directory = `lost-${familyIndex}`;
  const setting = await openSetting(family, LOST.seed, { directory, checkTokens: 0 });
  const expected = await bareAnswers(family, LOST.seed, setting.gpu.device);
  return { family, setting, expected, prompts: promptsFor(LOST.seed) as FourTurns };
}

type FourTurns = [number[], number[], number[], number[]];

/** Goes on over the copy in the heap, on another device of the same page. */
async function goOnAnew(
  family: Family,
  { memory }: Setting,
  tokens: readonly number[],
  [third, last]: readonly [number[], number[]],
): Promise<number[][]> {
  const ort = await loadRuntime();
  const options = { ort, memory, checkTokens: 0, sessionOptions: OPTIONS };
  const decoder = await openOrtGpuDecoder({ ...options, model: family.build(LOST.seed) });
  const cache = await decoder.openCache({ id: LOST.id, tokens: tokens.slice(0, -1) });
  if (cache === null) throw new Error("the copy is gone");
  const chat = new GpuChat(decoder, cache, tokens.slice());
  const answers = [
    await chat.say(third, SHORT_TURNS[2][1]),
    await chat.say(last, SHORT_TURNS[3][1]),
  ];
  await decoder.close();
  return answers;
}

/** Saves a chat, goes on, and loses the device. What was saved is continued without a GPU. */
export async function loseDevice(familyIndex: number) {
  const { family, setting, expected, prompts } = await openLost(familyIndex);
  const { gpu, memory, decoder } = setting;
  const buffers = await setting.level.buffers();
  const [first, second, third, last] = prompts;
  const chat = new GpuChat(decoder, decoder.createCache({ id: LOST.id }));
  const answers = [await chat.say(first, SHORT_TURNS[0][1])];
  answers.push(await chat.say(second, SHORT_TURNS[1][1]));
  const outcome = await decoder.save(chat.cache);
  const tokens = chat.tokens.slice();
  await chat.say(third, 2);
  const pending = refusalOf(() => decoder.step(chat.cache, chat.tokens));
  (gpu.device as unknown as GPUDevice).destroy();
  const refusals = [await pending];
  const row = async (act: () => unknown) => {
    refusals.push(await refusalOf(act));
  };
  await row(() => decoder.step(chat.cache, chat.tokens));
  await row(() => decoder.suspend(chat.cache));
  await row(() => decoder.createCache());
  await row(() => decoder.openCache({ id: LOST.id }));
  await row(() => buffers.acquire(1));
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.wasmPaths = RUNTIME_FILES;
  ort.env.wasm.numThreads = 1;
  const sessionOptions = { ...OPTIONS, executionProviders: ["wasm"] };
  const model = family.build(LOST.seed);
  const onCpu = await openOrtDecoder({ ort, memory, model, sessionOptions, pageTokens: 16 });
  const cache = await onCpu.openCache({ id: LOST.id });
  if (cache === null) throw new Error("the copy is gone");
  const again = await goOnAnew(family, setting, tokens, [third, last]);
  for (const [turn, prompt] of [third, last].entries()) {
    tokens.push(...prompt);
    const from = tokens.length;
    while (tokens.length < from + (SHORT_TURNS[turn + 2]?.[1] ?? 0)) {
      tokens.push(greedyOnCpu((await onCpu.step(cache, tokens)).logits));
    }
    answers.push(tokens.slice(from));
  }
  await onCpu.close();
  return { expected, answers, outcome, refusals, again, problems: await closeSetting(setting) };
}

/** In another page, on another device: the chat that the first one saved goes on there. */
export async function goOnAfterLoss(familyIndex: number) {
  const { setting, expected, prompts } = await openLost(familyIndex);
  const cache = await setting.decoder.openCache({ id: LOST.id });
  if (cache === null) throw new Error("the saved chat is gone");
  const chat = new GpuChat(setting.decoder, cache);
  const restoredTokens = chat.tokens.length;
  // The last token of an answer is not in the cache.
  chat.tokens.push(expected[1]?.at(-1) as number);
  const answers = [
    await chat.say(prompts[2], SHORT_TURNS[2][1]),
    await chat.say(prompts[3], SHORT_TURNS[3][1]),
  ];
  const stats = setting.decoder.stats();
  cache.free();
  return { expected, answers, restoredTokens, stats, problems: await closeSetting(setting) };
}
