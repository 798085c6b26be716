// How fast bytes get into a GPU's buffers and back.
import { GPU_MAP_READ, GPU_USAGE, type GpuDevice } from "../gpu/gpu-device.js";
import type { CalibrationFigures } from "./calibration.js";
import type { Stopwatch } from "./stopwatch.js";

const BYTES = 4 * 2 ** 20;
const REPEATS = 3;

/** @throws Whatever the device says, and what {@link Stopwatch.time} throws. */
export async function measureGpu(
  figures: { -readonly [name in keyof CalibrationFigures]: CalibrationFigures[name] },
  device: GpuDevice,
  watch: Stopwatch,
): Promise<void> {
  const { copySource, copyTarget, mapRead } = GPU_USAGE;
  const { queue } = device;
  const buffer = device.createBuffer({ size: BYTES, usage: copySource | copyTarget });
  const staging = device.createBuffer({ size: BYTES, usage: mapRead | copyTarget });
  const bytes = new Uint8Array(BYTES).fill(1);
  const back = new Uint8Array(BYTES);
  // A clock that is too coarse to tell leaves it unknown.
  const faster = (before: number | null, durationMs: number) =>
    durationMs > 0 ? Math.max(before ?? 0, (1000 * BYTES) / durationMs) : before;
  try {
    for (let round = 0; round < REPEATS; round++) {
      const uploadMs = await watch.time(async () => {
        queue.writeBuffer(buffer, 0, bytes);
        await queue.onSubmittedWorkDone();
      });
      const readbackMs = await watch.time(async () => {
        const encoder = device.createCommandEncoder();
        encoder.copyBufferToBuffer(buffer, 0, staging, 0, BYTES);
        queue.submit([encoder.finish()]);
        await staging.mapAsync(GPU_MAP_READ);
        back.set(new Uint8Array(staging.getMappedRange()));
        staging.unmap();
      });
      figures.gpuUploadBytesPerSecond = faster(figures.gpuUploadBytesPerSecond, uploadMs);
      figures.gpuReadbackBytesPerSecond = faster(figures.gpuReadbackBytesPerSecond, readbackMs);
    }
  } finally {
    buffer.destroy();
    staging.destroy();
  }
}
