// What a container may use of its machine, from the kernel's own files: control groups of version 1 and
// 2. A limit may lie on the group of the process or on any above it; the least counts.

/** Text of one of the kernel's files; null when it is not there or not ours to read. */
export type ReadKernelFile = (path: string) => string | null;

export interface ContainerLimits {
  /** null: no limit. */
  readonly memoryBytes: number | null;
  /** Processors' worth of time, such as 1.5; null: no limit. */
  readonly cpuCount: number | null;
}

/** A hierarchy of groups, and where the process is in it. */
interface Hierarchy {
  readonly mountPath: string;
  /** Absolute, within the hierarchy as it is mounted. */
  readonly groupPath: string;
}

/** Groups above a process's own that are looked at. */
const DEPTH_MAX = 32;

/** @returns null where the kernel has no control groups, or they are not mounted. */
function findHierarchy(
  groups: string,
  mounts: string,
  controller: "memory" | "cpu",
  version: 1 | 2,
): Hierarchy | null {
  const ownLine = groups.split("\n").find((line) => {
    const [number, controllers] = line.split(":");
    if (version === 2) return number === "0" && controllers === "";
    return controllers?.split(",").includes(controller) === true;
  });
  const ownPath = ownLine?.split(":").slice(2).join(":");
  if (ownPath === undefined) return null;
  for (const line of mounts.split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const [, , , root = "/", mountPath] = before.split(" ");
    const [type, , options = ""] = after.split(" ");
    const isMeant =
      version === 2
        ? type === "cgroup2"
        : type === "cgroup" && options.split(",").includes(controller);
    if (!isMeant || mountPath === undefined) continue;
    // A container often sees its own group as the root, under either name.
    const isBelow = root !== "/" && (ownPath === root || ownPath.startsWith(`${root}/`));
    const groupPath = isBelow ? ownPath.slice(root.length) : root === "/" ? ownPath : "";
    return { mountPath, groupPath: groupPath.replace(/\/+$/, "") };
  }
  return null;
}

/** What the group of the process and those above it say, the innermost first. */
function readUpwards(read: ReadKernelFile, hierarchy: Hierarchy | null, name: string): string[] {
  if (hierarchy === null) return [];
  const texts: string[] = [];
  let { groupPath } = hierarchy;
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    const text = read(`${hierarchy.mountPath}${groupPath}/${name}`);
    if (text !== null) texts.push(text.trim());
    if (groupPath === "") break;
    groupPath = groupPath.slice(0, groupPath.lastIndexOf("/"));
  }
  return texts;
}

function leastOf(values: readonly number[]): number | null {
  const usable = values.filter((value) => Number.isFinite(value) && value > 0);
  return usable.length === 0 ? null : Math.min(...usable);
}

/** Quotas per period; unlimited ones are NaN or negative. */
function ratios(quotas: readonly string[], periods: readonly string[]): number[] {
  return quotas.map((quota, index) => Number(quota) / Number(periods[index]));
}

export function containerLimits(read: ReadKernelFile): ContainerLimits {
  const groups = read("/proc/self/cgroup") ?? "";
  const mounts = read("/proc/self/mountinfo") ?? "";
  const unified = findHierarchy(groups, mounts, "memory", 2);
  const oldMemory = findHierarchy(groups, mounts, "memory", 1);
  const oldCpu = findHierarchy(groups, mounts, "cpu", 1);
  const memory = [
    ...readUpwards(read, unified, "memory.max"),
    // Above this, the process is slowed down.
    ...readUpwards(read, unified, "memory.high"),
    ...readUpwards(read, oldMemory, "memory.limit_in_bytes"),
  ];
  const shares = readUpwards(read, unified, "cpu.max").map((text) => text.split(" "));
  const cpu = [
    ...ratios(
      shares.map(([quota = ""]) => quota),
      shares.map(([, period = ""]) => period),
    ),
    ...ratios(
      readUpwards(read, oldCpu, "cpu.cfs_quota_us"),
      readUpwards(read, oldCpu, "cpu.cfs_period_us"),
    ),
  ];
  // Version 1 says no limit by a number near 2^63.
  const limits = memory.map(Number).filter((bytes) => bytes < 2 ** 60);
  return { memoryBytes: leastOf(limits), cpuCount: leastOf(cpu) };
}
