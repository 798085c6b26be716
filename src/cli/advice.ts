// What to say about a machine and a place for a store: problems that would make a memory fail, and advice.
// Judges figures, reads nothing.
import type { CalibrationFigures } from "../hardware/calibration.js";
import type { HardwareProfile } from "../hardware/hardware-profile.js";
import type { DiskReport, MachineReport } from "../hardware/machine-node.js";
import { formatBytes } from "../stats/format.js";

export interface Findings {
  readonly machine: MachineReport;
  readonly disk: DiskReport;
  /** Tuned, if something was measured. */
  readonly profile: HardwareProfile;
  readonly figures: CalibrationFigures;
  /** What was measured could be kept. */
  readonly isKept: boolean;
  readonly ramBudgetBytes: number;
  /** null: none was named. */
  readonly ssdBudgetBytes: number | null;
}

export interface Advice {
  /** Stable. */
  readonly code: string;
  /** A memory would fail, or soon: worth an exit code. */
  readonly isProblem: boolean;
  readonly text: string;
}

const NODE_VERSION_MIN = [20, 19] as const;
const OPEN_FILES_MIN = 256;
const OPEN_FILES_AMPLE = 1024;
const FREE_BYTES_MIN = 64 * 2 ** 20;
const FREE_SHARE_LOW = 0.1;
const FREE_BYTES_AMPLE = 16 * 2 ** 30;
/** Of the memory that the process may have, for tensors. */
const RAM_SHARE_HIGH = 0.75;
const SLOW_BYTES_PER_SECOND = 100e6;
const RAM_FILE_SYSTEMS = ["tmpfs", "ramfs", "devtmpfs"];
const NETWORK_FILE_SYSTEMS = [
  "nfs",
  "nfs4",
  "cifs",
  "smb3",
  "smbfs",
  "fuse.sshfs",
  "9p",
  "virtiofs",
];

type Judge = (findings: Findings) => readonly (Advice | null)[];

const problem = (code: string, text: string): Advice => ({ code, isProblem: true, text });
const advice = (code: string, text: string): Advice => ({ code, isProblem: false, text });

const judgeNode: Judge = ({ machine }) => {
  const [major = 0, minor = 0] = machine.nodeVersion.split(".").map(Number);
  const [majorMin, minorMin] = NODE_VERSION_MIN;
  const isOld = major < majorMin || (major === majorMin && minor < minorMin);
  const { openFilesMax: files } = machine;
  return [
    isOld
      ? problem(
          "old-node",
          `Node ${machine.nodeVersion} is older than ${majorMin}.${minorMin}: install a newer one.`,
        )
      : null,
    machine.hasSimd
      ? null
      : advice("no-simd", "The engine has no SIMD: codecs and hashes take several times as long."),
    machine.hasSharedMemory
      ? null
      : advice(
          "no-shared-memory",
          "Workers cannot share memory here: the option shared is refused.",
        ),
    files === null || files >= OPEN_FILES_AMPLE
      ? null
      : files < OPEN_FILES_MIN
        ? problem("few-files", `Only ${files} files may be open: raise it with ulimit -n 4096.`)
        : advice("few-files", `Only ${files} files may be open; ulimit -n 4096 leaves more room.`),
  ];
};

const judgeMemory: Judge = ({ machine, ramBudgetBytes }) => {
  const { limits, totalMemoryBytes, totalThreadCount } = machine;
  const memoryBytes = machine.facts.memoryBytes ?? totalMemoryBytes;
  const isLimited = memoryBytes < totalMemoryBytes;
  const whose = isLimited ? "that the container allows" : "that the machine has";
  const [budget, memory] = [formatBytes(ramBudgetBytes), formatBytes(memoryBytes)];
  return [
    ramBudgetBytes > memoryBytes
      ? problem("ram-over-limit", `budgets.ram of ${budget} is more than the ${memory} ${whose}.`)
      : ramBudgetBytes > RAM_SHARE_HIGH * memoryBytes
        ? advice(
            "ram-near-limit",
            `budgets.ram of ${budget} leaves little of the ${memory} ${whose}: the model, the engine ` +
              "and the system need memory too.",
          )
        : null,
    isLimited
      ? advice(
          "memory-limit",
          `The container allows ${memory} of the machine's ${formatBytes(totalMemoryBytes)}; the profile keeps to it.`,
        )
      : null,
    limits.cpuCount !== null && limits.cpuCount < totalThreadCount
      ? advice(
          "cpu-limit",
          `The container allows ${limits.cpuCount} of ${totalThreadCount} processors; the profile keeps to it.`,
        )
      : null,
  ];
};

const judgeDisk: Judge = ({ disk, ssdBudgetBytes }) => {
  const { type, freeBytes, totalBytes, isWritable } = disk;
  const free = formatBytes(freeBytes);
  const wantedBytes = ssdBudgetBytes ?? FREE_BYTES_MIN;
  const isLow = freeBytes < FREE_SHARE_LOW * totalBytes && freeBytes < FREE_BYTES_AMPLE;
  return [
    isWritable
      ? null
      : problem("not-writable", "Nothing can be written where the store would lie."),
    freeBytes < wantedBytes
      ? problem("disk-full", `Only ${free} are free where ${formatBytes(wantedBytes)} are wanted.`)
      : isLow
        ? advice("disk-low", `Only ${free} of ${formatBytes(totalBytes)} are free.`)
        : null,
    type !== null && RAM_FILE_SYSTEMS.includes(type)
      ? advice(
          "disk-is-ram",
          `${type} keeps files in RAM: what leaves the budget stays in memory, and a restart of the ` +
            "machine takes it. Choose a directory on a disk, or use budgets.warm.",
        )
      : null,
    type !== null && NETWORK_FILE_SYSTEMS.includes(type)
      ? advice("disk-is-remote", `${type} lies on another machine: each transfer waits for it.`)
      : null,
    type === "overlay"
      ? advice(
          "disk-is-overlay",
          "This is the container's own layer, which goes with it: mount a volume to keep the store.",
        )
      : null,
  ];
};

const judgeFigures: Judge = ({ figures, isKept, profile, disk }) => {
  const { ssdReadBytesPerSecond, ssdDurableBytesPerSecond, encodeBytesPerSecond } = figures;
  const isUnmeasured = ssdReadBytesPerSecond === null || encodeBytesPerSecond === null;
  return [
    isKept || !disk.isWritable
      ? null
      : advice("not-kept", "What was measured could not be kept; it will be measured again."),
    isUnmeasured && disk.isWritable
      ? advice(
          "not-measured",
          "The disk or the codec did not answer in time: the machine is busy, or the disk very slow. " +
            "Run this again when it is idle.",
        )
      : null,
    ssdDurableBytesPerSecond !== null && ssdDurableBytesPerSecond < SLOW_BYTES_PER_SECOND
      ? advice(
          "disk-slow",
          `The device writes ${formatBytes(ssdDurableBytesPerSecond)} a second: the background begins earlier ` +
            'there; codecs: { default: "lossless" } writes fewer bytes.',
        )
      : null,
    profile.codec === "when-full"
      ? advice(
          "coding-off",
          "The device is faster than coding would be: tensors are written as they are until it is nearly full.",
        )
      : null,
  ];
};

/** Problems first. */
export function adviceOf(findings: Findings): Advice[] {
  const all = [judgeNode, judgeMemory, judgeDisk, judgeFigures]
    .flatMap((judge) => judge(findings))
    .filter((each) => each !== null);
  return [
    ...all.filter(({ isProblem }) => isProblem),
    ...all.filter(({ isProblem }) => !isProblem),
  ];
}
