// The WebGPU provider in a page: KV in buffers of one device beside the bare runtime on the same device.
import {
  type GpuDevice,
  greedyToken,
  type OrtGpuCache,
  type OrtGpuDecoder,
  type OrtGpuDecoderOptions,
  type OrtGpuDecoderStats,
  openOrtGpuDecoder,
  requestGpuDevice,
} from "tierheap/adapters/ort-webgpu";
import { createTensorMemory, type TensorMemory } from "tierheap/browser";
import { type GpuLevel, webgpuTier } from "tierheap/tiers/webgpu";
import {
  answersOf,
  bareChat,
  FAMILIES,
  type Family,
  SHORT_TURNS,
  type Speaker,
} from "../../support/decoder-families.js";
import { RUNTIME_FILES } from "./wasm.js";

export interface Gpu {
  readonly device: GpuDevice;
  /** Buffers that anybody asked of the device so far. */
  createdCount(): number;
  /** Of these, those that a memory made for tensors and KV. */
  heapCreatedCount(): number;
  /** Bytes of those since they were asked for last, at most at one time. */
  heapPeakBytes(): number;
}

export async function loadRuntime() {
  const ort = await import("onnxruntime-web/webgpu");
  ort.env.wasm.wasmPaths = RUNTIME_FILES;
  ort.env.wasm.numThreads = 1;
  return ort;
}

export const OPTIONS = { logSeverityLevel: 4 as const };

/** @returns null where there is no adapter. */
async function tryOpenDevice(): Promise<Gpu | null> {
  const adapter = await navigator.gpu?.requestAdapter();
  if (adapter === null || adapter === undefined) return null;
  const device = await requestGpuDevice(adapter);
  let createdCount = 0;
  let heapCreatedCount = 0;
  let heapBytes = 0;
  let peakBytes = 0;
  const create = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = create(descriptor);
    createdCount += 1;
    if (descriptor.label !== "tierheap") return buffer;
    heapCreatedCount += 1;
    heapBytes += buffer.size;
    peakBytes = Math.max(peakBytes, heapBytes);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      heapBytes -= buffer.size;
      destroy();
    };
    return buffer;
  };
  const heapPeakBytes = () => {
    const peak = peakBytes;
    peakBytes = heapBytes;
    return peak;
  };
  return {
    device,
    createdCount: () => createdCount,
    heapCreatedCount: () => heapCreatedCount,
    heapPeakBytes,
  };
}

let shared: Promise<Gpu | null> | null = null;

/** The runtime takes one device per page. */
export async function openDevice(): Promise<Gpu> {
  shared ??= tryOpenDevice();
  const gpu = await shared;
  if (gpu === null) throw new Error("no adapter");
  return gpu;
}

export async function hasAdapter(): Promise<boolean> {
  shared ??= tryOpenDevice();
  return (await shared) !== null;
}

export class GpuChat implements Speaker {
  readonly tokens: number[];
  readonly decoder: OrtGpuDecoder;
  readonly cache: OrtGpuCache;

  constructor(decoder: OrtGpuDecoder, cache = decoder.createCache(), tokens = cache.tokens) {
    this.decoder = decoder;
    this.cache = cache;
    this.tokens = tokens;
  }

  async say(prompt: readonly number[], answerTokens: number): Promise<number[]> {
    this.tokens.push(...prompt);
    const from = this.tokens.length;
    while (this.tokens.length < from + answerTokens) {
      const { logits } = await this.decoder.step(this.cache, this.tokens);
      this.tokens.push(greedyToken(logits));
    }
    return this.tokens.slice(from);
  }
}

export async function bareAnswers(family: Family, seed: number, device: GpuDevice) {
  const ort = await loadRuntime();
  const executionProviders = [{ name: "webgpu", device: device as unknown as GPUDevice }] as const;
  const sessionOptions = { ...OPTIONS, executionProviders };
  const bare = await bareChat(family, family.build(seed), { ort, sessionOptions });
  const answers = await answersOf(bare.chat, seed, SHORT_TURNS);
  await bare.release();
  return answers;
}

export interface Setting {
  readonly gpu: Gpu;
  readonly memory: TensorMemory;
  readonly level: GpuLevel;
  readonly decoder: OrtGpuDecoder;
}

export async function openSetting(
  family: Family,
  seed: number,
  options: Partial<OrtGpuDecoderOptions> & { budget?: number; directory?: string } = {},
): Promise<Setting> {
  const { budget = 2 ** 24, directory, ...given } = options;
  const gpu = await openDevice();
  const ort = await loadRuntime();
  const { memory, level } = await openGpuMemory(gpu.device, budget, directory);
  const model = family.build(seed);
  const decoder = await openOrtGpuDecoder({
    ...{ ort, memory, model, pageTokens: 16, checkTokens: 3, sessionOptions: OPTIONS },
    ...given,
  });
  return { gpu, memory, level, decoder };
}

/** A memory over a device, and after its loss over others of its own. */
export async function openGpuMemory(first: GpuDevice, budget: number, directory?: string) {
  let isUsed = false;
  const create = async () => {
    if (!isUsed) {
      isUsed = true;
      return first;
    }
    return requestGpuDevice((await navigator.gpu.requestAdapter()) as GPUAdapter);
  };
  const memory = await createTensorMemory({
    budgets: { ram: "32MiB", gpu: budget, ...(directory !== undefined && { ssd: "64MiB" }) },
    ...(directory !== undefined && { ssd: { directory } }),
    gpu: webgpuTier({ create }),
  });
  const level = memory.gpu;
  if (level === null) throw new Error("the memory has no GPU");
  return { memory, level };
}

export async function closeSetting({ memory, decoder }: Setting): Promise<readonly string[]> {
  await decoder.close().catch(() => undefined);
  const { problems } = memory.verify();
  await memory.close();
  return problems;
}

export interface GpuResult {
  readonly expected: number[][];
  readonly answers: number[][];
  readonly stats: OrtGpuDecoderStats;
  readonly gpu: ReturnType<GpuLevel["stats"]>;
  readonly problems: readonly string[];
}

/** A conversation of one seed with the family of that index, on both. */
export async function runGpu(familyIndex: number, seed: number): Promise<GpuResult> {
  const family = FAMILIES[familyIndex] as Family;
  const setting = await openSetting(family, seed);
  const expected = await bareAnswers(family, seed, setting.gpu.device);
  const chat = new GpuChat(setting.decoder);
  const answers = await answersOf(chat, seed, SHORT_TURNS);
  const stats = setting.decoder.stats();
  chat.cache.free();
  const gpu = setting.level.stats();
  return { expected, answers, stats, gpu, problems: await closeSetting(setting) };
}
