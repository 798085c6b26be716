// The part of WebGPU that is used here, by shape: what a browser's `GPUDevice` gives, or a package for Node.
//
// Source: W3C, WebGPU — buffers, queues, error scopes, device loss.

/** A whole buffer on the device. */
export interface GpuBuffer {
  readonly size: number;
  destroy(): void;
  mapAsync(mode: number, offset?: number, byteLength?: number): Promise<unknown>;
  getMappedRange(offset?: number, byteLength?: number): ArrayBuffer;
  unmap(): void;
}

/** Commands of one submission. */
export interface GpuEncoder {
  copyBufferToBuffer(
    source: GpuBuffer,
    sourceOffset: number,
    target: GpuBuffer,
    targetOffset: number,
    byteLength: number,
  ): void;
  clearBuffer(buffer: GpuBuffer): void;
  finish(): object;
}

export type GpuErrorFilter = "out-of-memory" | "validation";

/** A device that is open; the runtime must use the same one. */
export interface GpuDevice {
  readonly limits: {
    readonly maxBufferSize: number;
    readonly maxStorageBufferBindingSize: number;
  };
  readonly lost: Promise<{ readonly message: string }>;
  readonly queue: {
    submit(commands: object[]): void;
    writeBuffer(
      buffer: GpuBuffer,
      bufferOffset: number,
      source: ArrayBufferView<ArrayBuffer>,
    ): void;
    onSubmittedWorkDone(): Promise<unknown>;
  };
  createBuffer(descriptor: {
    readonly size: number;
    readonly usage: number;
    readonly label?: string;
  }): GpuBuffer;
  createCommandEncoder(): GpuEncoder;
  pushErrorScope(filter: GpuErrorFilter): void;
  popErrorScope(): Promise<{ readonly message: string } | null>;
  destroy(): void;
}

/** Bits of a buffer's usage. */
export const GPU_USAGE = { mapRead: 0x1, copySource: 0x4, copyTarget: 0x8, storage: 0x80 } as const;

/** The mode of `mapAsync` for reading. */
export const GPU_MAP_READ = 0x1;

/** Offsets and lengths of copies are multiples of it. */
export const GPU_COPY_BYTES = 4;

type Limits = Readonly<Record<string, number>>;

/** What a `GPUAdapter` gives, as far as it is used. */
export interface GpuAdapter {
  readonly features: { has(name: string): boolean };
  readonly limits: object;
  requestDevice(descriptor: never): Promise<object>;
}

/** Limits that a runtime's kernels and long buffers need, of which a device has the default otherwise. */
const RAISED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
  "maxStorageBuffersPerShaderStage",
];
const WANTED_FEATURES = ["shader-f16", "subgroups"];

/**
 * A device with the adapter's own limits: by default one has smaller ones, and a runtime that is given
 * such a device is held to them.
 *
 * @throws The adapter's error.
 */
export async function requestGpuDevice(adapter: GpuAdapter): Promise<GpuDevice> {
  const limits = adapter.limits as Limits;
  const requiredLimits = Object.fromEntries(
    RAISED_LIMITS.filter((name) => limits[name] !== undefined).map((name) => [name, limits[name]]),
  );
  const requiredFeatures = WANTED_FEATURES.filter((name) => adapter.features.has(name));
  return (await adapter.requestDevice({ requiredLimits, requiredFeatures } as never)) as GpuDevice;
}
