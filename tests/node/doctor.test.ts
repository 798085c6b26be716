// `tierheap doctor`: what it reads of machines, what it advises, and the command as a process.
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { adviceOf, type Findings } from "../../src/cli/advice.js";
import { NO_FIGURES } from "../../src/hardware/calibration.js";
import { calibrationPath } from "../../src/hardware/calibration-node.js";
import type { NodeMachine } from "../../src/hardware/detect-node.js";
import { HARDWARE_PROFILES, type HardwareProfile } from "../../src/hardware/hardware-profile.js";
import {
  type DiskReport,
  fileSystemType,
  type MachineReport,
  readMachine,
} from "../../src/hardware/machine-node.js";
import { createTensorMemory } from "../../src/node.js";
import { temporaryDirectory } from "../support/directories.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const main = join(root, "dist", "src", "cli", "main.js");
const GIB = 2 ** 30;

const doctor = (...args: string[]) =>
  spawnSync(process.execPath, [main, "doctor", ...args], { encoding: "utf8", timeout: 60_000 });

const soundMachine: MachineReport = {
  ...{ nodeVersion: "22.1.0", processor: "one", openFilesMax: 4096 },
  ...{ totalMemoryBytes: 16 * GIB, totalThreadCount: 8 },
  facts: { memoryBytes: 16 * GIB, threadCount: 8 },
  limits: { memoryBytes: null, cpuCount: null },
  ...{ hasSimd: true, hasSharedMemory: true },
};
const soundDisk: DiskReport = {
  ...{ type: "ext4", freeBytes: 500 * GIB, totalBytes: 1000 * GIB, isWritable: true },
};
const sound: Findings = {
  ...{ machine: soundMachine, disk: soundDisk, isKept: true, ssdBudgetBytes: null },
  profile: HARDWARE_PROFILES.get("generic") as HardwareProfile,
  figures: {
    ...NO_FIGURES,
    ...{ ssdReadBytesPerSecond: 1e9, ssdDurableBytesPerSecond: 500e6, encodeBytesPerSecond: 4e8 },
  },
  ramBudgetBytes: 2 * GIB,
};
const machine = (changes: Partial<MachineReport>) => ({ machine: { ...soundMachine, ...changes } });
const disk = (changes: Partial<DiskReport>) => ({ disk: { ...soundDisk, ...changes } });
const limited = (memoryBytes: number) =>
  machine({
    facts: { memoryBytes, threadCount: 8 },
    limits: { memoryBytes, cpuCount: null },
  });

describe("advice", () => {
  it("is not given where all is well", () => {
    expect(adviceOf(sound)).toEqual([]);
  });

  it.each<[string, "problem" | "advice", Partial<Findings>]>([
    ["old-node", "problem", machine({ nodeVersion: "18.20.4" })],
    ["old-node", "problem", machine({ nodeVersion: "20.18.0" })],
    ["few-files", "problem", machine({ openFilesMax: 128 })],
    ["few-files", "advice", machine({ openFilesMax: 512 })],
    ["no-simd", "advice", machine({ hasSimd: false })],
    ["no-shared-memory", "advice", machine({ hasSharedMemory: false })],
    ["ram-over-limit", "problem", { ramBudgetBytes: 17 * GIB }],
    ["ram-over-limit", "problem", limited(GIB)],
    ["ram-near-limit", "advice", { ramBudgetBytes: 13 * GIB }],
    ["memory-limit", "advice", limited(8 * GIB)],
    ["cpu-limit", "advice", machine({ limits: { memoryBytes: null, cpuCount: 1.5 } })],
    ["not-writable", "problem", disk({ isWritable: false })],
    ["disk-full", "problem", disk({ freeBytes: 2 ** 20 })],
    ["disk-full", "problem", { ssdBudgetBytes: 600 * GIB }],
    ["disk-low", "advice", disk({ freeBytes: 5 * GIB })],
    ["disk-is-ram", "advice", disk({ type: "tmpfs" })],
    ["disk-is-remote", "advice", disk({ type: "nfs4" })],
    ["disk-is-overlay", "advice", disk({ type: "overlay" })],
    ["not-kept", "advice", { isKept: false }],
    ["not-measured", "advice", { figures: NO_FIGURES }],
    ["disk-slow", "advice", { figures: { ...sound.figures, ssdDurableBytesPerSecond: 40e6 } }],
    ["coding-off", "advice", { profile: { ...sound.profile, codec: "when-full" } }],
  ])("says %s as a %s", (code, weight, changes) => {
    const given = adviceOf({ ...sound, ...changes });
    expect(given.find((each) => each.code === code)?.isProblem).toBe(weight === "problem");
    // Each finding has its own advice, and at most that of its consequence beside it.
    expect(given.length).toBeLessThanOrEqual(2);
    for (const { text } of given) expect(text).toMatch(/^[A-Z0-9a-z].*\.$/s);
  });

  it("tells problems first", () => {
    const given = adviceOf({ ...sound, isKept: false, ramBudgetBytes: 17 * GIB });
    expect(given.map(({ code }) => code)).toEqual(["ram-over-limit", "not-kept"]);
  });
});

describe("what is read of a machine", () => {
  const cache = (index: number, level: string, type: string, size: string) => {
    const path = `/sys/devices/system/cpu/cpu0/cache/index${index}`;
    return {
      [`${path}/level`]: `${level}\n`,
      [`${path}/type`]: `${type}\n`,
      [`${path}/size`]: `${size}\n`,
      [`${path}/coherency_line_size`]: "64\n",
    };
  };
  const files: Record<string, string> = {
    ...cache(0, "1", "Data", "32K"),
    ...cache(1, "1", "Instruction", "32K"),
    ...cache(2, "2", "Unified", "256K"),
    ...cache(3, "3", "Unified", "6M"),
    "/proc/self/limits":
      "Limit  Soft Limit  Hard Limit\nMax open files            1024     4096   files\n",
    "/proc/self/smaps": "00-01 r--p\nKernelPageSize:        4 kB\n",
    "/proc/cpuinfo": [0, 1, 2, 3, 0, 1, 2, 3]
      .map((core, index) => `processor : ${index}\nphysical id : 0\ncore id : ${core}\n`)
      .join("\n"),
  };
  const machineOf = (read: NodeMachine["read"]): NodeMachine => ({
    read,
    totalMemoryBytes: () => 8 * GIB,
    constrainedMemoryBytes: () => 0,
    availableParallelism: () => 8,
  });

  it("are its caches, cores, pages and limits", () => {
    const { facts, openFilesMax } = readMachine(machineOf((path) => files[path] ?? null));
    expect(openFilesMax).toBe(1024);
    expect(facts).toEqual(
      Object.assign(
        { memoryBytes: 8 * GIB },
        HARDWARE_PROFILES.get("i5-10210u-sm61-nvme")?.machine,
        {
          warpBytes: undefined,
        },
      ),
    );
  });

  it("stays unknown where the system does not tell", () => {
    const report = readMachine(machineOf(() => null));
    expect(report.facts).toEqual({ memoryBytes: 8 * GIB, threadCount: 8 });
    expect(report.openFilesMax).toBeNull();
    expect(readMachine(machineOf(() => "nonsense\n")).facts).toEqual(report.facts);
  });

  it("is the file system of the longest mount above a path", () => {
    const mounts = [
      "22 1 254:0 / / rw - ext4 /dev/vda rw",
      "23 22 0:20 / /mnt/with\\040space rw - xfs /dev/vdb rw",
      "24 22 0:21 / /dev/shm rw - tmpfs tmpfs rw",
      "25 22 0:22 / /dev/sh rw - nfs4 host:/ rw",
    ].join("\n");
    expect(fileSystemType(mounts, "/home/me")).toBe("ext4");
    expect(fileSystemType(mounts, "/dev/shm/store")).toBe("tmpfs");
    expect(fileSystemType(mounts, "/dev/shmoo")).toBe("ext4");
    expect(fileSystemType(mounts, "/mnt/with space/a")).toBe("xfs");
    expect(fileSystemType("", "/")).toBeNull();
  });
});

describe("tierheap doctor", () => {
  it("measures, keeps what it found, and says what it made of it", async () => {
    const directory = join(await temporaryDirectory(), "store");
    const { status, stdout, stderr } = doctor(directory, "--ram", "64MiB", "--json");
    expect(stderr).toBe("");
    const diagnosis = JSON.parse(stdout);
    expect(diagnosis).toMatchObject({
      ...{ directory, isHealthy: true, calibrationFile: calibrationPath(directory) },
      profile: { name: "node, calibrated" },
      machine: { nodeVersion: process.versions.node, hasSimd: true },
    });
    expect(status).toBe(0);
    expect(diagnosis.disk.freeBytes).toBeGreaterThan(0);
    expect(diagnosis.calibration.copyBytesPerSecond).toBeGreaterThan(0);
    const kept = JSON.parse(await readFile(calibrationPath(directory), "utf8"));
    expect(kept.calibration).toEqual(diagnosis.calibration);
    const memory = await createTensorMemory({
      budgets: { ram: "16MiB", ssd: "16MiB" },
      ssd: { directory },
    });
    expect(memory.stats().profile).toBe("node, calibrated");
    await memory.close();
  });

  it("prints words for people", async () => {
    const directory = join(await temporaryDirectory(), "store");
    const { status, stdout } = doctor(directory, "--ram", "64MiB");
    expect(status).toBe(0);
    for (const word of ["machine", "limits", "disk", "profile", "measured", "SSD", "kept in"]) {
      expect(stdout).toContain(word);
    }
    expect(stdout).toMatch(/no problem found\n$/);
  });

  it("exits with 1 when a memory would fail", async () => {
    const directory = join(await temporaryDirectory(), "store");
    const { status, stdout } = doctor(directory, "--ram", "900TiB");
    expect(status).toBe(1);
    expect(stdout).toMatch(/^problem: budgets\.ram of /m);
    expect(stdout).toMatch(/there are problems\n$/);
  });

  it("refuses wrong sizes, and a place that is not there", async () => {
    const folder = await temporaryDirectory();
    expect(doctor(join(folder, "store"), "--ram", "much").status).toBe(2);
    expect(doctor(join(folder, "store"), "--ssd", "-1").status).toBe(2);
    expect(doctor(join(folder, "a"), join(folder, "b")).status).toBe(2);
    const { status, stderr } = doctor(join(folder, "no", "store"));
    expect(status).toBe(3);
    expect(stderr).toContain("is no directory");
  });
});
