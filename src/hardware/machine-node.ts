// What a machine under Node says of itself, beyond what a profile needs: for people to look at.
import { constants } from "node:fs";
import { access, statfs } from "node:fs/promises";
import { availableParallelism, cpus } from "node:os";
import { hasSimd } from "../core/kernels-module.js";
import { canShareMemory } from "../core/linear-memory.js";
import { type ContainerLimits, containerLimits, type ReadKernelFile } from "./container-limits.js";
import { detectHardware, type NodeMachine, nodeMachine } from "./detect-node.js";
import type { MachineFacts } from "./hardware-profile.js";

export interface MachineReport {
  /** Without the leading `v`. */
  readonly nodeVersion: string;
  readonly processor: string;
  readonly facts: MachineFacts;
  /** Of the machine itself. */
  readonly totalMemoryBytes: number;
  readonly totalThreadCount: number;
  readonly limits: ContainerLimits;
  /** Files that the process may have open; null: unknown. */
  readonly openFilesMax: number | null;
  readonly hasSimd: boolean;
  readonly hasSharedMemory: boolean;
}

export interface DiskReport {
  /** Of the file system, such as `"ext4"`; null: unknown. */
  readonly type: string | null;
  /** What this user may still write. */
  readonly freeBytes: number;
  readonly totalBytes: number;
  readonly isWritable: boolean;
}

/** Caches of a processor; more are not looked at. */
const CACHE_COUNT_MAX = 16;
const CPU = "/sys/devices/system/cpu";

/** `"32K"` → 32,768. */
function sizeOf(text: string | null): number {
  const match = /^([0-9]+)([KMG]?)/.exec(text ?? "");
  const unit = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[match?.[2] ?? ""] ?? 1;
  return Number(match?.[1]) * unit;
}

/** Fields that are known: positive numbers. */
function known(facts: Readonly<Record<string, number>>): MachineFacts {
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value > 0));
}

function cacheFacts(read: ReadKernelFile): MachineFacts {
  const facts: Record<string, number> = {};
  for (let index = 0; index < CACHE_COUNT_MAX; index++) {
    const cache = `${CPU}/cpu0/cache/index${index}`;
    const level = Number(read(`${cache}/level`));
    if (!(level > 0)) break;
    if (read(`${cache}/type`)?.trim() === "Instruction") continue;
    facts[`l${level}Bytes`] = sizeOf(read(`${cache}/size`));
    facts["cacheLineBytes"] ??= sizeOf(read(`${cache}/coherency_line_size`));
  }
  return known(facts);
}

/** Cores of this machine, of which each may run several threads. */
function coreFacts(read: ReadKernelFile): MachineFacts {
  const cores = new Set<string>();
  let [core, socket] = ["", ""];
  for (const line of (read("/proc/cpuinfo") ?? "").split("\n")) {
    const [name = "", value = ""] = line.split(":").map((part) => part.trim());
    if (name === "physical id") socket = value;
    if (name === "core id") core = value;
    if (name === "" && core !== "") cores.add(`${socket} ${core}`);
  }
  const pageKib = /^KernelPageSize:\s+([0-9]+) kB/m.exec(read("/proc/self/smaps") ?? "")?.[1];
  return known({ coreCount: cores.size, pageBytes: 1024 * Number(pageKib ?? 0) });
}

export function readMachine(machine: NodeMachine = nodeMachine): MachineReport {
  const { read } = machine;
  const files = /^Max open files\s+([0-9]+)/m.exec(read("/proc/self/limits") ?? "")?.[1];
  return {
    nodeVersion: process.versions.node,
    processor: cpus()[0]?.model.trim() ?? "unknown",
    facts: { ...detectHardware(machine).machine, ...coreFacts(read), ...cacheFacts(read) },
    totalMemoryBytes: machine.totalMemoryBytes(),
    totalThreadCount: availableParallelism(),
    limits: containerLimits(read),
    openFilesMax: files === undefined ? null : Number(files),
    hasSimd: hasSimd(),
    hasSharedMemory: canShareMemory(),
  };
}

/** The type of the file system that a path lies on: that of the longest mount above it. */
export function fileSystemType(mounts: string, path: string): string | null {
  let found = "";
  let type: string | null = null;
  for (const line of mounts.split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const mount = before.split(" ")[4]?.replaceAll("\\040", " ");
    if (mount === undefined || mount.length < found.length) continue;
    if (mount !== "/" && path !== mount && !path.startsWith(`${mount}/`)) continue;
    found = mount;
    type = after.split(" ")[0] ?? null;
  }
  return type;
}

/**
 * @param path A directory that is there, absolute and without links.
 * @throws The system's error.
 */
export async function readDisk(path: string, read = nodeMachine.read): Promise<DiskReport> {
  const { bavail, blocks, bsize } = await statfs(path);
  const isWritable = await access(path, constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
  return {
    type: fileSystemType(read("/proc/self/mountinfo") ?? "", path),
    freeBytes: bavail * bsize,
    totalBytes: blocks * bsize,
    isWritable,
  };
}
