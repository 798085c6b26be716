// Detection in Node: the machine's memory and processors, or what a container may use of them.
import { readFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { containerLimits, type ReadKernelFile } from "./container-limits.js";
import { type HardwareProfile, profileForMemory } from "./hardware-profile.js";

/** What the platform says of itself; replaced by tests. */
export interface NodeMachine {
  readonly read: ReadKernelFile;
  totalMemoryBytes(): number;
  /** What Node takes for the limit; without one a number near 2^64, or 0. */
  constrainedMemoryBytes(): number;
  availableParallelism(): number;
}

export const nodeMachine: NodeMachine = {
  read: (path) => {
    try {
      return readFileSync(path, "latin1");
    } catch {
      // Other systems, and what is not ours to read.
      return null;
    }
  },
  totalMemoryBytes: totalmem,
  constrainedMemoryBytes: () => process.constrainedMemory?.() ?? 0,
  availableParallelism,
};

export function detectHardware(machine: NodeMachine = nodeMachine): HardwareProfile {
  const limits = containerLimits(machine.read);
  const bounds = [
    machine.totalMemoryBytes(),
    machine.constrainedMemoryBytes(),
    limits.memoryBytes ?? 0,
  ];
  const memoryBytes = Math.min(...bounds.filter((bytes) => bytes > 0));
  // Half a processor's time is of no use to a second thread.
  const quota = Math.max(1, Math.floor(limits.cpuCount ?? Number.POSITIVE_INFINITY));
  return profileForMemory("node", memoryBytes, Math.min(machine.availableParallelism(), quota));
}
