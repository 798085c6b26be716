// `tierheap doctor`: the machine, what limits it, the profile it gets, a calibration, and advice in words.
import { realpath } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { systemClock } from "../clock.js";
import { unitCodec } from "../codec/unit-codec.js";
import { createUnsharedMemory } from "../core/linear-memory.js";
import { measureAndKeep } from "../hardware/auto-profile.js";
import type { Calibration } from "../hardware/calibration.js";
import { calibrationPath, nodeCalibrationPlace } from "../hardware/calibration-node.js";
import { detectHardware } from "../hardware/detect-node.js";
import type { HardwareProfile } from "../hardware/hardware-profile.js";
import {
  type DiskReport,
  type MachineReport,
  readDisk,
  readMachine,
} from "../hardware/machine-node.js";
import { tunedProfile } from "../hardware/tuned-profile.js";
import { formatBytes, formatTable } from "../stats/format.js";
import { parseByteSize } from "../types.js";
import { type Advice, adviceOf } from "./advice.js";
import {
  type Command,
  CommandError,
  type CommandIo,
  type CommandOptions,
  EXIT_DAMAGED,
  EXIT_USAGE,
} from "./command.js";
import { countOf, printable } from "./output.js";
import { checkDirectory } from "./store-view.js";

interface Diagnosis {
  /** Of the store. */
  readonly directory: string;
  readonly machine: MachineReport;
  readonly disk: DiskReport;
  readonly profile: HardwareProfile;
  readonly calibration: Calibration;
  /** Where it is kept; null if it could not be. */
  readonly calibrationFile: string | null;
  readonly advice: readonly Advice[];
  /** There is advice, but no problem. */
  readonly isHealthy: boolean;
}

function sizeOption(options: CommandOptions, name: string): number | null {
  const text = options[name];
  if (text === undefined) return null;
  try {
    return parseByteSize(text, `--${name}`);
  } catch (error) {
    throw new CommandError(EXIT_USAGE, (error as Error).message);
  }
}

async function examine(directory: string, options: CommandOptions): Promise<Diagnosis> {
  const ramBytes = sizeOption(options, "ram");
  const ssdBudgetBytes = sizeOption(options, "ssd");
  const parent = dirname(resolve(directory));
  await checkDirectory(parent);
  const machine = readMachine();
  const disk = await readDisk(await realpath(parent));
  const { calibration, isKept } = await measureAndKeep({
    place: nodeCalibrationPlace({ directory }),
    clock: systemClock,
    createCodec: () => unitCodec({ createMemory: createUnsharedMemory }),
  });
  const profile = tunedProfile(detectHardware(), calibration);
  const ramBudgetBytes = ramBytes ?? profile.ramBudgetBytes;
  const findings = { machine, disk, profile, isKept, ramBudgetBytes, ssdBudgetBytes };
  const advice = adviceOf({ ...findings, figures: calibration });
  return {
    ...{ directory: resolve(directory), machine, disk, profile, calibration },
    calibrationFile: isKept ? calibrationPath(directory) : null,
    advice,
    isHealthy: !advice.some(({ isProblem }) => isProblem),
  };
}

function rate(bytesPerSecond: number | null): string {
  if (bytesPerSecond === null) return "unknown";
  const megabytes = bytesPerSecond / 1e6;
  return `${megabytes.toFixed(megabytes < 10 ? 1 : 0)} MB/s`;
}

function describeDiagnosis(diagnosis: Diagnosis): string {
  const { machine, disk, profile, calibration, advice } = diagnosis;
  const { facts, limits } = machine;
  const bytes = (count: number | undefined) =>
    count === undefined ? "unknown" : formatBytes(count);
  const count = (value: number | null | undefined) => `${value ?? "unknown"}`;
  const caches = [facts.l1Bytes, facts.l2Bytes, facts.l3Bytes].map(bytes).join(", ");
  const watermarks = profile.watermarks ?? { high: 0.8, low: 0.7 };
  const milliseconds = (value: number | null) =>
    value === null ? "unknown" : `${value.toPrecision(2)} ms`;
  const rows = [
    ["machine", `${printable(machine.processor)}, Node ${machine.nodeVersion}`],
    ["", `${count(facts.coreCount)} cores, ${machine.totalThreadCount} threads`],
    ["", `caches ${caches}; line ${bytes(facts.cacheLineBytes)}, page ${bytes(facts.pageBytes)}`],
    ["", `memory ${formatBytes(machine.totalMemoryBytes)}`],
    [
      "",
      `SIMD ${machine.hasSimd ? "yes" : "no"}, shared memory ${machine.hasSharedMemory ? "yes" : "no"}`,
    ],
    [
      "limits",
      `memory ${limits.memoryBytes === null ? "none" : formatBytes(limits.memoryBytes)}, ` +
        `processors ${limits.cpuCount ?? "none"}, open files ${count(machine.openFilesMax)}`,
    ],
    [
      "disk",
      `${disk.type ?? "unknown"}, ${formatBytes(disk.freeBytes)} of ${formatBytes(disk.totalBytes)} free`,
    ],
    ["profile", `${profile.name}: RAM budget ${formatBytes(profile.ramBudgetBytes)}`],
    [
      "",
      `granule ${profile.granuleBytes} B, arenas to ${formatBytes(profile.arenaBytesMax)}, ` +
        `chunks ${formatBytes(profile.chunkBytes)}, queue ${profile.queueDepth}`,
    ],
    [
      "",
      `codec ${profile.codec ?? "auto"}, ${countOf(profile.codecWorkerCount ?? 0, "codec worker")}, ` +
        `watermarks ${watermarks.high} and ${watermarks.low}, prefetch depth ${profile.prefetchDepthMax ?? 8}`,
    ],
    [
      "measured",
      `in ${calibration.durationMs.toFixed(0)} ms: copies ${rate(calibration.copyBytesPerSecond)}`,
    ],
    [
      "",
      `SSD write ${rate(calibration.ssdWriteBytesPerSecond)}, read ${rate(calibration.ssdReadBytesPerSecond)} ` +
        `(the system's cache included), ${milliseconds(calibration.ssdLatencyMs)} at least`,
    ],
    [
      "",
      `flushed to the disk ${rate(calibration.ssdDurableBytesPerSecond)}, ` +
        `${milliseconds(calibration.ssdDurableMs)} at least; best with ${count(calibration.ssdQueueDepth)} at once`,
    ],
    [
      "",
      `lossless coding ${rate(calibration.encodeBytesPerSecond)}, decoding ${rate(calibration.decodeBytesPerSecond)}`,
    ],
    ["kept in", printable(diagnosis.calibrationFile ?? "nowhere", 200)],
  ];
  const words = advice.map(({ isProblem, text }) => `${isProblem ? "problem" : "advice"}: ${text}`);
  const verdict = diagnosis.isHealthy ? "no problem found" : "there are problems";
  return `${formatTable(rows)}\n\n${[...words, verdict].join("\n")}\n`;
}

async function doctor(directory: string, options: CommandOptions, io: CommandIo): Promise<number> {
  const diagnosis = await examine(directory, options);
  const isJson = options["json"] === true;
  io.out.write(isJson ? `${JSON.stringify(diagnosis, null, 2)}\n` : describeDiagnosis(diagnosis));
  return diagnosis.isHealthy ? 0 : EXIT_DAMAGED;
}

export const DOCTOR: Command = {
  synopsis: "doctor [DIR]",
  defaultTarget: ".tierheap",
  summary: "Examines machine and disk, measures them, and gives advice.",
  help: `  --ram SIZE   the RAM budget to judge, such as 4GiB (what the profile says)
  --ssd SIZE   the disk budget to judge
  --json       print JSON

DIR is the directory of a store, .tierheap if it is left out; it need not be there, but what it lies in
does. Measures for 300 ms beside it and keeps the result as DIR-calibration.json, which memories with
the profile "auto" use from then on. Exit code 1 when a memory would fail here.
`,
  options: { json: { type: "boolean" }, ram: { type: "string" }, ssd: { type: "string" } },
  run: doctor,
};
