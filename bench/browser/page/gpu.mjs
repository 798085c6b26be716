// Measures one round of one length on the GPU: the same bytes through tierheap and through plain calls, to
// buffers that are there already, and back. Runs in the page; run.mjs asks for the rounds.
import { createTensorMemory } from "tierheap/browser";
import { webgpuTier } from "tierheap/tiers/webgpu";

const now = () => performance.now();

async function openDevice() {
  const adapter = await navigator.gpu?.requestAdapter();
  return adapter?.requestDevice() ?? null;
}

/** Calls work for each index, so many at once. @returns Milliseconds. */
async function timed(count, callerCount, work) {
  let next = 0;
  const caller = async () => {
    while (next < count) {
      const index = next;
      next += 1;
      await work(index);
    }
  };
  const startMs = now();
  await Promise.all(Array.from({ length: callerCount }, caller));
  return now() - startMs;
}

/** As somebody would do it who keeps buffers for everything, and for each caller one to read through. */
async function plainRound({ byteLength, count, callerCount }) {
  const device = await openDevice();
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const usage = STORAGE | COPY_SRC | COPY_DST;
  const make = (use) => device.createBuffer({ size: byteLength, usage: use });
  const buffers = Array.from({ length: count }, () => make(usage));
  const staging = Array.from({ length: callerCount }, () => make(MAP_READ | COPY_DST));
  const bytes = new Uint8Array(byteLength * count).fill(7);
  const partOf = (index) => bytes.subarray(index * byteLength, (index + 1) * byteLength);
  const upload = async (index) => {
    device.queue.writeBuffer(buffers[index], 0, partOf(index));
    await device.queue.onSubmittedWorkDone();
  };
  await timed(count, callerCount, upload);
  const uploadMs = await timed(count, callerCount, upload);
  const readbackMs = await timed(count, callerCount, async (index) => {
    const through = staging.pop();
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffers[index], 0, through, 0, byteLength);
    device.queue.submit([encoder.finish()]);
    await through.mapAsync(GPUMapMode.READ);
    partOf(index).set(new Uint8Array(through.getMappedRange()));
    through.unmap();
    staging.push(through);
  });
  device.destroy();
  return { uploadMs, readbackMs };
}

/** Tensors are written in RAM, leased on the GPU, written there, and leased in RAM. */
async function tierheapRound({ byteLength, count, callerCount }) {
  const device = await openDevice();
  const bytes = byteLength * count;
  const memory = await createTensorMemory({
    budgets: { ram: 2 ** 26 + 3 * bytes, gpu: 2 * bytes },
    gpu: webgpuTier({ device }),
  });
  for (let index = 0; index < count; index++) {
    using pin = memory.allocate({ kind: "PARAMETERS", id: `${index}`, byteLength }).pin();
    pin.bytes.fill(7);
  }
  const lease = async (index) => {
    using lease = await memory.gpu.acquire(`${index}`);
    if (lease === null) throw new Error("a tensor is gone");
  };
  await timed(count, callerCount, lease);
  // A write in RAM makes the copies there stale.
  for (let index = 0; index < count; index++) memory.tensor(`${index}`).pin()[Symbol.dispose]();
  const uploadMs = await timed(count, callerCount, lease);
  for (let index = 0; index < count; index++) {
    (await memory.gpu.acquire(`${index}`, { access: "write" }))[Symbol.dispose]();
  }
  const readbackMs = await timed(count, callerCount, async (index) => {
    using lease = await memory.acquire(`${index}`, { access: "read" });
    if (lease.bytes[byteLength - 1] !== 7) throw new Error("wrong bytes");
  });
  const { createdCount } = memory.gpu.stats();
  await memory.close();
  device.destroy();
  return { uploadMs, readbackMs, createdCount };
}

window.hasGpu = async () => (await openDevice()) !== null;
window.gpuRound = async (length) => ({
  plain: await plainRound(length),
  tierheap: await tierheapRound(length),
});
