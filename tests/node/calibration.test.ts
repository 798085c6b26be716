// What is measured of a machine, how long that may take, how it is kept, and what it changes.
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Clock, systemClock } from "../../src/clock.js";
import { unitCodec } from "../../src/codec/unit-codec.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import { autoProfile } from "../../src/hardware/auto-profile.js";
import { calibrate } from "../../src/hardware/calibrate.js";
import {
  type Calibration,
  type CalibrationPlace,
  encodeCalibration,
  judgeCalibration,
  NO_FIGURES,
} from "../../src/hardware/calibration.js";
import {
  calibrationPath,
  describeMachine,
  nodeCalibrationPlace,
} from "../../src/hardware/calibration-node.js";
import { detectHardware } from "../../src/hardware/detect-node.js";
import { HARDWARE_PROFILES, type HardwareProfile } from "../../src/hardware/hardware-profile.js";
import { tunedProfile } from "../../src/hardware/tuned-profile.js";

import type { TensorMemoryOptions } from "../../src/memory/options.js";
import { createTensorMemory } from "../../src/node.js";
import { manualClock, memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import type { Tier } from "../../src/tier/tier.js";
import { temporaryDirectory } from "../support/directories.js";

const LIMIT_MS = 300;
const DAY_MS = 24 * 3_600_000;
const detected = HARDWARE_PROFILES.get("generic") as HardwareProfile;
const createCodec = () => unitCodec({ createMemory: createUnsharedMemory });

const measured: Calibration = {
  ...NO_FIGURES,
  machine: "one",
  measuredMs: 1000 * DAY_MS,
  durationMs: 200,
  copyBytesPerSecond: 10e9,
  ssdWriteBytesPerSecond: 2e9,
  ssdReadBytesPerSecond: 4e9,
  ssdDurableBytesPerSecond: 1e9,
  ssdDurableMs: 1,
  ssdLatencyMs: 0.05,
  ssdQueueDepth: 2,
  encodeBytesPerSecond: 500e6,
  decodeBytesPerSecond: 1e9,
};

/** A place in this process, which remembers what was asked of it. */
function placeOf(tier: Tier, text: string | null = null) {
  const place = {
    machine: "one",
    text,
    madeCount: 0,
    removedCount: 0,
    read: async () => place.text,
    write: async (written: string) => {
      place.text = written;
    },
    makeTier: () => {
      place.madeCount += 1;
      return tier;
    },
    removeTier: async () => {
      place.removedCount += 1;
    },
  };
  return place satisfies CalibrationPlace;
}

/** A tier whose every call takes so long; Infinity: for ever. */
function slowTier(clock: ReturnType<typeof manualClock>, callMs: number): Tier {
  const inner = memoryTier();
  const pass = async () => {
    if (callMs === Number.POSITIVE_INFINITY) await new Promise(() => {});
    clock.advance(callMs);
  };
  return {
    ...inner,
    open: async () => {
      await pass();
      await inner.open();
    },
    begin: async (...parameters) => {
      await pass();
      return inner.begin(...parameters);
    },
    openRead: async (key) => {
      await pass();
      return inner.openRead(key);
    },
    close: async () => {
      await pass();
      await inner.close();
    },
  };
}

/** Lets a manual clock go on while work waits for it. */
async function passing<T>(clock: ReturnType<typeof manualClock>, work: Promise<T>): Promise<T> {
  let isDone = false;
  const end = () => {
    isDone = true;
  };
  work.then(end, end);
  while (!isDone) {
    await systemClock.sleep(1);
    if (clock.deferredCount > 0) clock.advance(5);
  }
  return work;
}

/** What a folder holds once nothing is being removed from it: on a busy machine nobody waits for that. */
async function settled(folder: string): Promise<string[]> {
  const isLeft = async () => (await readdir(folder)).some((name) => name.includes("calibrating"));
  await expect.poll(isLeft, { timeout: 20_000 }).toBe(false);
  return (await readdir(folder)).sort();
}

describe("measuring", () => {
  it("finds out about RAM, the disk and the codec of this machine, and leaves nothing behind", async () => {
    const folder = await temporaryDirectory();
    const place = nodeCalibrationPlace({ directory: join(folder, "store") });
    // As long as a busy machine may need.
    const calibration = await calibrate({
      ...{ place, clock: systemClock, createCodec },
      limitMs: 20_000,
    });
    for (const [name, value] of Object.entries(calibration)) {
      if (name.startsWith("gpu")) expect(value, name).toBeNull();
      else if (name !== "machine") expect(value, name).toBeGreaterThan(0);
    }
    expect(calibration.ssdQueueDepth).toBeLessThanOrEqual(4);
    expect(calibration.machine).toBe(describeMachine());
    expect(await readdir(folder)).toEqual([]);
  });

  it("ends soon on this machine, with figures", async () => {
    const folder = await temporaryDirectory();
    const place = nodeCalibrationPlace({ directory: join(folder, "store") });
    const calibration = await calibrate({ place, clock: systemClock, createCodec });
    expect(await settled(folder)).toEqual([]);
    // What computes is not interrupted: a part that was begun is ended.
    expect(calibration.durationMs).toBeLessThan(4 * LIMIT_MS);
    expect(calibration.copyBytesPerSecond).toBeGreaterThan(0);
  });

  it.each([1, 20, 70, 250, 1000])("ends in time where each call takes %d ms", async (callMs) => {
    const clock = manualClock();
    const place = placeOf(slowTier(clock, callMs));
    const startMs = clock.monotonicMs();
    const calibration = await passing(clock, calibrate({ place, clock, createCodec }));
    // The call that was under way at the end has moved the clock itself.
    expect(calibration.durationMs).toBeLessThanOrEqual(LIMIT_MS + 2 * callMs);
    expect(clock.monotonicMs() - startMs).toBeGreaterThan(0);
    expect(calibration.ssdWriteBytesPerSecond === null).toBe(callMs >= 250);
  });

  it("ends in time where the disk never answers", async () => {
    const clock = manualClock();
    const place = placeOf(slowTier(clock, Number.POSITIVE_INFINITY));
    const calibration = await passing(clock, calibrate({ place, clock, createCodec }));
    expect(calibration.durationMs).toBeLessThanOrEqual(LIMIT_MS + 5);
    expect(calibration).toMatchObject({ ssdReadBytesPerSecond: null, ssdLatencyMs: null });
  });

  it("leaves unknown what fails", async () => {
    const inner = memoryTier();
    const failing = (): never => {
      throw new Error("no");
    };
    const calibration = await calibrate({
      place: placeOf({ ...inner, begin: async () => failing() }),
      clock: systemClock,
      createCodec: () => ({ ...createCodec(), load: async () => failing() }),
      gpu: { createBuffer: failing, createCommandEncoder: failing } as never,
      limitMs: 10_000,
    });
    expect(calibration).toMatchObject({ ssdWriteBytesPerSecond: null, encodeBytesPerSecond: null });
    expect(calibration.gpuUploadBytesPerSecond).toBeNull();
    expect(calibration.copyBytesPerSecond).toBeGreaterThan(0);
  });

  it("is told by the clock alone how fast something was", async () => {
    const clock = manualClock();
    const inner = memoryTier();
    await inner.open();
    // Each megabyte takes 2 ms to write, and opening to read 1 ms.
    const tier: Tier = {
      ...inner,
      begin: async (key, byteLength) => {
        const writer = await inner.begin(key, byteLength);
        if (writer === "no-space") return writer;
        const write: typeof writer.write = async (source) => {
          clock.advance((2 * source.byteLength) / 2 ** 20);
          return writer.write(source);
        };
        return { ...writer, write };
      },
      openRead: async (key) => {
        clock.advance(1);
        return inner.openRead(key);
      },
    };
    const calibration = await calibrate({ place: placeOf(tier), clock, createCodec });
    expect(calibration.ssdWriteBytesPerSecond).toBeCloseTo(2 ** 20 * 500, 0);
    expect(calibration.ssdLatencyMs).toBe(1);
    expect(calibration.ssdReadBytesPerSecond).toBeCloseTo(2 ** 20 * 1000, 0);
    // One opening at a time passes, however many are asked for.
    expect(calibration.ssdQueueDepth).toBe(1);
    // It promises nothing; and for what computes, this clock stands still.
    expect(calibration.ssdDurableMs).toBeNull();
    expect(calibration.encodeBytesPerSecond).toBeNull();
  });

  it("takes more reads at once where they are faster together", async () => {
    const clock = manualClock();
    const inner = memoryTier();
    const waiting: (() => void)[] = [];
    const openRead: Tier["openRead"] = async (key) => {
      // Whoever waits in the same turn is served together, in 4 ms.
      await new Promise<void>((go) => {
        waiting.push(go);
        if (waiting.length > 1) return;
        systemClock.defer(0, () => {
          clock.advance(4);
          for (const each of waiting.splice(0)) each();
        });
      });
      return inner.openRead(key);
    };
    const calibration = await calibrate({
      place: placeOf({ ...inner, openRead }),
      clock,
      createCodec,
    });
    expect(calibration.ssdQueueDepth).toBe(4);
  });
});

describe("a kept calibration", () => {
  const nowMs = measured.measuredMs + DAY_MS;
  const verdictOf = (text: string | null, machine = "one", atMs = nowMs) =>
    judgeCalibration(text, machine, atMs).verdict;

  it("comes back as it was", () => {
    expect(judgeCalibration(encodeCalibration(measured), "one", nowMs)).toEqual({
      verdict: "valid",
      calibration: measured,
    });
  });

  it("does not count where it is missing, of another machine or version, or too old", () => {
    const text = encodeCalibration(measured);
    expect(verdictOf(null)).toBe("missing");
    expect(verdictOf(text, "another")).toBe("other-machine");
    expect(verdictOf(text, "one", nowMs + 30 * DAY_MS)).toBe("too-old");
    expect(verdictOf(text, "one", nowMs - 40 * DAY_MS)).toBe("too-old");
    const later = text.replace('"tierheapCalibration": 1', '"tierheapCalibration": 2');
    expect(verdictOf(later)).toBe("other-version");
  });

  it("does not count with any byte changed or cut off", () => {
    const text = encodeCalibration(measured);
    const verdicts = new Set<string>();
    let changedCount = 0;
    for (let index = 0; index < text.length - 1; index++) {
      const character = text.charCodeAt(index) ^ 1;
      const changed = text.slice(0, index) + String.fromCharCode(character) + text.slice(index + 1);
      changedCount += 1;
      verdicts.add(verdictOf(changed));
      verdicts.add(verdictOf(text.slice(0, index)));
    }
    expect(changedCount).toBeGreaterThan(500);
    // Where only the number of the version or blank space has changed.
    verdicts.delete("other-version");
    expect([...verdicts].sort()).toEqual(["damaged"]);
  });

  it.each(["", "null", "[]", "7", "{}", '{"tierheapCalibration":1}', " ".repeat(20_000)])(
    "does not count if it is %j",
    (text) => expect(["damaged", "other-version"]).toContain(verdictOf(text)),
  );

  it("does not count with figures that are none, though their sum is right", () => {
    for (const ssdLatencyMs of [-1, "1", Number.NaN]) {
      const text = encodeCalibration({ ...measured, ssdLatencyMs: ssdLatencyMs as number });
      // JSON has no NaN: it is a null, which is a figure that is not known.
      expect(verdictOf(text)).toBe(Number.isNaN(ssdLatencyMs) ? "valid" : "damaged");
    }
  });
});

describe("the profile auto", () => {
  const optionsOf = (place: CalibrationPlace, isWanted: boolean) => {
    // As much time passes as it is asked for: there is enough of it on any machine.
    let nowMs = 0;
    const monotonicMs = () => {
      nowMs += 0.1;
      return nowMs;
    };
    const clock: Clock = { ...manualClock(), monotonicMs, wallMs: () => measured.measuredMs };
    return { detected, place, clock, createCodec, isWanted };
  };

  it("uses what is kept, and does not measure", async () => {
    const place = placeOf(memoryTier(), encodeCalibration(measured));
    const profile = await autoProfile(optionsOf(place, true));
    expect(profile).toEqual(tunedProfile(detected, measured));
    expect(place.madeCount).toBe(0);
  });

  it("is what was detected where nothing valid is kept, unless measuring is asked for", async () => {
    for (const text of [null, "damaged"]) {
      const place = placeOf(memoryTier(), text);
      expect(await autoProfile(optionsOf(place, false))).toBe(detected);
      expect(place.madeCount).toBe(0);
      const tuned = await autoProfile(optionsOf(place, true));
      expect(tuned.tiers?.ssd?.readBytesPerSecond).toBeGreaterThan(0);
      expect(place).toMatchObject({ madeCount: 1, removedCount: 1 });
      expect(judgeCalibration(place.text, "one", measured.measuredMs).verdict).toBe("valid");
    }
  });

  it("works where nothing can be read or kept", async () => {
    const place = placeOf(memoryTier());
    const failing = async () => Promise.reject(new Error("EROFS"));
    const broken = { ...place, read: failing, write: failing };
    const profile = await autoProfile(optionsOf(broken, true));
    expect(profile.name).toBe("generic, calibrated");
  });
});

describe("tuning", () => {
  const tuned = (changes: Partial<Calibration>, workers = 0) =>
    tunedProfile({ ...detected, codecWorkerCount: workers }, { ...measured, ...changes });

  it("says what tiers are expected to do", () => {
    expect(tuned({ gpuUploadBytesPerSecond: 5e9, gpuReadbackBytesPerSecond: 3e9 }).tiers).toEqual({
      ram: { readBytesPerSecond: 10e9, writeBytesPerSecond: 10e9 },
      ssd: { readBytesPerSecond: 4e9, writeBytesPerSecond: 2e9, latencyMs: 0.05 },
      gpu: { readBytesPerSecond: 3e9, writeBytesPerSecond: 5e9 },
    });
    expect(tuned({ ...NO_FIGURES }).tiers).toEqual({});
  });

  it("leaves coding out where it cannot pay, on the device itself", () => {
    // 3 ns a byte to code, on one thread; 2 ns there and back.
    expect(tuned({}).codec).toBe("when-full");
    // Two threads: 1.5 ns.
    expect(tuned({}, 1).codec).toBeUndefined();
    expect(tuned({ ssdDurableBytesPerSecond: 500e6 }).codec).toBeUndefined();
    expect(tuned({ ssdDurableBytesPerSecond: null }).codec).toBeUndefined();
    expect(tuned({ encodeBytesPerSecond: null }).codec).toBeUndefined();
  });

  it("prepares earlier and guesses further where the device is slow", () => {
    expect(tuned({ ssdDurableBytesPerSecond: 50e6 })).toMatchObject({
      watermarks: { high: 0.7, low: 0.6 },
      prefetchDepthMax: 16,
    });
    expect(tuned({})).not.toHaveProperty("watermarks");
    expect(tuned({ ssdDurableBytesPerSecond: null })).not.toHaveProperty("prefetchDepthMax");
  });

  it("takes as many transfers at once as were faster, two at least", () => {
    expect(tuned({ ssdQueueDepth: 4 }).queueDepth).toBe(4);
    expect(tuned({ ssdQueueDepth: 1 }).queueDepth).toBe(2);
    expect(tuned({ ssdQueueDepth: null }).queueDepth).toBe(detected.queueDepth);
  });
});

describe("a memory", () => {
  const openIn = (directory: string, options: TensorMemoryOptions = {}) =>
    createTensorMemory({ budgets: { ram: "64MiB", ssd: "64MiB" }, ssd: { directory }, ...options });

  it("measures when asked to, keeps it beside the store, and uses it from then on", async () => {
    const folder = await temporaryDirectory();
    const directory = join(folder, "store");
    const first = await openIn(directory);
    expect(first.stats().profile).toBe("node");
    await first.close();
    expect(await readdir(folder)).toEqual(["store"]);
    const second = await openIn(directory, { calibrate: true });
    expect(second.stats().profile).toBe("node, calibrated");
    await second.close();
    expect(await settled(folder)).toEqual(["store", "store-calibration.json"]);
    const text = await readFile(calibrationPath(directory), "utf8");
    const third = await openIn(directory, { profile: "auto" });
    expect(third.stats().profile).toBe("node, calibrated");
    await third.close();
    const fourth = await openIn(directory, { calibrate: true });
    await fourth.close();
    expect(await readFile(calibrationPath(directory), "utf8")).toBe(text);
  });

  it("expects of its tier what was measured, before the first load", async () => {
    const directory = join(await temporaryDirectory(), "store");
    const kept = { ...measured, machine: describeMachine(), measuredMs: systemClock.wallMs() };
    await writeFile(calibrationPath(directory), encodeCalibration(kept));
    const memory = await openIn(directory);
    memory.allocate({ kind: "KV_CACHE", byteLength: 4e6, id: "a", zero: true });
    await memory.swapOut("a");
    const estimate = await memory.estimateRestore("a");
    const { storedBytes } = memory.stats().tier;
    expect(estimate?.restoreMs).toBeCloseTo(0.05 + (1000 * storedBytes) / 4e9, 1);
    await memory.close();
  });

  it("ignores a damaged one, and replaces it when asked to measure", async () => {
    const folder = await temporaryDirectory();
    const directory = join(folder, "store");
    await writeFile(calibrationPath(directory), "{");
    const first = await openIn(directory);
    expect(first.stats().profile).toBe("node");
    await first.close();
    const second = await openIn(directory, { calibrate: true });
    expect(second.stats().profile).toBe("node, calibrated");
    await second.close();
    await settled(folder);
    const text = await readFile(calibrationPath(directory), "utf8");
    const verdict = judgeCalibration(text, describeMachine(), systemClock.wallMs());
    expect(verdict.verdict).toBe("valid");
  });

  it("opens where a directory lies in the place of the file", async () => {
    const folder = await temporaryDirectory();
    const directory = join(folder, "store");
    await mkdir(calibrationPath(directory));
    const memory = await openIn(directory, { calibrate: true });
    expect(memory.stats().profile).toBe("node, calibrated");
    await memory.close();
    expect(await settled(folder)).toEqual(["store", "store-calibration.json"]);
  });

  it("measures on an injected file system", async () => {
    const fileSystem = memoryFileSystem();
    const memory = await openIn("/place/store", { calibrate: true, seams: { fileSystem } });
    expect(memory.stats().profile).toBe("node, calibrated");
    await memory.close();
    const names = () => [...fileSystem.files().keys()];
    expect(names()).toContain("/place/store-calibration.json");
    const isLeft = () => names().some((name) => name.includes("calibrating"));
    await expect.poll(isLeft, { timeout: 20_000 }).toBe(false);
  });

  it("does not look where a profile is named, or there is no device", async () => {
    const directory = join(await temporaryDirectory(), "store");
    const kept = { ...measured, machine: describeMachine(), measuredMs: systemClock.wallMs() };
    await writeFile(calibrationPath(directory), encodeCalibration(kept));
    for (const options of [
      { profile: "generic" },
      { budgets: { ram: "64MiB" } },
      { seams: { tier: memoryTier() } },
    ] as const) {
      const memory = await openIn(directory, options);
      expect(memory.stats().profile).not.toContain("calibrated");
      await memory.close();
    }
  });

  it.each([
    { calibrate: 1 },
    { calibrate: null },
    { calibrate: {} },
    { calibrate: { gpu: {} } },
    { calibrate: { gpu: null } },
    { calibrate: true, profile: "generic" },
    { calibrate: true, budgets: { ram: "64MiB" } },
    { calibrate: true, seams: { tier: memoryTier() } },
  ])("refuses %o", async (options) => {
    const opening = openIn("unused", options as never);
    await expect(opening).rejects.toMatchObject({ code: "bad-option" });
  });

  it("has usable figures however it was tuned", () => {
    const profile = tunedProfile(detectHardware(), measured);
    expect(profile.machine).toEqual(detectHardware().machine);
    expect(profile.ramBudgetBytes).toBe(detectHardware().ramBudgetBytes);
  });
});
