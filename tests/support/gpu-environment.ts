// A GPU to run scenarios on, and what they all do with it.
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import { seededRandom } from "../../src/random.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import type { GpuLease } from "../../src/webgpu.js";

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

export const KIB = 1024;
export const systemParts = { clock: undefined as never, random: undefined as never };

/** The code of the error, or what came instead of one. */
export async function codeOf(work: () => unknown): Promise<string> {
  try {
    return `no error: ${typeof (await work())}`;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

/** Counts the buffers that are made on a device. */
export function countBuffers(device: GPUDevice): { count: number } {
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
export function fillByQueue(lease: GpuLease, elements: Uint32Array): void {
  const { device, buffer } = kernelOf(lease);
  device.queue.writeBuffer(buffer, 0, elements as Uint32Array<ArrayBuffer>);
}

export const kernelOf = (lease: GpuLease) => ({
  device: lease.device as unknown as GPUDevice,
  buffer: lease.buffer as unknown as GPUBuffer,
});

/** Words that follow from a number, plus what has been added to them. */
export function words(count: number, seed: number, summand = 0): Uint32Array {
  const random = seededRandom(seed);
  return Uint32Array.from({ length: count }, () => random.uint32() + summand);
}

export function allocate(memory: TensorMemory, id: string, wordCount: number, seed: number): void {
  const tensor = memory.allocate({ kind: "PARAMETERS", id, shape: [wordCount], dtype: "u32" });
  using pin = tensor.pin();
  pin.view.set(words(wordCount, seed));
}

export async function isEqual(
  memory: TensorMemory,
  id: string,
  expected: Uint32Array,
): Promise<boolean> {
  using lease = await memory.acquire<"u32">(id, { access: "read" });
  return lease?.view.every((word, index) => word === expected[index]) ?? false;
}

export async function addOnGpu(memory: TensorMemory, id: string, summand: number): Promise<void> {
  using lease = await memory.gpu?.acquire(id, { access: "write" });
  if (lease == null) throw new Error(`${id} is not there`);
  const { device, buffer } = kernelOf(lease);
  runAdd(device, buffer, lease.byteLength / 4, { summand });
}
