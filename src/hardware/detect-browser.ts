// Detection in browsers: only some say how much memory the device has, rounded and capped.
import { HARDWARE_PROFILES, type HardwareProfile, profileForMemory } from "./hardware-profile.js";

export function detectHardware(): HardwareProfile {
  const memoryGiB = (navigator as { deviceMemory?: number }).deviceMemory;
  if (memoryGiB !== undefined) return profileForMemory("browser", memoryGiB * 2 ** 30);
  return HARDWARE_PROFILES.get("phone") as HardwareProfile;
}
