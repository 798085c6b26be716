// What a memory with a GPU level is put through, on whatever device there is: the same in Node and in a page.
// Each scenario says what it saw; the tests say what that must be.
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import { seededRandom } from "../../src/random.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { type TierFixture, tierConformance } from "../../src/testing/index.js";
import type { DeviceTierFactory, GpuBuffer, GpuLease } from "../../src/webgpu.js";
import { webgpuTier } from "../../src/webgpu.js";

export interface GpuEnvironment {
  /** An adapter that has given no device yet. */
  openAdapter(): Promise<GPUAdapter>;
  /** A new device, which nobody else has. */
  openDevice(): Promise<GPUDevice>;
  /** A memory with an empty SSD tier of 256 MiB. */
  openMemory(options: TensorMemoryOptions): Promise<TensorMemory>;
  closeMemory(memory: TensorMemory): Promise<void>;
  /** Waits until what has been set off is told of. */
  settle(): Promise<void>;
}

const KIB = 1024;
const systemParts = { clock: undefined as never, random: undefined as never };

/** The code of the error, or what came instead of one. */
export async function codeOf(work: () => unknown): Promise<string> {
  try {
    return `no error: ${typeof (await work())}`;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

/** Counts the buffers that are made on a device. */
function countBuffers(device: GPUDevice): { count: number } {
  const made = { count: 0 };
  const create = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    made.count += 1;
    return create(descriptor);
  };
  return made;
}

/** Adds `summand` to each of the first words of a buffer, from a byte offset on. */
export function runAdd(
  device: GPUDevice,
  buffer: GPUBuffer,
  wordCount: number,
  { summand = 1, offset = 0 } = {},
): void {
  const code = `
    @group(0) @binding(0) var<storage, read_write> words: array<u32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      if (id.x < ${wordCount}u) { words[id.x] += ${summand}u; }
    }`;
  const module = device.createShaderModule({ code });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
  const resource = { buffer, offset, size: wordCount * 4 };
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [{ binding: 0, resource }],
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(Math.ceil(wordCount / 64));
  pass.end();
  device.queue.submit([encoder.finish()]);
}

/** Writes all elements of a leased tensor. */
function fillByQueue(lease: GpuLease, elements: Uint32Array): void {
  const { device, buffer } = kernelOf(lease);
  device.queue.writeBuffer(buffer, 0, elements as Uint32Array<ArrayBuffer>);
}

const kernelOf = (lease: GpuLease) => ({
  device: lease.device as unknown as GPUDevice,
  buffer: lease.buffer as unknown as GPUBuffer,
});

/** Words that follow from a number, plus what has been added to them. */
function words(count: number, seed: number, summand = 0): Uint32Array {
  const random = seededRandom(seed);
  return Uint32Array.from({ length: count }, () => random.uint32() + summand);
}

function allocate(memory: TensorMemory, id: string, wordCount: number, seed: number): void {
  const tensor = memory.allocate({ kind: "PARAMETERS", id, shape: [wordCount], dtype: "u32" });
  using pin = tensor.pin();
  pin.view.set(words(wordCount, seed));
}

async function isEqual(memory: TensorMemory, id: string, expected: Uint32Array): Promise<boolean> {
  using lease = await memory.acquire<"u32">(id, { access: "read" });
  return lease?.view.every((word, index) => word === expected[index]) ?? false;
}

async function addOnGpu(memory: TensorMemory, id: string, summand: number): Promise<void> {
  using lease = await memory.gpu?.acquire(id, { access: "write" });
  if (lease == null) throw new Error(`${id} is not there`);
  const { device, buffer } = kernelOf(lease);
  runAdd(device, buffer, lease.byteLength / 4, { summand });
}

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

/** Several callers, each with tensors of its own, want the room of a single buffer. */
async function contend(environment: GpuEnvironment) {
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
async function meetInOneBuffer(environment: GpuEnvironment) {
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
async function arenas(environment: GpuEnvironment) {
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

/** Buffers for a runtime's own use, out of the budget of the tensors. */
async function heldBuffers(environment: GpuEnvironment) {
  let device = await environment.openDevice();
  const made = countBuffers(device);
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "1MiB" },
    gpu: webgpuTier({ create: async () => device }),
  });
  const gpu = memory.gpu;
  if (gpu === null) throw new Error("there is no GPU");
  const found: Record<string, unknown> = {};
  allocate(memory, "t", 128 * KIB, 1);
  await addOnGpu(memory, "t", 1);
  const buffers = await gpu.buffers();
  found["the same again"] = (await gpu.buffers()) === buffers;
  // The tensor leaves for them, and is read back.
  const held = [await buffers.acquire(256 * KIB), await buffers.acquire(500 * KIB)];
  found["tensors that left"] = gpu.stats().demotedCount;
  found["held"] = gpu.stats().heldBytes === held.reduce((sum, { size }) => sum + size, 0);
  const before = gpu.stats();
  found["over the budget"] = await codeOf(() => buffers.acquire(400 * KIB));
  found["longer than the budget"] = await codeOf(() => buffers.acquire(2 ** 21));
  found["no number of bytes"] = await codeOf(() => buffers.acquire(-1));
  found["changed by refusals"] = Object.entries(gpu.stats()).filter(
    ([name, value]) => typeof value === "number" && value !== before[name as keyof typeof before],
  );
  found["a tensor beside them"] = await codeOf(() => gpu.acquire("t"));
  const [first, second] = held as [GpuBuffer, GpuBuffer];
  const written = words(64 * KIB, 5);
  device.queue.writeBuffer(first as unknown as GPUBuffer, 0, written as Uint32Array<ArrayBuffer>);
  const part = new Uint8Array(40_000);
  await buffers.read(first, 4000, part);
  const seen = new Uint32Array(part.buffer);
  found["what is read"] = seen.every((word, index) => word === written[1000 + index]);
  found["refused inside a guard"] = await codeOf(() =>
    buffers.guard(async () => {
      device.queue.writeBuffer(second as unknown as GPUBuffer, 2 ** 30, new Uint8Array(4));
    }),
  );
  const count = made.count;
  for (let use = 0; use < 50; use++) {
    const other = await buffers.acquire(200 * KIB);
    buffers.release(other);
    buffers.release(other);
  }
  found["made for fifty uses of one class"] = made.count - count;
  for (const buffer of held) buffers.release(buffer);
  found["read what was given back"] = await codeOf(() => buffers.read(first, 0, part));
  found["held at last"] = gpu.stats().heldBytes;
  found["the tensor"] = await isEqual(memory, "t", words(128 * KIB, 1, 1));
  const lost = await buffers.acquire(1000);
  device.destroy();
  await device.lost;
  await environment.settle();
  device = await environment.openDevice();
  buffers.release(lost);
  found["after a loss"] = [
    await codeOf(() => buffers.acquire(1000)),
    await codeOf(() => buffers.guard(async () => {})),
    gpu.stats().heldBytes,
  ];
  const next = await gpu.buffers();
  found["on the next device"] = next !== buffers && (await next.acquire(1000)).size >= 1000;
  await environment.closeMemory(memory);
  found["after the close"] = await codeOf(() => next.acquire(1000));
  device.destroy();
  return found;
}

/** Tensors whose leases are foretold come from the SSD to the GPU; what became of each is counted. */
async function foretell(environment: GpuEnvironment) {
  let device = await environment.openDevice();
  const memory = await environment.openMemory({
    budgets: { ram: "8MiB", gpu: "1MiB" },
    codecs: { default: "raw" },
    gpu: webgpuTier({ create: async () => device }),
  });
  const gpu = memory.gpu;
  if (gpu === null) throw new Error("there is no GPU");
  const wordCount = 50 * KIB;
  // Room for four of the eight.
  const ids = Array.from({ length: 8 }, (_, index) => `t${index}`);
  for (const [index, id] of ids.entries()) {
    allocate(memory, id, wordCount, index);
    await memory.swapOut(id);
  }
  const found: Record<string, unknown> = {};
  const lease = async (id: string) => (await gpu.acquire(id))?.[Symbol.dispose]();
  const counts = () => {
    const { issuedCount, usedCount, lateCount, wastedCount, outstandingCount } =
      gpu.stats().prefetch;
    return [issuedCount, usedCount, lateCount, wastedCount, outstandingCount].join(" ");
  };
  await gpu.prefetch(ids.slice(0, 3));
  found["issued, used, late, wasted, outstanding"] = counts();
  const { uploadCount, hitCount } = gpu.stats();
  for (const id of ids.slice(0, 3)) await lease(id);
  found["uploads for what was foretold"] = gpu.stats().uploadCount - uploadCount;
  found["hits"] = gpu.stats().hitCount - hitCount;
  found["used"] = counts();
  const onItsWay = gpu.prefetch(["t3"]);
  await lease("t3");
  await onItsWay;
  found["late"] = counts();
  // Others push it out before it is wanted.
  await gpu.prefetch(["t4"]);
  for (const id of ["t0", "t1", "t2", "t3", "t5", "t6", "t7"]) await lease(id);
  await lease("t4");
  found["wasted by eviction"] = counts();
  // Written in RAM after it came: the copy is of no use.
  await gpu.prefetch(["t0"]);
  {
    using pin = await memory.acquire<"u32">("t0");
    pin?.view.set(words(wordCount, 100));
  }
  await gpu.prefetch(["t0"]);
  await lease("t0");
  found["wasted by a write, then used"] = counts();
  await gpu.prefetch(["nowhere"]);
  found["unknown"] = counts();
  await gpu.prefetch(["t1"], { signal: AbortSignal.abort() });
  found["aborted"] = counts();
  const all = await Promise.all(ids.slice(0, 4).map((id) => gpu.acquire(id)));
  await gpu.prefetch(["t5"]);
  found["no room beside leases"] = counts();
  for (const each of all) each?.[Symbol.dispose]();
  await gpu.prefetch(["t6"]);
  device.destroy();
  await device.lost;
  await environment.settle();
  device = await environment.openDevice();
  found["lost with the device"] = counts();
  await gpu.prefetch(ids.slice(0, 4));
  memory.free("t3");
  found["freed"] = counts();
  const { physicalBytes, capacityBytes, prefetch } = gpu.stats();
  found["in its budget"] = physicalBytes <= capacityBytes;
  const { issuedCount, usedCount, lateCount, wastedCount, outstandingCount } = prefetch;
  found["adds up"] = issuedCount === usedCount + lateCount + wastedCount + outstandingCount;
  found["t0"] = await isEqual(memory, "t0", words(wordCount, 100));
  found["t1"] = await isEqual(memory, "t1", words(wordCount, 1));
  found["misuse"] = [
    await codeOf(() => gpu.prefetch([7 as never])),
    await codeOf(() => gpu.prefetch(["t0"], { to: "gpu" } as never)),
  ];
  found["problems"] = memory.verify().problems;
  await environment.closeMemory(memory);
  found["closed"] = await codeOf(() => gpu.prefetch(["t0"]));
  device.destroy();
  return found;
}

/** Uploads that begin together share the scopes of their errors; a shortage is that of all of them. */
async function shareAnswers(environment: GpuEnvironment) {
  const device = await environment.openDevice();
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "1MiB" },
    gpu: webgpuTier({ device }),
  });
  const ids = Array.from({ length: 8 }, (_, index) => `t${index}`);
  for (const [index, id] of ids.entries()) allocate(memory, id, 4001, index);
  const lease = (id: string) =>
    codeOf(async () => {
      (await memory.gpu?.acquire(id))?.[Symbol.dispose]();
    });
  const leaseAll = () => Promise.all(ids.map(lease));
  await leaseAll();
  const writeAll = () => {
    // What a pin for writing has shown is stale on the device.
    for (const id of ids) memory.tensor(id)?.pin()[Symbol.dispose]();
  };
  writeAll();
  let pairCount = 0;
  let isShort = false;
  const push = device.pushErrorScope.bind(device);
  const pop = device.popErrorScope.bind(device);
  const filters: GPUErrorFilter[] = [];
  device.pushErrorScope = (filter) => {
    filters.push(filter);
    if (filter === "out-of-memory") pairCount += 1;
    push(filter);
  };
  device.popErrorScope = async () => {
    const filter = filters.pop();
    const error = await pop();
    if (!isShort || filter !== "out-of-memory") return error;
    return { message: "as if there were no memory" };
  };
  const found: Record<string, unknown> = {};
  const outcomes = async () => [...new Set(await leaseAll())];
  found["together"] = await outcomes();
  found["few answers"] = pairCount <= 2;
  writeAll();
  isShort = true;
  found["with no memory"] = await outcomes();
  found["leased after that"] = memory.gpu?.stats().leaseCount;
  isShort = false;
  found["with memory again"] = await outcomes();
  for (const id of ids) await addOnGpu(memory, id, 1);
  const wrong: string[] = [];
  for (const [index, id] of ids.entries()) {
    if (!(await isEqual(memory, id, words(4001, index, 1)))) wrong.push(id);
  }
  found["wrong"] = wrong;
  found["problems"] = memory.verify().problems;
  await environment.closeMemory(memory);
  device.destroy();
  return found;
}

/** A device is made from an adapter that the caller chose. */
async function fromAdapter(environment: GpuEnvironment) {
  const found: Record<string, unknown> = {};
  const adapter = await environment.openAdapter();
  const open = (gpu: DeviceTierFactory) =>
    environment.openMemory({ budgets: { ram: "16MiB", gpu: "1MiB" }, gpu });
  const own = await open(webgpuTier({ adapter }));
  allocate(own, "t", 1000, 1);
  await addOnGpu(own, "t", 1);
  found["equal"] = await isEqual(own, "t", words(1000, 1, 1));
  const device = own.gpu?.device as unknown as GPUDevice;
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  found["the adapter's limits"] =
    device.limits.maxBufferSize === maxBufferSize &&
    device.limits.maxStorageBufferBindingSize === maxStorageBufferBindingSize;
  await environment.closeMemory(own);
  found["after the close"] = (await device.lost).reason;
  let isThere = true;
  let asked = 0;
  const ask = async () => {
    asked += 1;
    return isThere ? environment.openAdapter() : null;
  };
  const memory = await open(webgpuTier({ adapter: ask }));
  allocate(memory, "t", 1000, 2);
  (await memory.gpu?.acquire("t"))?.[Symbol.dispose]();
  const lose = async () => {
    const last = memory.gpu?.device as unknown as GPUDevice;
    last.destroy();
    await last.lost;
    await environment.settle();
  };
  await lose();
  await addOnGpu(memory, "t", 3);
  found["after a loss"] = await isEqual(memory, "t", words(1000, 2, 3));
  await memory.gpu?.demote("t");
  await lose();
  isThere = false;
  found["without an adapter"] = await codeOf(() => memory.gpu?.acquire("t"));
  isThere = true;
  found["with one again"] = await codeOf(() => memory.gpu?.acquire("t"));
  found["asked"] = asked;
  await environment.closeMemory(memory);
  found["misuse"] = [
    await codeOf(() => webgpuTier({})),
    await codeOf(() => webgpuTier({ adapter, device })),
  ];
  return found;
}

/** What is refused, by its code. */
async function misuses(environment: GpuEnvironment) {
  const device = await environment.openDevice();
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "64KiB" },
    gpu: webgpuTier({ device }),
  });
  const gpu = memory.gpu;
  if (gpu === null) throw new Error("there is no GPU");
  allocate(memory, "a", 10 * KIB, 1);
  allocate(memory, "b", 10 * KIB, 2);
  allocate(memory, "long", 20 * KIB, 3);
  const rows: Record<string, string> = {};
  const row = async (name: string, work: () => unknown) => {
    rows[name] = await codeOf(work);
  };
  const reading = await gpu.acquire("a");
  await row("write what is read", () => gpu.acquire("a", { access: "write" }));
  await row("overwrite what is read", () => gpu.acquire("a", { access: "overwrite" }));
  await row("free what is leased", () => memory.free("a"));
  await row("demote what is leased", () => gpu.demote("a"));
  await row("no room beside what is leased", () => gpu.acquire("b"));
  await row("longer than the budget", () => gpu.acquire("long"));
  reading?.[Symbol.dispose]();
  reading?.[Symbol.dispose]();
  await row("use what was disposed", () => reading?.buffer);
  const writing = await gpu.acquire("a", { access: "write" });
  await row("acquire what is written", () => memory.acquire("a"));
  await row("read what is written", () => gpu.acquire("a"));
  await row("pin what is written", () => memory.tensor("a")?.pin());
  await row("save what is written", () => memory.save("a"));
  await row("swap out what is written", () => memory.swapOut("a"));
  writing?.[Symbol.dispose]();
  {
    using _pin = await memory.acquire("b", { access: "write" });
    await row("upload what is written in RAM", () => gpu.acquire("b"));
  }
  {
    using _lease = await gpu.acquire("b");
    using _pin = memory.tensor("b")?.pin({ access: "read" });
    _lease?.[Symbol.dispose]();
    await row("write what is pinned", () => gpu.acquire("b", { access: "write" }));
    await row("overwrite what is pinned", () => gpu.acquire("b", { access: "overwrite" }));
  }
  await row("no id", () => gpu.acquire(7 as never));
  await row("an unknown option", () => gpu.acquire("a", { on: "gpu" } as never));
  await row("an unknown access", () => gpu.acquire("a", { access: "both" } as never));
  await row("an arena of nothing", () => gpu.arena({ bytes: 0 }));
  const aborted = AbortSignal.abort();
  await row("aborted", () => gpu.acquire("b", { signal: aborted }));
  const isBack = await isEqual(memory, "b", words(10 * KIB, 2));
  await environment.closeMemory(memory);
  await row("closed", () => gpu.acquire("a"));
  device.destroy();
  return { rows, isBack };
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
async function churn(
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
