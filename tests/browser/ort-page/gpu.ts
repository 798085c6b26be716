// The WebGPU provider in a page: KV in buffers of one device beside the bare runtime on the same device.
import {
  GpuBufferPool,
  type GpuBufferPoolStats,
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
  const create = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    createdCount += 1;
    return create(descriptor);
  };
  return { device, createdCount: () => createdCount };
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
  readonly pool: GpuBufferPool;
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
  const memory = await createTensorMemory({
    budgets: { ram: "32MiB", ...(directory !== undefined && { ssd: "64MiB" }) },
    ...(directory !== undefined && { ssd: { directory } }),
  });
  const pool = new GpuBufferPool({ device: gpu.device, budget });
  const model = family.build(seed);
  const decoder = await openOrtGpuDecoder({
    ...{ ort, memory, pool, model, pageTokens: 16, checkTokens: 3, sessionOptions: OPTIONS },
    ...given,
  });
  return { gpu, memory, pool, decoder };
}

export async function closeSetting({ memory, pool, decoder }: Setting): Promise<readonly string[]> {
  await decoder.close().catch(() => undefined);
  if (!pool.isLost) pool.trim();
  const { problems } = memory.verify();
  await memory.close();
  return problems;
}

export interface GpuResult {
  readonly expected: number[][];
  readonly answers: number[][];
  readonly stats: OrtGpuDecoderStats;
  readonly pool: GpuBufferPoolStats;
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
  const pool = setting.pool.stats();
  return { expected, answers, stats, pool, problems: await closeSetting(setting) };
}
