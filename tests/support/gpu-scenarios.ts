// What a memory with a GPU level is put through, on whatever device there is: the same in Node and in a page.
// Each scenario says what it saw; the tests say what that must be.
import { seededRandom } from "../../src/random.js";
import { type TierFixture, tierConformance } from "../../src/testing/index.js";
import { webgpuTier } from "../../src/webgpu.js";
import { foretell, heldBuffers, shareAnswers } from "./gpu-ahead.js";
import { churn } from "./gpu-churn.js";
import { arenas, contend, meetInOneBuffer } from "./gpu-contention.js";
import {
  addOnGpu,
  allocate,
  codeOf,
  countBuffers,
  fillByQueue,
  type GpuEnvironment,
  isEqual,
  KIB,
  kernelOf,
  runAdd,
  systemParts,
  words,
} from "./gpu-environment.js";
import { fromAdapter, misuses } from "./gpu-opening.js";

/** Many tensors of few size classes go through room for half of them, read and written. */
async function steadyState(environment: GpuEnvironment, seed: number) {
  const device = await environment.openDevice();
  const made = countBuffers(device);
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "1MiB" },
    gpu: webgpuTier({ device }),
  });
  const random = seededRandom(seed);
  const lengths = [8 * KIB, 20 * KIB, 33 * KIB];
  const added = new Map<string, number>();
  for (let index = 0; index < 36; index++) {
    allocate(memory, `t${index}`, lengths[index % lengths.length] as number, index);
    added.set(`t${index}`, 0);
  }
  const createdBy: number[] = [];
  for (let round = 0; round < 6; round++) {
    for (let use = 0; use < 72; use++) {
      // The first rounds see to it that every class has had its peak.
      const id = `t${round < 2 ? use % 36 : random.uint32() % 36}`;
      if (random.uint32() % 3 === 0) {
        await addOnGpu(memory, id, 7);
        added.set(id, (added.get(id) ?? 0) + 7);
      } else {
        (await memory.gpu?.acquire(id))?.[Symbol.dispose]();
      }
    }
    createdBy.push(made.count);
  }
  const wrong: string[] = [];
  for (const [id, summand] of added) {
    const index = Number(id.slice(1));
    const expected = words(lengths[index % lengths.length] as number, index, summand);
    if (!(await isEqual(memory, id, expected))) wrong.push(id);
  }
  const stats = memory.gpu?.stats();
  const levels = memory.stats().tiers.map(({ name }) => name);
  await environment.closeMemory(memory);
  const usedAfterClose = countValid(device);
  device.destroy();
  return { createdBy, wrong, stats, levels, usedAfterClose };
}

/** The device is still the caller's. */
function countValid(device: GPUDevice): number {
  const buffer = device.createBuffer({ size: 16, usage: 8 });
  buffer.destroy();
  return buffer.size;
}

/** What the GPU has written goes down to RAM, to the SSD and to a saved record, and comes up again. */
async function writeBack(environment: GpuEnvironment) {
  const device = await environment.openDevice();
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "1MiB" },
    gpu: webgpuTier({ device }),
  });
  const found: Record<string, unknown> = {};
  allocate(memory, "a", 1000, 1);
  await addOnGpu(memory, "a", 1);
  found["its block is given up"] = memory.tensor("a")?.isResident;
  found["in RAM"] = await isEqual(memory, "a", words(1000, 1, 1));
  const { uploadCount = 0 } = memory.gpu?.stats() ?? {};
  await addOnGpu(memory, "a", 1);
  found["uploads for the second write"] = (memory.gpu?.stats().uploadCount ?? 0) - uploadCount;
  found["swapped out"] = await memory.swapOut("a");
  found["from the SSD"] = await isEqual(memory, "a", words(1000, 1, 2));
  await addOnGpu(memory, "a", 1);
  found["saved"] = await memory.save("a");
  memory.free("a");
  found["from the saved record"] = await isEqual(memory, "a", words(1000, 1, 3));
  await addOnGpu(memory, "a", 1);
  found["demoted"] = await memory.gpu?.demote("a");
  found["demoted again"] = await memory.gpu?.demote("a");
  found["after that"] = await isEqual(memory, "a", words(1000, 1, 4));
  // A write in RAM makes the GPU's copy stale.
  (await memory.gpu?.acquire("a"))?.[Symbol.dispose]();
  {
    using pin = await memory.acquire<"u32">("a");
    pin?.view.set(words(1000, 9));
  }
  await addOnGpu(memory, "a", 1);
  found["after a write in RAM"] = await isEqual(memory, "a", words(1000, 9, 1));
  // Two that share their bytes; one is written.
  const bytes = new Uint8Array(words(1000, 5).buffer);
  await memory.intern({ kind: "PARAMETERS", id: "b", shape: [1000], dtype: "u32", bytes });
  await memory.tie("c", "b");
  (await memory.gpu?.acquire("b"))?.[Symbol.dispose]();
  await addOnGpu(memory, "c", 1);
  found["the other one"] = await isEqual(memory, "b", words(1000, 5));
  found["the one that was written"] = await isEqual(memory, "c", words(1000, 5, 1));
  // Lengths that are no whole words.
  const odd = memory.allocate({ kind: "PARAMETERS", id: "odd", byteLength: 4 * 2 ** 17 + 3 });
  {
    using pin = odd.pin();
    pin.bytes.fill(201);
  }
  {
    using lease = await memory.gpu?.acquire("odd", { access: "write" });
    found["odd bytes"] = lease?.byteLength;
  }
  {
    using pin = await memory.acquire("odd", { access: "read" });
    found["odd"] = pin?.bytes.every((byte) => byte === 201);
  }
  // Results: what was there before is neither loaded nor uploaded.
  await memory.swapOut("a");
  await memory.gpu?.demote("a");
  const uploads = memory.gpu?.stats().uploadCount;
  for (const [name, seed] of [
    ["cold", 21],
    ["on the GPU", 22],
  ] as const) {
    {
      using lease = await memory.gpu?.acquire("a", { access: "overwrite" });
      if (lease != null) fillByQueue(lease, words(1000, seed));
    }
    found[`overwritten, ${name}`] = await isEqual(memory, "a", words(1000, seed));
  }
  found["uploads for results"] = (memory.gpu?.stats().uploadCount ?? 0) - (uploads ?? 0);
  found["unknown"] = await memory.gpu?.acquire("nowhere");
  found["problems"] = memory.verify().problems;
  const { createdCount } = memory.gpu?.stats() ?? {};
  await environment.closeMemory(memory);
  device.destroy();
  return { found, createdCount };
}

/** Tensors of which only the GPU has the newest bytes, more than RAM and GPU hold together. */
async function pressure(environment: GpuEnvironment) {
  const device = await environment.openDevice();
  const memory = await environment.openMemory({
    budgets: { ram: "8MiB", gpu: "4MiB" },
    codecs: { default: "raw" },
    gpu: webgpuTier({ device }),
  });
  const wordCount = 128 * KIB;
  for (let index = 0; index < 24; index++) {
    await memory.reserve({ kind: "PARAMETERS", bytes: wordCount * 4 });
    allocate(memory, `t${index}`, wordCount, index);
    await addOnGpu(memory, `t${index}`, 1);
  }
  const { demotedCount } = memory.gpu?.stats() ?? {};
  const wrong: number[] = [];
  for (let index = 0; index < 24; index++) {
    if (!(await isEqual(memory, `t${index}`, words(wordCount, index, 1)))) wrong.push(index);
  }
  const { budget, transfers, tiers } = memory.stats();
  const isInBudget = budget.usedBytesPeak <= budget.limitBytes;
  const peak = tiers[0]?.physicalBytes;
  await environment.closeMemory(memory);
  device.destroy();
  return { wrong, demotedCount, isInBudget, peak, swapOutCount: transfers.swapOutCount };
}

/** One device after the other is lost. */
async function loseDevices(environment: GpuEnvironment, count: number) {
  let device = await environment.openDevice();
  let opened = 0;
  const create = async () => {
    opened += 1;
    if (opened > 1) device = await environment.openDevice();
    return device;
  };
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "1MiB" },
    gpu: webgpuTier({ create }),
  });
  const events: { lostCount: number; keptCount: number }[] = [];
  const listening = (async () => {
    for await (const event of memory.events()) {
      if (event.type === "device-lost") events.push(event);
    }
  })();
  allocate(memory, "warm", 1000, 1);
  allocate(memory, "cold", 1000, 2);
  const wrong: string[] = [];
  const refusals = new Map<string, number>();
  for (let loss = 0; loss < count; loss++) {
    allocate(memory, "only", 1000, 3);
    await addOnGpu(memory, "only", 1);
    (await memory.gpu?.acquire("warm"))?.[Symbol.dispose]();
    await memory.swapOut("cold");
    (await memory.gpu?.acquire("cold"))?.[Symbol.dispose]();
    await memory.swapOut("warm");
    const open = await memory.gpu?.acquire("cold");
    device.destroy();
    await device.lost;
    await environment.settle();
    open?.[Symbol.dispose]();
    const told = [
      await codeOf(() => memory.acquire("only")),
      await codeOf(() => memory.gpu?.acquire("only")),
      await codeOf(() => memory.save("only")),
      await codeOf(() => memory.swapOut("only")),
    ];
    for (const code of told) refusals.set(code, (refusals.get(code) ?? 0) + 1);
    memory.free("only");
    for (const [id, seed] of [
      ["warm", 1],
      ["cold", 2],
    ] as const) {
      using lease = await memory.gpu?.acquire(id);
      if (lease == null) wrong.push(`${loss}: ${id} is missing`);
      if (!(await isEqual(memory, id, words(1000, seed)))) wrong.push(`${loss}: ${id}`);
    }
  }
  const stats = memory.gpu?.stats();
  const { problems } = memory.verify();
  await environment.closeMemory(memory);
  await listening;
  device.destroy();
  const lostCount = events.reduce((sum, event) => sum + event.lostCount, 0);
  const refused = Object.fromEntries(refusals);
  return { wrong, refused, stats, problems, eventCount: events.length, lostCount, opened };
}

/**
 * Tensors of which RAM, the SSD or only the GPU has the newest bytes; then somebody ends the GPU's process.
 *
 * @returns Says what is left of them, once that has happened.
 */
export async function beforeCrash(environment: GpuEnvironment) {
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "4MiB" },
    gpu: webgpuTier({ create: () => environment.openDevice() }),
  });
  const lost = (async () => {
    for await (const event of memory.events()) if (event.type === "device-lost") return event;
    return null;
  })();
  const count = 8;
  for (let index = 0; index < count; index++) {
    allocate(memory, `ram/${index}`, 10 * KIB, index);
    allocate(memory, `ssd/${index}`, 10 * KIB, 100 + index);
    allocate(memory, `only/${index}`, 10 * KIB, 200 + index);
    (await memory.gpu?.acquire(`ram/${index}`))?.[Symbol.dispose]();
    (await memory.gpu?.acquire(`ssd/${index}`))?.[Symbol.dispose]();
    await memory.swapOut(`ssd/${index}`);
    await addOnGpu(memory, `only/${index}`, 1);
  }
  return async () => {
    const event = await lost;
    const outcomes: Record<string, number> = {};
    const note = (outcome: string) => {
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    };
    for (let index = 0; index < count; index++) {
      note(await codeOf(() => memory.acquire(`only/${index}`)));
      note(await codeOf(() => memory.gpu?.acquire(`only/${index}`)));
      memory.free(`only/${index}`);
      for (const [id, seed] of [
        [`ram/${index}`, index],
        [`ssd/${index}`, 100 + index],
      ] as const) {
        const isOnGpu = await codeOf(async () => {
          using lease = await memory.gpu?.acquire(id, { access: "write" });
          if (lease == null) throw new Error("missing");
          const { device, buffer } = kernelOf(lease);
          runAdd(device, buffer, lease.byteLength / 4);
        });
        const isBack = isOnGpu.startsWith("no error");
        const expected = words(10 * KIB, seed, isBack ? 1 : 0);
        note((await isEqual(memory, id, expected)) ? `equal, ${isOnGpu}` : "damaged");
      }
    }
    const { problems } = memory.verify();
    const { lostCount, keptCount } = event ?? {};
    await environment.closeMemory(memory);
    return { outcomes, problems, lostCount, keptCount };
  };
}

/** A memory whose only device is lost goes on without it. */
async function loseOnlyDevice(environment: GpuEnvironment) {
  const device = await environment.openDevice();
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "1MiB" },
    gpu: webgpuTier({ device }),
  });
  allocate(memory, "kept", 1000, 1);
  allocate(memory, "lost", 1000, 2);
  (await memory.gpu?.acquire("kept"))?.[Symbol.dispose]();
  const writing = await memory.gpu?.acquire("lost", { access: "write" });
  const arena = await memory.gpu?.arena({ bytes: 4096 });
  device.destroy();
  await device.lost;
  await environment.settle();
  writing?.[Symbol.dispose]();
  const result = {
    kept: await isEqual(memory, "kept", words(1000, 1)),
    lost: await codeOf(() => memory.acquire("lost")),
    again: await codeOf(() => memory.gpu?.acquire("kept")),
    arena: await codeOf(() => arena?.tryAllocate(16)),
    device: memory.gpu?.device,
    problems: memory.verify().problems,
  };
  memory.free("lost");
  await environment.closeMemory(memory);
  return result;
}

/** The suite that every tier passes. */
export function gpuConformance(environment: () => GpuEnvironment) {
  const make = async ({ capacityBytes }: { capacityBytes: number }): Promise<TierFixture> => {
    const device = await environment().openDevice();
    const open = () => webgpuTier({ device })({ capacityBytes, ...systemParts });
    return {
      tier: open(),
      reopened: async () => open(),
      dispose: async () => device.destroy(),
    };
  };
  return tierConformance(make, {
    persistence: "what a GPU holds ends with its device",
    failures: "deletions of buffers cannot fail",
  });
}

/** The scenarios that every platform runs, with its environment. */
export function gpuRuns(environment: GpuEnvironment) {
  return {
    steadyState: (seed: number) => steadyState(environment, seed),
    writeBack: () => writeBack(environment),
    pressure: () => pressure(environment),
    loseDevices: (count: number) => loseDevices(environment, count),
    loseOnlyDevice: () => loseOnlyDevice(environment),
    arenas: () => arenas(environment),
    heldBuffers: () => heldBuffers(environment),
    foretell: () => foretell(environment),
    fromAdapter: () => fromAdapter(environment),
    shareAnswers: () => shareAnswers(environment),
    misuses: () => misuses(environment),
    contend: () => contend(environment),
    meetInOneBuffer: () => meetInOneBuffer(environment),
    churn: (seed: number) => churn(environment, seed),
  };
}

export type GpuRuns = ReturnType<typeof gpuRuns>;
