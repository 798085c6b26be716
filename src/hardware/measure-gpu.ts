// How fast bytes get into a GPU's buffers and back, by what WebGPU has for it. Knows a device by its
// shape alone, so that no platform's types are needed.
import type { CalibrationFigures } from "./calibration.js";
import type { GpuDevice } from "./hardware-profile.js";
import type { Stopwatch } from "./stopwatch.js";

/** A buffer of a device, as far as it matters here. */
export interface GpuBuffer {
  mapAsync(mode: number): Promise<unknown>;
  getMappedRange(): ArrayBuffer;
  unmap(): void;
  destroy(): void;
}

/** The calls that are made, with the types that they have here. */
interface Calls {
  createBuffer(descriptor: { readonly size: number; readonly usage: number }): GpuBuffer;
  createCommandEncoder(): {
    copyBufferToBuffer(
      ...parameters: readonly [GpuBuffer, number, GpuBuffer, number, number]
    ): void;
    finish(): unknown;
  };
  readonly queue: {
    writeBuffer(buffer: GpuBuffer, offset: number, bytes: Uint8Array): void;
    submit(commands: readonly unknown[]): void;
    onSubmittedWorkDone(): Promise<unknown>;
  };
}

// https://www.w3.org/TR/webgpu/#buffer-usage
const MAP_READ = 1;
const COPY_SOURCE = 4;
const COPY_TARGET = 8;
const BYTES = 4 * 2 ** 20;
const REPEATS = 3;

/** @throws Whatever the device says, and what {@link Stopwatch.time} throws. */
export async function measureGpu(
  figures: { -readonly [name in keyof CalibrationFigures]: CalibrationFigures[name] },
  device: GpuDevice,
  watch: Stopwatch,
): Promise<void> {
  const { createBuffer, createCommandEncoder, queue } = device as unknown as Calls;
  const buffer = createBuffer.call(device, { size: BYTES, usage: COPY_SOURCE | COPY_TARGET });
  const staging = createBuffer.call(device, { size: BYTES, usage: MAP_READ | COPY_TARGET });
  const bytes = new Uint8Array(BYTES).fill(1);
  const back = new Uint8Array(BYTES);
  const rateOf = (durationMs: number) => (1000 * BYTES) / Math.max(durationMs, 0.001);
  try {
    for (let round = 0; round < REPEATS; round++) {
      const uploadMs = await watch.time(async () => {
        queue.writeBuffer(buffer, 0, bytes);
        await queue.onSubmittedWorkDone();
      });
      const readbackMs = await watch.time(async () => {
        const encoder = createCommandEncoder.call(device);
        encoder.copyBufferToBuffer(buffer, 0, staging, 0, BYTES);
        queue.submit([encoder.finish()]);
        await staging.mapAsync(MAP_READ);
        back.set(new Uint8Array(staging.getMappedRange()));
        staging.unmap();
      });
      figures.gpuUploadBytesPerSecond = Math.max(
        figures.gpuUploadBytesPerSecond ?? 0,
        rateOf(uploadMs),
      );
      figures.gpuReadbackBytesPerSecond = Math.max(
        figures.gpuReadbackBytesPerSecond ?? 0,
        rateOf(readbackMs),
      );
    }
  } finally {
    buffer.destroy();
    staging.destroy();
  }
}
