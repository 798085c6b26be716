// What callers may say about calibration, and its validation.
import { MisuseError } from "../errors.js";
import type { GpuDevice } from "../gpu/gpu-device.js";
import { checkFlag, checkObject } from "./checks.js";
import type { TensorMemoryOptions } from "./options.js";

/** @throws {MisuseError} `bad-option` — there would be nothing to measure, or nobody to use it. */
export function checkCalibrate(options: TensorMemoryOptions): void {
  const { calibrate, profile = "auto", budgets, seams } = options;
  if (typeof calibrate !== "object" && !checkFlag(calibrate, "calibrate")) return;
  if (typeof calibrate === "object") {
    const { gpu } = checkObject(calibrate, "calibrate", ["gpu"]) as { readonly gpu?: GpuDevice };
    if (typeof gpu?.createBuffer !== "function") {
      throw new MisuseError("bad-option", "calibrate.gpu is a device of WebGPU");
    }
  }
  if (profile !== "auto" || budgets?.ssd === undefined || seams?.tier !== undefined) {
    throw new MisuseError("bad-option", "calibrate needs budgets.ssd and the profile auto");
  }
}
