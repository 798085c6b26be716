// Detection in Node: the smaller of the machine's memory and the container's limit.
import { availableParallelism, totalmem } from "node:os";
import { type HardwareProfile, profileForMemory } from "./hardware-profile.js";

export function detectHardware(): HardwareProfile {
  // Without a limit, Node reports a number near 2^64.
  const limitBytes = process.constrainedMemory?.() ?? 0;
  const isLimited = limitBytes > 0 && limitBytes < totalmem();
  return profileForMemory("node", isLimited ? limitBytes : totalmem(), availableParallelism());
}
