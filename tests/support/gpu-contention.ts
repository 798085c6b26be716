// Several who want the same room on a GPU, and parts of one buffer.
import type { DeviceTierFactory } from "../../src/webgpu.js";
import { webgpuTier } from "../../src/webgpu.js";
import {
  allocate,
  codeOf,
  countBuffers,
  fillByQueue,
  type GpuEnvironment,
  isEqual,
  KIB,
  runAdd,
  words,
} from "./gpu-environment.js";

/** Several callers, each with tensors of its own, want the room of a single buffer. */
export async function contend(environment: GpuEnvironment) {
  const device = await environment.openDevice();
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "8KiB" },
    gpu: webgpuTier({ device }),
  });
  const callerCount = 4;
  const outcomes: Record<string, number> = {};
  const run = async (caller: number) => {
    const id = `t${caller}`;
    for (let use = 0; use < 30; use++) {
      const access = (["overwrite", "read", "overwrite", "write"] as const)[use % 4] ?? "read";
      const code = await codeOf(async () => {
        using lease = await memory.gpu?.acquire(id, { access });
        if (lease != null && access === "overwrite") fillByQueue(lease, words(2000, caller));
      });
      outcomes[code] = (outcomes[code] ?? 0) + 1;
      for (let turn = 0; turn < 5; turn++) await environment.settle();
    }
  };
  for (let caller = 0; caller < callerCount; caller++) allocate(memory, `t${caller}`, 2000, caller);
  await Promise.all(Array.from({ length: callerCount }, (_, caller) => run(caller)));
  const wrong: number[] = [];
  for (let caller = 0; caller < callerCount; caller++) {
    if (!(await isEqual(memory, `t${caller}`, words(2000, caller)))) wrong.push(caller);
  }
  const { problems } = memory.verify();
  const { createdCount } = memory.gpu?.stats() ?? {};
  await environment.closeMemory(memory);
  device.destroy();
  return { outcomes, wrong, problems, createdCount };
}

/** More uploads than callers that are served in turn ever need. */
const UPLOADS_MAX = 40;

/**
 * Two callers want the room of one buffer, and the second looks for it when what has come up for the first is not
 * lent yet: by a tier that takes several turns to end a writer.
 */
export async function meetInOneBuffer(environment: GpuEnvironment) {
  const device = await environment.openDevice();
  const create = webgpuTier({ device });
  const told: string[] = [];
  let uploadCount = 0;
  const use = async (id: string) => {
    const code = await codeOf(async () => {
      (await memory.gpu?.acquire(id))?.[Symbol.dispose]();
    });
    told.push(`${id}: ${code}`);
  };
  const others: Promise<void>[] = [];
  const gpu: DeviceTierFactory = (parts) => {
    const tier = create(parts);
    const begin = tier.begin.bind(tier);
    tier.begin = async (key, byteLength) => {
      const writer = await begin(key, byteLength);
      if (writer === "no-space") return writer;
      uploadCount += 1;
      if (uploadCount > UPLOADS_MAX) {
        await writer.abort();
        throw new Error("the callers take each other's room for ever");
      }
      const abort = async () => {
        if (others.length === 0) others.push(use("b"));
        for (let turn = 0; turn < 20; turn++) await environment.settle();
        await writer.abort();
      };
      return { ...writer, abort };
    };
    return tier;
  };
  const memory = await environment.openMemory({ budgets: { ram: "16MiB", gpu: "8KiB" }, gpu });
  allocate(memory, "a", 2000, 1);
  allocate(memory, "b", 2000, 2);
  await use("a");
  await Promise.all(others);
  // Leases are not waited for: it may have come too early.
  await use("b");
  const { problems } = memory.verify();
  await environment.closeMemory(memory);
  device.destroy();
  return { first: told[0], last: told.at(-1), uploadCount, problems };
}

/** Parts of one buffer, worked on by a kernel. */
export async function arenas(environment: GpuEnvironment) {
  const device = await environment.openDevice();
  const made = countBuffers(device);
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "1MiB" },
    gpu: webgpuTier({ device }),
  });
  allocate(memory, "t", 128 * KIB, 1);
  (await memory.gpu?.acquire("t"))?.[Symbol.dispose]();
  // The tensor leaves for it.
  const arena = await memory.gpu?.arena({ bytes: 768 * KIB });
  if (arena === undefined) throw new Error("there is no GPU");
  const before = made.count;
  const blocks = Array.from({ length: 40 }, (_, index) => arena.tryAllocate(1000 + 100 * index));
  const offsets = new Set(blocks.map((block) => block?.offset));
  const isAligned = blocks.every((block) => block !== null && block.offset % 256 === 0);
  for (const [index, block] of blocks.entries()) {
    if (block === null) continue;
    const buffer = block.buffer as unknown as GPUBuffer;
    const { offset, size } = block;
    device.queue.writeBuffer(buffer, offset, words(size / 4, index));
    runAdd(device, buffer, size / 4, { offset, summand: index });
  }
  const staging = device.createBuffer({ size: arena.byteLength, usage: 1 | 8 });
  const encoder = device.createCommandEncoder();
  const source = arena.buffer as unknown as GPUBuffer;
  encoder.copyBufferToBuffer(source, 0, staging, 0, arena.byteLength);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(1);
  const mapped = staging.getMappedRange();
  const wrong = blocks.filter((block, index) => {
    if (block === null) return true;
    const own = new Uint32Array(mapped, block.offset, block.size / 4);
    const expected = words(block.size / 4, index, index);
    return !own.every((word, at) => word === expected[at]);
  });
  staging.destroy();
  const bufferCount = made.count - before;
  const isRefused = arena.tryAllocate(768 * KIB) === null;
  const first = blocks[0];
  for (const block of blocks) block?.free();
  const twice = await codeOf(() => first?.free());
  const { liveCount } = arena.stats();
  const tooLong = await codeOf(() => memory.gpu?.arena({ bytes: 512 * KIB }));
  arena.destroy();
  arena.destroy();
  const destroyed = await codeOf(() => arena.tryAllocate(16));
  const after = await codeOf(() => memory.gpu?.arena({ bytes: 1024 * KIB }));
  const isBack = await isEqual(memory, "t", words(128 * KIB, 1));
  await environment.closeMemory(memory);
  device.destroy();
  const refusals = { isRefused, twice, tooLong, destroyed, after };
  return {
    distinct: offsets.size,
    isAligned,
    wrong: wrong.length,
    bufferCount,
    liveCount,
    isBack,
    refusals,
  };
}
