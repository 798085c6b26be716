// Buffers that are no tensors, tensors that come ahead of their leases, uploads that share the scopes of their errors.
import type { GpuBuffer } from "../../src/webgpu.js";
import { webgpuTier } from "../../src/webgpu.js";
import {
  addOnGpu,
  allocate,
  codeOf,
  countBuffers,
  type GpuEnvironment,
  isEqual,
  KIB,
  words,
} from "./gpu-environment.js";

/** Buffers for a runtime's own use, out of the budget of the tensors. */
export async function heldBuffers(environment: GpuEnvironment) {
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
export async function foretell(environment: GpuEnvironment) {
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
export async function shareAnswers(environment: GpuEnvironment) {
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
