// Detection in browsers: only some say how much memory the device has, rounded and capped.
import { HARDWARE_PROFILES, type HardwareProfile, profileForMemory } from "./hardware-profile.js";

export function detectHardware(): HardwareProfile {
  const { deviceMemory, hardwareConcurrency } = navigator as {
    readonly deviceMemory?: number;
    readonly hardwareConcurrency?: number;
  };
  const coreCount = hardwareConcurrency ?? 1;
  if (deviceMemory !== undefined) {
    return profileForMemory("browser", deviceMemory * 2 ** 30, coreCount);
  }
  const { codecWorkerCount = 0 } = profileForMemory("browser", 0, coreCount);
  return { ...(HARDWARE_PROFILES.get("phone") as HardwareProfile), codecWorkerCount };
}
