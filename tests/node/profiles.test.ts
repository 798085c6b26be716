// What each field of a hardware profile sets, and what detection makes of machines and containers.
import { describe, expect, it } from "vitest";
import { containerLimits } from "../../src/hardware/container-limits.js";
import { detectHardware, type NodeMachine, nodeMachine } from "../../src/hardware/detect-node.js";
import { HARDWARE_PROFILES, type HardwareProfile } from "../../src/hardware/hardware-profile.js";
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier } from "../../src/testing/index.js";
import { allocateFilled } from "../support/filled.js";
import { openMemory } from "../support/oracle.js";

const KIB = 1024;
const MIB = 2 ** 20;
const generic = HARDWARE_PROFILES.get("generic") as HardwareProfile;

const openWith = (profile: Partial<HardwareProfile>, options: TensorMemoryOptions = {}) =>
  openMemory({
    ...options,
    profile: { ...generic, ...profile },
    seams: { tier: memoryTier(), ...options.seams },
  });

/** Fills a memory, and lets the background end what it began. */
async function fillUp(memory: TensorMemory, count: number, byteLength: number) {
  for (let index = 0; index < count; index++) {
    allocateFilled(memory, `t${index}`, byteLength, index);
    do await new Promise((resolve) => setImmediate(resolve));
    while (memory.stats().background.isRunning);
  }
  return memory.stats();
}

/** A tensor whose bytes get shorter in every codec. */
async function swapOutZeros(memory: TensorMemory, count: number) {
  for (let index = 0; index < count; index++) {
    memory.allocate({ kind: "KV_CACHE", byteLength: 64 * KIB, id: `z${index}`, zero: true });
    await memory.swapOut(`z${index}`);
  }
  const { codecs } = memory.stats();
  return codecs
    .filter(({ codec }) => codec !== "raw")
    .reduce((sum, { tensorCount }) => sum + tensorCount, 0);
}

/** One figure of a memory for each field, at two settings that must differ. */
interface FieldCase {
  readonly settings: readonly [Partial<HardwareProfile>, Partial<HardwareProfile>];
  readonly expected: readonly [unknown, unknown];
  measure(profile: Partial<HardwareProfile>): Promise<unknown>;
}

const FIELDS: Record<Exclude<keyof HardwareProfile, "machine">, FieldCase> = {
  name: {
    settings: [{ name: "one" }, { name: "two" }],
    expected: ["one", "two"],
    measure: async (profile) => (await openWith(profile)).stats().profile,
  },
  granuleBytes: {
    settings: [{ granuleBytes: 64 }, { granuleBytes: 4096 }],
    // What a block takes that is shorter than either.
    expected: [64, 4096],
    measure: async (profile) => {
      const memory = await openWith(profile);
      memory.allocate({ kind: "KV_CACHE", byteLength: 10 });
      return memory.stats().pools[0]?.grantedBytes;
    },
  },
  alignmentBytes: {
    settings: [{}, { alignmentBytes: 4096 }],
    expected: [false, true],
    measure: async (profile) => {
      const memory = await openWith(profile);
      const offsets = Array.from({ length: 5 }, () => {
        const tensor = memory.allocate({ kind: "KV_CACHE", byteLength: 5000 });
        using pin = tensor.pin();
        return pin.view.byteOffset;
      });
      // Shorter ones lie as they did.
      memory.allocate({ kind: "ACTIVATIONS", byteLength: 100 });
      const short = memory.stats().pools.find(({ kind }) => kind === "ACTIVATIONS");
      expect(short?.grantedBytes).toBe(128);
      return offsets.every((offset) => offset % 4096 === 0);
    },
  },
  arenaBytesMax: {
    settings: [{ arenaBytesMax: MIB }, { arenaBytesMax: 2 * MIB }],
    expected: [MIB, 2 * MIB],
    measure: async (profile) => {
      const memory = await openWith(profile);
      memory.allocate({ kind: "KV_CACHE", byteLength: 10 });
      return memory.stats().pools[0]?.arenaBytes;
    },
  },
  chunkBytes: {
    settings: [{ chunkBytes: MIB / 8 }, { chunkBytes: MIB / 4 }],
    // Each of the two staging buffers, and what the coder looks ahead.
    expected: [0, (3 * MIB) / 8],
    measure: async (profile) => {
      const staged = async (chunkBytes: number) =>
        (await openWith({ chunkBytes })).stats().budget.byCategory.staging as number;
      return (await staged(profile.chunkBytes as number)) - (await staged(MIB / 8));
    },
  },
  queueDepth: {
    settings: [{ queueDepth: 1 }, { queueDepth: 3 }],
    expected: [1, 3],
    measure: async (profile) => {
      let writing = 0;
      let peak = 0;
      const inner = memoryTier();
      const begin: typeof inner.begin = async (...parameters) => {
        peak = Math.max(peak, ++writing);
        const writer = await inner.begin(...parameters);
        if (writer === "no-space") return writer;
        const write: typeof writer.write = async (source) => {
          for (let turn = 0; turn < 5; turn++) await new Promise((go) => setImmediate(go));
          writing = Math.max(0, writing - 1);
          return writer.write(source);
        };
        return { ...writer, write };
      };
      const memory = await openWith(profile, { seams: { tier: { ...inner, begin } } });
      const ids = Array.from({ length: 6 }, (_, index) => `t${index}`);
      for (const [index, id] of ids.entries()) allocateFilled(memory, id, 20 * KIB, index);
      await Promise.all(ids.map((id) => memory.swapOut(id)));
      return peak;
    },
  },
  ramBudgetBytes: {
    settings: [{ ramBudgetBytes: 20 * MIB }, { ramBudgetBytes: 40 * MIB }],
    expected: [20 * MIB, 40 * MIB],
    measure: async (profile) =>
      (await openWith(profile, { budgets: {} })).stats().budget.limitBytes,
  },
  codecWorkerCount: {
    settings: [{}, { codecWorkerCount: 2 }],
    expected: [false, true],
    measure: async (profile) => {
      const options = { budgets: { ram: "64MiB" } } as const;
      const staged = async (each: Partial<HardwareProfile>) =>
        (await openWith(each, options)).stats().budget.byCategory.staging as number;
      return (await staged(profile)) - (await staged({})) > 4 * MIB;
    },
  },
  watermarks: {
    settings: [{}, { watermarks: { high: 0.4, low: 0.3 } }],
    expected: [true, false],
    measure: async (profile) => {
      const { background, budget } = await fillUp(await openWith(profile), 20, MIB / 2);
      expect(background.budgetRunCount > 0).toBe(profile.watermarks !== undefined);
      return background.highBytes > 0.5 * budget.limitBytes;
    },
  },
  codec: {
    settings: [{ codec: "when-full" }, { codec: "lossless" }],
    expected: [0, 8],
    measure: async (profile) => swapOutZeros(await openWith(profile), 8),
  },
  prefetchDepthMax: {
    settings: [{ prefetchDepthMax: 1 }, { prefetchDepthMax: 5 }],
    expected: [1, 5],
    measure: async (profile) => {
      const ids = Array.from({ length: 7 }, (_, index) => `t${index}`);
      const predictor = { name: "all", observe: () => ids.slice(1) };
      const memory = await openWith(profile, { seams: { predictor: predictor as never } });
      for (const [index, id] of ids.entries()) {
        allocateFilled(memory, id, 4 * KIB, index);
        await memory.swapOut(id);
      }
      using _lease = await memory.acquire("t0", { access: "read", stream: "s" });
      for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
      return memory.stats().prefetch.issuedCount;
    },
  },
  tiers: {
    settings: [
      {},
      { tiers: { ssd: { readBytesPerSecond: 1e6, writeBytesPerSecond: 1e6, latencyMs: 3 } } },
    ],
    // A megabyte, after the latency; unknown before anything was loaded.
    expected: [null, 1003],
    measure: async (profile) => {
      const memory = await openWith(profile);
      memory.allocate({ kind: "KV_CACHE", byteLength: 1e6, id: "a" });
      await memory.swapOut("a");
      return (await memory.estimateRestore("a"))?.restoreMs ?? null;
    },
  },
};

describe("a field of a profile", () => {
  for (const [name, { settings, expected, measure }] of Object.entries(FIELDS)) {
    it(`sets what it says: ${name}`, async () => {
      expect(expected[0]).not.toEqual(expected[1]);
      for (const index of [0, 1] as const) {
        expect(await measure(settings[index]), `setting ${index}`).toEqual(expected[index]);
      }
    });
  }

  it("gives way to what the caller says", async () => {
    const profile = { watermarks: { high: 0.3, low: 0.2 }, codec: "lossless" } as const;
    const options = { watermarks: { high: 1 }, codecs: { default: "raw" } } as const;
    const memory = await openWith(profile, options);
    expect((await fillUp(memory, 20, MIB / 2)).background.budgetRunCount).toBe(0);
    expect(await swapOutZeros(memory, 4)).toBe(0);
  });

  it("is known before of each tier of a stack", async () => {
    const tiers = { warm: { readBytesPerSecond: 1e6, writeBytesPerSecond: 1e6 } } as never;
    const memory = await openWith({ tiers }, { budgets: { ram: "16MiB", warm: "4MiB" } });
    const warm = memory.stats().tiers.find(({ name }) => name === "warm");
    expect(warm?.bytesPerSecond).toBe(1e6);
  });

  it("when-full: codes where the tier is nearly full, and nowhere else", async () => {
    const tier = memoryTier({ capacityBytes: 330 * KIB });
    const memory = await openWith({ codec: "when-full" }, { seams: { tier } });
    expect(await swapOutZeros(memory, 3)).toBe(0);
    for (let index = 3; index < 8; index++) {
      memory.allocate({ kind: "KV_CACHE", byteLength: 64 * KIB, id: `z${index}`, zero: true });
      await memory.swapOut(`z${index}`);
    }
    expect(memory.stats().codecs.some(({ codec }) => codec !== "raw")).toBe(true);
  });

  it.each([
    { alignmentBytes: 3 },
    { alignmentBytes: 131_072 },
    { watermarks: { high: 0.5, low: 0.6 } },
    { codec: "smaller" },
    { prefetchDepthMax: 0 },
    { prefetchDepthMax: 65 },
    { tiers: { ssd: { readBytesPerSecond: 0, writeBytesPerSecond: 1 } } },
    { tiers: { ssd: null } },
  ])("is refused out of range: %o", async (profile) => {
    await expect(openWith(profile as never)).rejects.toMatchObject({ code: "bad-option" });
  });
});

describe("presets", () => {
  it("have the figures that the documents give", () => {
    const named = ["generic", "phone", "laptop", "desktop", "server", "i5-10210u-sm61-nvme"];
    expect([...HARDWARE_PROFILES.keys()]).toEqual(named);
    const { machine, tiers } = HARDWARE_PROFILES.get("i5-10210u-sm61-nvme") as HardwareProfile;
    expect(machine).toEqual({
      ...{ coreCount: 4, threadCount: 8, l1Bytes: 32 * KIB, l2Bytes: 256 * KIB, l3Bytes: 6 * MIB },
      ...{ cacheLineBytes: 64, warpBytes: 128, pageBytes: 4096 },
    });
    expect(tiers?.ssd?.readBytesPerSecond).toBeGreaterThanOrEqual(3e9);
    expect(tiers?.gpu).toMatchObject({ readBytesPerSecond: 200e9, capacityBytes: 8e9 });
  });

  it.each([...HARDWARE_PROFILES.keys()])("%s opens, and holds a tensor", async (name) => {
    const memory = await openMemory({ profile: name, budgets: {} });
    memory.allocate({ kind: "KV_CACHE", byteLength: 1000, zero: true });
    expect(memory.stats()).toMatchObject({ profile: name, tensors: { count: 1 } });
  });
});

/** Files of a kernel, by path. */
const reading = (files: Record<string, string>) => (path: string) => files[path] ?? null;
const CGROUP2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
const GIB = 2 ** 30;

describe("limits of a container", () => {
  it("of version 2: a group of its own as the root", () => {
    const read = reading({
      "/proc/self/cgroup": "0::/\n",
      "/proc/self/mountinfo": CGROUP2,
      "/sys/fs/cgroup/memory.max": `${GIB}\n`,
      "/sys/fs/cgroup/memory.high": "max\n",
      "/sys/fs/cgroup/cpu.max": "150000 100000\n",
    });
    expect(containerLimits(read)).toEqual({ memoryBytes: GIB, cpuCount: 1.5 });
  });

  it("of version 2: the least of a group and those above it", () => {
    const read = reading({
      "/proc/self/cgroup": "0::/user.slice/app.scope\n",
      "/proc/self/mountinfo": CGROUP2,
      "/sys/fs/cgroup/user.slice/app.scope/memory.max": "max\n",
      "/sys/fs/cgroup/user.slice/app.scope/cpu.max": "max 100000\n",
      "/sys/fs/cgroup/user.slice/memory.max": `${3 * GIB}\n`,
      "/sys/fs/cgroup/user.slice/memory.high": `${2 * GIB}\n`,
      "/sys/fs/cgroup/user.slice/cpu.max": "200000 100000\n",
    });
    expect(containerLimits(read)).toEqual({ memoryBytes: 2 * GIB, cpuCount: 2 });
  });

  it("of version 1: controllers of their own, mounted from a container's group", () => {
    const read = reading({
      "/proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n",
      "/proc/self/mountinfo":
        "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
        "35 31 0:32 /docker/ab /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n",
      "/sys/fs/cgroup/memory/memory.limit_in_bytes": `${GIB}\n`,
      "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
      "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    });
    expect(containerLimits(read)).toEqual({ memoryBytes: GIB, cpuCount: 0.5 });
  });

  it("of version 1: none", () => {
    const read = reading({
      "/proc/self/cgroup": "4:memory:/a\n2:cpu:/\n",
      "/proc/self/mountinfo":
        "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
      "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
      "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
      "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    });
    expect(containerLimits(read)).toEqual({ memoryBytes: null, cpuCount: null });
  });

  it.each([
    {},
    { "/proc/self/cgroup": "0::/a\n" },
    { "/proc/self/cgroup": "nonsense\n::\n", "/proc/self/mountinfo": "x\n - \n" },
    {
      "/proc/self/cgroup": "0::/\n",
      "/proc/self/mountinfo": CGROUP2,
      "/sys/fs/cgroup/memory.max": "lots\n",
      "/sys/fs/cgroup/cpu.max": "",
    },
  ])("are unknown where the files are not there or say nonsense: %o", (files) => {
    expect(containerLimits(reading(files as never))).toEqual({ memoryBytes: null, cpuCount: null });
  });
});

describe("detection", () => {
  const machineOf = (parts: Partial<NodeMachine>): NodeMachine => ({
    read: () => null,
    totalMemoryBytes: () => 64 * GIB,
    constrainedMemoryBytes: () => 2 ** 64,
    availableParallelism: () => 8,
    ...parts,
  });
  const inContainer = reading({
    "/proc/self/cgroup": "0::/\n",
    "/proc/self/mountinfo": CGROUP2,
    "/sys/fs/cgroup/memory.max": `${4 * GIB}\n`,
    "/sys/fs/cgroup/cpu.max": "250000 100000\n",
  });

  it("takes the machine where nothing limits it", () => {
    expect(detectHardware(machineOf({}))).toMatchObject({
      ...{ ramBudgetBytes: 8 * GIB, codecWorkerCount: 4 },
      machine: { memoryBytes: 64 * GIB, threadCount: 8 },
    });
  });

  it("takes a container's limits", () => {
    expect(detectHardware(machineOf({ read: inContainer }))).toMatchObject({
      ...{ ramBudgetBytes: GIB / 2, codecWorkerCount: 1 },
      machine: { memoryBytes: 4 * GIB, threadCount: 2 },
    });
    const { machine } = detectHardware(machineOf({ constrainedMemoryBytes: () => GIB }));
    expect(machine?.memoryBytes).toBe(GIB);
  });

  it("reads this machine", () => {
    const { machine } = detectHardware();
    expect(machine?.memoryBytes).toBeLessThanOrEqual(nodeMachine.totalMemoryBytes());
    expect(machine?.threadCount).toBeGreaterThan(0);
  });
});
