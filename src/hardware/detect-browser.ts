// Detection in browsers: only some say how much memory the device has, rounded and capped. What nobody
// tells stays unknown.
import { type HardwareProfile, profileForMemory } from "./hardware-profile.js";

export function detectHardware(): HardwareProfile {
  const { deviceMemory, hardwareConcurrency } = navigator as {
    readonly deviceMemory?: number;
    readonly hardwareConcurrency?: number;
  };
  const memoryBytes = deviceMemory === undefined ? null : deviceMemory * 2 ** 30;
  return profileForMemory("browser", memoryBytes, hardwareConcurrency ?? null);
}
