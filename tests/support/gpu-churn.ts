// Callers at random on a GPU, RAM and SSD while devices are lost, against what they wrote.
import { seededRandom } from "../../src/random.js";
import { webgpuTier } from "../../src/webgpu.js";
import {
  allocate,
  codeOf,
  fillByQueue,
  type GpuEnvironment,
  isEqual,
  kernelOf,
  runAdd,
  words,
} from "./gpu-environment.js";

/** What a tensor of {@link churn} must hold. */
interface Expected {
  readonly wordCount: number;
  seed: number;
  summand: number;
  /** Since it was last seen in RAM or written to a tier, the GPU has written it. */
  mayBeLost: boolean;
}

const FOUND_BY_CALLERS = ["out-of-memory", "device-lost"];

/**
 * Several callers use tensors of their own at random, all in the same small room, while devices are lost. Whatever
 * was not lost with a device must be equal; what was must have been written there last.
 */
export async function churn(
  environment: GpuEnvironment,
  seed: number,
  { callerCount = 5, operationCount = 200, lossCount = 4 } = {},
) {
  let device: GPUDevice | null = null;
  const create = async () => {
    device = await environment.openDevice();
    return device;
  };
  const memory = await environment.openMemory({
    budgets: { ram: "8MiB", gpu: "1MiB" },
    codecs: { default: "raw" },
    gpu: webgpuTier({ create }),
  });
  const random = seededRandom(seed);
  const below = (limit: number) => random.uint32() % limit;
  const outcomes: Record<string, number> = {};
  const wrong: string[] = [];
  const note = (outcome: string) => {
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  };
  let isOver = false;

  const check = async (id: string, expected: Expected) => {
    const { wordCount, summand } = expected;
    const isRight = await isEqual(memory, id, words(wordCount, expected.seed, summand));
    expected.mayBeLost = false;
    if (!isRight) wrong.push(`${id}: wrong bytes after ${JSON.stringify(outcomes)}`);
  };
  const operate = async (id: string, expected: Expected) => {
    const pick = below(13);
    if (pick === 12) {
      using lease = await memory.gpu?.acquire(id, { access: "overwrite" });
      if (lease == null) throw new Error(`${id} is missing`);
      expected.mayBeLost = true;
      expected.seed = random.uint32();
      expected.summand = 0;
      fillByQueue(lease, words(expected.wordCount, expected.seed));
      return "overwrite on the GPU";
    }
    if (pick < 4) {
      using lease = await memory.gpu?.acquire(id, { access: "write" });
      if (lease == null) throw new Error(`${id} is missing`);
      expected.mayBeLost = true;
      expected.summand += 3;
      const { device: own, buffer } = kernelOf(lease);
      runAdd(own, buffer, expected.wordCount, { summand: 3 });
      if (below(3) === 0) await environment.settle();
      return "write on the GPU";
    }
    if (pick < 6) {
      using lease = await memory.gpu?.acquire(id);
      if (lease == null) throw new Error(`${id} is missing`);
      if (below(3) === 0) await environment.settle();
      return "read on the GPU";
    }
    if (pick < 8) {
      await check(id, expected);
      return "read in RAM";
    }
    if (pick === 8) {
      using pin = await memory.acquire<"u32">(id);
      expected.seed = random.uint32();
      expected.summand = 0;
      pin?.view.set(words(expected.wordCount, expected.seed));
      expected.mayBeLost = false;
      return "write in RAM";
    }
    if (pick === 9) return `swapped out: ${await memory.swapOut(id)}`;
    if (pick === 10) return `saved: ${await memory.save(id)}`;
    return `demoted: ${await memory.gpu?.demote(id)}`;
  };
  const run = async (caller: number) => {
    const tensors = new Map<string, Expected>();
    for (let count = 0; count < operationCount; count++) {
      const id = `${caller}/${below(6)}`;
      try {
        let expected = tensors.get(id);
        if (expected === undefined) {
          const wordCount = [5_000, 12_000, 30_000][below(3)] as number;
          expected = { wordCount, seed: random.uint32(), summand: 0, mayBeLost: false };
          await memory.delete(id);
          await memory.reserve({ kind: "PARAMETERS", bytes: wordCount * 4 });
          allocate(memory, id, wordCount, expected.seed);
          tensors.set(id, expected);
        }
        note(await operate(id, expected));
        if (below(20) === 0) {
          memory.free(id);
          tensors.delete(id);
        }
      } catch (error) {
        const { code = String(error) } = error as { code?: string };
        note(code);
        if (!FOUND_BY_CALLERS.includes(code)) wrong.push(`${id}: ${code}`);
        if (code !== "device-lost") continue;
        const expected = tensors.get(id);
        if (expected === undefined) continue;
        const mayBeLost = expected.mayBeLost;
        const now = await codeOf(() => check(id, expected));
        if (now !== "device-lost") continue;
        note("lost");
        if (!mayBeLost) wrong.push(`${id}: lost, although RAM or a tier had it`);
        memory.free(id);
        await memory.delete(id);
        tensors.delete(id);
      }
    }
    return tensors;
  };
  const lose = async () => {
    for (let loss = 0; loss < lossCount && !isOver; loss++) {
      for (let turn = 0; turn < 40 + below(200) && !isOver; turn++) await environment.settle();
      device?.destroy();
      await device?.lost;
    }
  };
  const losing = lose();
  const callers = await Promise.all(Array.from({ length: callerCount }, (_, index) => run(index)));
  isOver = true;
  await losing;
  await environment.settle();
  for (const tensors of callers) {
    for (const [id, expected] of tensors) {
      const code = await codeOf(() => check(id, expected));
      if (code === "no error: undefined") continue;
      if (code !== "device-lost" || !expected.mayBeLost) wrong.push(`${id}: ${code} at the end`);
    }
    for (const id of tensors.keys()) memory.free(id);
  }
  const stats = memory.gpu?.stats();
  const { problems } = memory.verify();
  await environment.closeMemory(memory);
  (device as GPUDevice | null)?.destroy();
  return { wrong, outcomes, problems, stats };
}
