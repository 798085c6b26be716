// Every implementation of every seam against the suite that the package ships for it.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { bufferArenas } from "../../src/arena/buffer-arena.js";
import { linearArenas } from "../../src/arena/linear-arena.js";
import { systemClock } from "../../src/clock.js";
import { plainCodec } from "../../src/codec/plain.js";
import { unitCodec } from "../../src/codec/unit-codec.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import { detectHardware } from "../../src/hardware/detect-node.js";
import { HARDWARE_PROFILES, type HardwareProfile } from "../../src/hardware/hardware-profile.js";
import { learntLifetime } from "../../src/lifetime/learnt-lifetime.js";
import { toldLifetime } from "../../src/lifetime/told-lifetime.js";
import { unknownLifetime } from "../../src/lifetime/unknown-lifetime.js";
import { createTensorMemory } from "../../src/node.js";
import { admitAll } from "../../src/policy/admit-all.js";
import { admitReused } from "../../src/policy/admit-reused.js";
import { noPredictor } from "../../src/predictor/none.js";
import { reuseIntervals } from "../../src/predictor/reuse-intervals.js";
import { successorPredictor } from "../../src/predictor/successor.js";
import { unknownReuse } from "../../src/predictor/unknown-reuse.js";
import { seededRandom, systemRandom } from "../../src/random.js";
import { nullSink } from "../../src/stats/null-sink.js";
import { Recorder } from "../../src/stats/recorder.js";
import {
  admissionPolicyConformance,
  arenaConformance,
  type ConformanceCase,
  clockConformance,
  codecConformance,
  evictionPolicyConformance,
  faultyFileSystem,
  fileSystemConformance,
  hardwareProfileConformance,
  lifetimePredictorConformance,
  type ManualClock,
  manualClock,
  memoryFileSystem,
  predictorConformance,
  randomConformance,
  statsSinkConformance,
  type TierFixture,
  tierConformance,
  tierPredictorConformance,
} from "../../src/testing/index.js";
import type { FileSystem } from "../../src/tier/file-system.js";
import { nodeFileSystem } from "../../src/tier/file-system-node.js";
import { firstWorkingTier } from "../../src/tier/first-working.js";
import { FsTier } from "../../src/tier/fs.js";
import { memoryTier } from "../../src/tier/memory.js";
import { nullTier } from "../../src/tier/null.js";
import { EVICTION_POLICIES } from "../support/policies.js";
import { stackOf } from "../support/stacks.js";
import { writingBehind } from "../support/writes-behind.js";

function suite(name: string, cases: readonly ConformanceCase[]): void {
  describe(name, () => {
    for (const { name, skip, run } of cases) {
      if (skip === undefined) it(name, run);
      else it.skip(`${name} (${skip})`, () => {});
    }
  });
}

async function temporaryDirectory() {
  const parent = await mkdtemp(join(tmpdir(), "tierheap-conformance-"));
  return {
    directory: join(parent, "a", "b"),
    dispose: () => rm(parent, { recursive: true, force: true }),
  };
}

const fsTier = (fileSystem: FileSystem, directory: string, capacityBytes: number) =>
  new FsTier({ directory, fileSystem, capacityBytes, random: seededRandom(1) });

/** Files of which nothing can be changed while they are told to fail. */
function stoppable(inner: FileSystem) {
  let isStopped = false;
  const check = () => {
    if (isStopped) throw Object.assign(new Error("EIO (injected)"), { code: "EIO" });
  };
  const files: FileSystem = {
    ...inner,
    create: async (path) => {
      check();
      const writer = await inner.create(path);
      return {
        ...writer,
        write: async (sources, offset) => {
          check();
          return writer.write(sources, offset);
        },
      };
    },
    remove: async (path) => {
      check();
      return inner.remove(path);
    },
  };
  const failDeletions = (isFailing: boolean) => {
    isStopped = isFailing;
  };
  return { files, failDeletions };
}

async function nodeTier({ capacityBytes }: { capacityBytes: number }): Promise<TierFixture> {
  const { directory, dispose } = await temporaryDirectory();
  const { files, failDeletions } = stoppable(nodeFileSystem);
  const make = () => fsTier(files, directory, capacityBytes);
  return { tier: make(), reopened: async () => make(), failDeletions, dispose };
}

/** An fs tier in memory whose every write and read is short the first time. */
async function shortTier({ capacityBytes }: { capacityBytes: number }): Promise<TierFixture> {
  const short = faultyFileSystem(memoryFileSystem(), {
    at: 1,
    code: "EIO",
    lasts: "for-ever",
    write: "short",
  });
  const { files, failDeletions } = stoppable(short);
  const make = () => fsTier(files, "/store", capacityBytes);
  return { tier: make(), reopened: async () => make(), failDeletions, dispose: async () => {} };
}

/** Directories on real disks, the first one too short for what the suite stores in a small tier. */
async function stackFixture(levelCount: number, capacityBytes: number): Promise<TierFixture> {
  const { directory, dispose } = await temporaryDirectory();
  const isSmall = capacityBytes < 2 ** 20;
  const shares = isSmall ? [0, capacityBytes] : [capacityBytes / 4, (3 * capacityBytes) / 4];
  const { files, failDeletions } = stoppable(nodeFileSystem);
  const clocks: ManualClock[] = [];
  const make = () => {
    const stores = shares.map((bytes, index) => fsTier(files, join(directory, `${index}`), bytes));
    const warm = memoryTier({ name: "warm", capacityBytes: 0, needsReadBack: false });
    const { stack, clock } = stackOf(levelCount === 3 ? [warm, ...stores] : stores);
    clocks.push(clock);
    return stack;
  };
  return {
    tier: make(),
    reopened: async () => make(),
    failDeletions: (isFailing) => {
      failDeletions(isFailing);
      // A level that has failed is asked again.
      for (const clock of clocks) clock.advance(100_000);
    },
    dispose,
  };
}

suite(
  "Arena: linear",
  arenaConformance(async () => linearArenas(createUnsharedMemory)),
);
suite(
  "Arena: buffer",
  arenaConformance(async () => bufferArenas),
);

const noStorage = { reopened: async () => nullTier(), dispose: async () => {} };
suite("Tier: fs on Node", tierConformance(nodeTier));
suite(
  "Tier: fs in memory",
  tierConformance(async ({ capacityBytes }) => {
    const { files, failDeletions } = stoppable(memoryFileSystem());
    const make = () => fsTier(files, "/store", capacityBytes);
    return { tier: make(), reopened: async () => make(), failDeletions, dispose: async () => {} };
  }),
);
suite(
  "Tier: fs that is written behind",
  tierConformance(async ({ capacityBytes }) => {
    const { files, failDeletions } = stoppable(writingBehind(memoryFileSystem()));
    const make = () =>
      new FsTier({ directory: "/store", fileSystem: files, capacityBytes, packedBytesMax: 0 });
    return { tier: make(), reopened: async () => make(), failDeletions, dispose: async () => {} };
  }),
);
suite("Tier: fs with short writes and reads", tierConformance(shortTier));
suite(
  "Tier: memory",
  tierConformance(async (options) => ({ tier: memoryTier(options), ...noStorage }), {
    persistence: "it lives in memory",
    failures: "nothing in it can fail",
  }),
);
suite(
  "Tier: the first that works",
  tierConformance(async ({ capacityBytes }) => {
    const { files, failDeletions } = stoppable(memoryFileSystem());
    const broken = faultyFileSystem(memoryFileSystem(), { at: 1, code: "EIO", lasts: "for-ever" });
    const make = () => {
      const candidates = [broken, files].map((each) => () => fsTier(each, "/store", capacityBytes));
      return firstWorkingTier(
        "ssd",
        async () => candidates,
        () => {},
      );
    };
    return { tier: make(), reopened: async () => make(), failDeletions, dispose: async () => {} };
  }),
);

it("a memory tells of its tier after it was closed, and of the stores that did not work", async () => {
  const broken = faultyFileSystem(memoryFileSystem(), { at: 1, code: "EIO", lasts: "for-ever" });
  const refused: string[] = [];
  const tier = firstWorkingTier(
    "ssd",
    async () => [
      () => fsTier(broken, "/store", 1 << 20),
      () => fsTier(memoryFileSystem(), "/store", 1 << 20),
    ],
    ({ code }) => refused.push(code),
  );
  expect(tier.stats()).toMatchObject({ capacityBytes: 0, objectCount: 0 });
  const memory = await createTensorMemory({ budgets: { ram: "8MiB" }, seams: { tier } });
  memory.allocate({ kind: "KV_CACHE", id: "a", byteLength: 1000 });
  expect(await memory.swapOut("a")).toBe("stored");
  await memory.close();
  expect(memory.stats().tier).toMatchObject({ capacityBytes: 1 << 20, commitCount: 1 });
  expect(refused).toEqual(["io"]);
});

suite(
  "Tier: null",
  tierConformance(async () => ({ tier: nullTier(), ...noStorage }), {
    room: "it holds nothing",
    persistence: "it holds nothing",
    closing: "it holds nothing, open or closed",
  }),
);

suite(
  "Tier: stack of two directories",
  tierConformance((options) => stackFixture(2, options.capacityBytes)),
);
suite(
  "Tier: stack of RAM and two directories",
  tierConformance((options) => stackFixture(3, options.capacityBytes)),
);

suite(
  "Codec: plain",
  codecConformance(async () => plainCodec),
);
suite(
  "Codec: units",
  codecConformance(async () => unitCodec({ createMemory: createUnsharedMemory })),
);
const OTHER_ORDERS: Readonly<Record<string, string>> = {
  loop: "the newest leaves first",
  lirs: "the first ones to come fill the stack, the others pass through the queue",
};
for (const [name, make] of Object.entries(EVICTION_POLICIES)) {
  const orderOfArrival = OTHER_ORDERS[name];
  const lacks = orderOfArrival === undefined ? {} : { orderOfArrival };
  suite(
    `EvictionPolicy: ${name}`,
    evictionPolicyConformance(async () => make(), lacks),
  );
}
suite(
  "AdmissionPolicy: admit-all",
  admissionPolicyConformance(async () => admitAll),
);
suite(
  "AdmissionPolicy: admit-reused",
  admissionPolicyConformance(async () => admitReused({ capacityBytes: 2 ** 20 })),
);
suite(
  "Predictor: successor",
  predictorConformance(async () => successorPredictor()),
);
suite(
  "TierPredictor: reuse-intervals",
  tierPredictorConformance(async () => reuseIntervals()),
);
suite(
  "TierPredictor: unknown",
  tierPredictorConformance(async () => unknownReuse),
);
suite(
  "Predictor: none",
  predictorConformance(async () => noPredictor),
);
suite(
  "LifetimePredictor: unknown",
  lifetimePredictorConformance(async () => unknownLifetime),
);
suite(
  "LifetimePredictor: told",
  lifetimePredictorConformance(async () => toldLifetime),
);
suite(
  "LifetimePredictor: learnt",
  lifetimePredictorConformance(async () => learntLifetime()),
);
suite(
  "StatsSink: null",
  statsSinkConformance(async () => nullSink),
);
suite(
  "StatsSink: recorder",
  statsSinkConformance(
    async () => new Recorder({ clock: systemClock, next: nullSink, sampledOneIn: new Map() }),
  ),
);
for (const name of HARDWARE_PROFILES.keys()) {
  const profile = HARDWARE_PROFILES.get(name) as HardwareProfile;
  suite(
    `HardwareProfile: ${name}`,
    hardwareProfileConformance(async () => profile),
  );
}
suite(
  "HardwareProfile: detected",
  hardwareProfileConformance(async () => detectHardware()),
);
suite(
  "Clock: system",
  clockConformance(async () => ({ clock: systemClock, pass: () => {} })),
);
suite(
  "Clock: manual",
  clockConformance(async () => {
    const clock = manualClock();
    return { clock, pass: clock.advance };
  }),
);
suite(
  "Clock: manual, skipping",
  clockConformance(async () => {
    const clock = manualClock({ sleeping: "skip" });
    return { clock, pass: clock.advance };
  }),
);
suite(
  "Random: system",
  randomConformance(async () => systemRandom),
);
suite(
  "Random: seeded",
  randomConformance(async () => seededRandom(42)),
);
suite(
  "FileSystem: Node",
  fileSystemConformance(
    async () => ({ fileSystem: nodeFileSystem, ...(await temporaryDirectory()) }),
    { writesBehind: "a write is no message" },
  ),
);
suite(
  "FileSystem: memory, also written behind",
  fileSystemConformance(async () => ({
    fileSystem: writingBehind(memoryFileSystem()),
    directory: "/a/b",
    dispose: async () => {},
  })),
);
