// The composition root: chooses the parts, sizes them and wires them through their seams. With the
// platform files beside it, the only code that names implementations.
import { linearArenas } from "../arena/linear-arena.js";
import { Directory } from "../cache/directory.js";
import { Disposables } from "../cache/disposables.js";
import { HeldBlocks } from "../cache/held-blocks.js";
import { HierarchicalCache } from "../cache/hierarchical-cache.js";
import { MemorySwapper } from "../cache/memory-swapper.js";
import { PrefetchWindow } from "../cache/prefetch-window.js";
import { Prefetcher } from "../cache/prefetcher.js";
import { PressureWatch } from "../cache/pressure-watch.js";
import { Reclaimer } from "../cache/reclaimer.js";
import { RepeatedTensors } from "../cache/repeated-tensors.js";
import { VictimChoice } from "../cache/restore-cost.js";
import { SharedTensors } from "../cache/shared-tensors.js";
import { Staging } from "../cache/staging.js";
import { TensorAllocator } from "../cache/tensor-allocator.js";
import type { TensorRecord } from "../cache/tensor-record.js";
import { CHUNK_BYTES_MIN, TransferEngine } from "../cache/transfer-engine.js";
import { Victims } from "../cache/victims.js";
import { Workers } from "../cache/workers.js";
import { systemClock } from "../clock.js";
import type { Codec } from "../codec/codec.js";
import { CODEC_WORKER_BYTES, unitCodec } from "../codec/unit-codec.js";
import { ARENA_CAPACITY_MAX, ControlPlane, SLOT_CAPACITY_MAX } from "../core/control-plane.js";
import { Hasher } from "../core/hash-stream.js";
import { compileKernels } from "../core/kernels-module.js";
import { createSharedMemory, createUnsharedMemory } from "../core/linear-memory.js";
import { arenaMetadataBytesMax } from "../core/metadata-bytes.js";
import { MisuseError, throwIfAborted } from "../errors.js";
import type { HardwareProfile } from "../hardware/hardware-profile.js";
import { ArenaShelf } from "../memory/arena-shelf.js";
import { AutoCompaction } from "../memory/auto-compaction.js";
import { Budget } from "../memory/budget.js";
import { checkShared } from "../memory/checks.js";
import { Compactor } from "../memory/compactor.js";
import { EventHub } from "../memory/events.js";
import { MemoryPool } from "../memory/memory-pool.js";
import {
  type CheckedOptions,
  checkMemoryOptions,
  type TensorMemoryOptions,
} from "../memory/options.js";
import { admitAll } from "../policy/admit-all.js";
import { admitReused } from "../policy/admit-reused.js";
import { successorPredictor } from "../predictor/successor.js";
import { systemRandom } from "../random.js";
import { TensorMemory } from "../tensor-memory.js";
import { TENSOR_KINDS, type TensorKind } from "../types.js";
import type { Platform } from "./platform.js";
import { createTiers, hasStack, planTiers } from "./tiers.js";

const RAM_BYTES_MIN = 4 * 2 ** 20;
const ARENA_BYTES_MIN = 2 ** 20;
/** Below this, a codec's workspace would take too large a part. */
const CODEC_RAM_BYTES_MIN = 16 * 2 ** 20;
/** As that, of the workers that nobody has asked for. */
const WORKERS_RAM_BYTES_MIN = 64 * 2 ** 20;
/** Share of what arenas may take that guesses may hold. */
const GUESS_SHARE = 1 / 8;

function floorPowerOfTwo(value: number): number {
  return 2 ** Math.floor(Math.log2(value));
}

/** Lengths of everything that is fixed at the start. */
function planSizes(profile: HardwareProfile, checked: CheckedOptions, isStacked: boolean) {
  const ramBytes = checked.ramBytes ?? profile.ramBudgetBytes;
  if (ramBytes < RAM_BYTES_MIN) {
    throw new MisuseError("bad-size", `budgets.ram is at least ${RAM_BYTES_MIN} bytes`);
  }
  if (ramBytes - checked.warmBytes < RAM_BYTES_MIN) {
    throw new MisuseError(
      "bad-size",
      `budgets.ram is at least ${RAM_BYTES_MIN} bytes longer than budgets.warm`,
    );
  }
  const chunkBytes = Math.max(
    CHUNK_BYTES_MIN,
    // A stack has more buffers: they take no more of the budget together.
    Math.min(profile.chunkBytes, floorPowerOfTwo(ramBytes / (isStacked ? 128 : 64))),
  );
  for (const [kind, poolBytes] of checked.poolBytes) {
    if (poolBytes < ARENA_BYTES_MIN || poolBytes > ramBytes) {
      const range = `from ${ARENA_BYTES_MIN} bytes to budgets.ram`;
      throw new MisuseError("bad-size", `pools.${kind}.budget is ${range}`);
    }
  }
  // At most a quarter of what it is for, so that emptied arenas can change hands; about a sixteenth
  // of the whole goes to staging and metadata.
  const arenaBytesOf = (shareBytes: number) =>
    Math.max(ARENA_BYTES_MIN, Math.min(profile.arenaBytesMax, floorPowerOfTwo(shareBytes / 4)));
  const arenaBytes = arenaBytesOf(ramBytes * (15 / 16) - checked.warmBytes);
  const poolArenaBytes = (kind: TensorKind) =>
    Math.min(arenaBytes, arenaBytesOf(checked.poolBytes.get(kind) ?? ramBytes));
  let arenaCount = Math.ceil(ramBytes / arenaBytes);
  for (const [kind, poolBytes] of checked.poolBytes) arenaCount += poolBytes / poolArenaBytes(kind);
  const arenaCapacity = Math.min(ARENA_CAPACITY_MAX, 2 * Math.ceil(arenaCount) + 16);
  return {
    ramBytes,
    chunkBytes,
    poolArenaBytes,
    arenaCapacity,
    granuleShift: Math.log2(profile.granuleBytes),
    slotCapacity: Math.min(SLOT_CAPACITY_MAX, Math.max(4096, Math.floor(ramBytes / 4096))),
    metadataBytes: arenaMetadataBytesMax(ramBytes, profile.granuleBytes, arenaBytes),
  };
}

/** Opens everything; on failure everything opened is closed again. */
export async function composeTensorMemory(
  platform: Platform,
  options: TensorMemoryOptions = {},
): Promise<TensorMemory> {
  const asked = checkMemoryOptions(options);
  const seams = options.seams ?? {};
  const clock = seams.clock ?? systemClock;
  const events = new EventHub();
  const { Observer } = await import("./observe.js");
  const observer = new Observer({ options, checked: asked, clock, events });
  const isCollecting = options.lifetimes !== false && !observer.isOff("collector");
  const collecting = isCollecting ? await import("./lifetimes.js") : null;
  const lifetimes = collecting?.choosePredictor(options);
  throwIfAborted(options.signal, "memory");
  if (globalThis.crypto?.subtle === undefined) {
    throw new MisuseError(
      "unsupported",
      "pages need HTTPS or localhost: WebCrypto names the records",
    );
  }
  // What was detected says nothing that an option could.
  const { profile, checked } =
    options.profile === undefined && options.calibrate === undefined && asked.ssdBytes === 0
      ? { profile: platform.detectHardware(), checked: asked }
      : await (await import("./profile.js")).chooseProfile(options, asked, platform);
  const sizes = planSizes(profile, checked, hasStack(checked, options));
  const { granuleShift, chunkBytes } = sizes;
  const plan = planTiers(checked, options, chunkBytes);
  const isShared = checkShared(options.shared);
  const createMemory = seams.createMemory ?? (isShared ? createSharedMemory : createUnsharedMemory);
  const core = await ControlPlane.create({ ...sizes, createMemory, wasm: options.wasm?.core });
  // Hashing and coding read copies, so their memories are nobody else's.
  const createPrivateMemory = isShared ? createUnsharedMemory : createMemory;
  const kernels = await compileKernels(options.wasm?.kernels);
  const hasher = await Hasher.create(
    // One more for short records, each of which is hashed in one go.
    profile.queueDepth + plan.moveCount + 1,
    createPrivateMemory,
    kernels,
  );
  const hasTier = seams.tier !== undefined || checked.ssdBytes > 0 || plan.isStacked;
  const hasCodec = hasTier && sizes.ramBytes >= CODEC_RAM_BYTES_MIN;
  const { workers: wanted } = checked.codecRules;
  const mayStart = sizes.ramBytes >= WORKERS_RAM_BYTES_MIN;
  const workerCount = wanted !== "auto" ? wanted : mayStart ? (profile.codecWorkerCount ?? 0) : 0;
  const start = seams.startCodecWorker ?? platform.startCodecWorker;
  const codec: Codec | null = hasCodec
    ? unitCodec({
        createMemory: createPrivateMemory,
        wasm: kernels,
        without: observer.codecsOff,
        workers: workerCount === 0 ? null : { workerCount, start, kernels, clock },
      })
    : null;
  const unitBytes = codec?.unitBytesMax ?? 0;
  const codecBytes =
    codec === null ? 0 : codec.workspaceBytes + chunkBytes + workerCount * CODEC_WORKER_BYTES;
  const engineBytes = profile.queueDepth * (chunkBytes + unitBytes) + codecBytes;
  // A unit and its part.
  const recodingBytes = checked.codecRules.isColderSmaller ? 2 * unitBytes : 0;
  const movingBytes = plan.moveCount * (chunkBytes + recodingBytes);
  const stagingBytes = engineBytes + movingBytes + plan.bufferBytes;
  const budget = new Budget(sizes.ramBytes);
  if (
    !budget.tryCharge("control", core.byteLength + hasher.byteLength) ||
    !budget.tryCharge("staging", stagingBytes) ||
    !budget.tryCharge("warm", checked.warmBytes)
  ) {
    throw new MisuseError("bad-size", "budgets.ram is too small for its own bookkeeping");
  }
  const kept = { platform, profile, checked, options, plan, chunkBytes, clock, hasher, events };
  const { tier, stack } = await createTiers({ ...kept, codec, observer });
  if (checked.isDurable && !tier.capabilities.hasDurableCommit) {
    throw new MisuseError("unsupported", "ssd.mode durable on a tier that cannot promise it");
  }
  await tier.open();
  try {
    throwIfAborted(options.signal, tier.name);
    const { tenant, fingerprint, isDurable } = checked;
    const { sink, timedOneIn } = observer;
    const learnt =
      seams.evictionPolicy === undefined && !observer.isOff("learntPolicy")
        ? (await import("../policy/learnt.js")).learntPolicy({ clock })
        : null;
    const policy = seams.evictionPolicy ?? learnt ?? (await import("../policy/lru.js")).lruPolicy();
    const isDebug = options.debug === true;
    const directory = new Directory();
    const staging = new Staging(profile.queueDepth, chunkBytes, unitBytes);
    const namespace = { tenant, fingerprint };
    // Only who has a tier, or debugs, loads these.
    const coding = codec === null ? null : await import("../cache/record-coder.js");
    const guarding = isDebug ? await import("../cache/guards.js") : null;
    const coder =
      codec === null || coding === null
        ? null
        : new coding.RecordCoder({ codec, clock, aheadBytes: chunkBytes });
    const engine = new TransferEngine({ tier, coder, hasher, staging, clock, namespace });
    const createArena = linearArenas(createMemory);
    const onDrop = (anchor: object) => directory.forgetViews(anchor);
    const shelf = new ArenaShelf({ core, budget, createArena, granuleShift, onDrop });
    const pools = new Map<TensorKind, MemoryPool>();
    for (const [index, kind] of TENSOR_KINDS.entries()) {
      const budgetBytes = checked.poolBytes.get(kind) ?? Number.POSITIVE_INFINITY;
      const arenaBytes = sizes.poolArenaBytes(kind);
      const canaryBytes = guarding?.CANARY_BYTES ?? 0;
      const { alignmentBytes = 1 } = profile;
      const lengths = { budgetBytes, arenaBytes, canaryBytes, alignmentBytes };
      pools.set(kind, new MemoryPool({ kind, index, ...lengths, core, shelf }));
    }
    const compactor = new Compactor({ core, pools, clock });
    const compacting = {
      ...{ compactor, shelf, budget, pools, events, clock, sink },
      feature: observer.feature("compaction"),
      // Out to a tier, and back.
      roomMs: (bytes: number) => {
        const loadMs = bytes === 0 ? 0 : swapper.speed.estimateMs(bytes);
        return loadMs === null ? null : 2 * loadMs;
      },
    };
    const autoCompaction =
      checked.compaction !== null && !observer.isOff("compaction")
        ? new AutoCompaction({ ...compacting, policy: checked.compaction })
        : null;
    const held = new HeldBlocks(core, shelf);
    const guards = guarding && new guarding.Guards({ core, shelf, held, events });
    const parts = {
      compactor,
      autoCompaction,
      held,
      core,
      budget,
      shelf,
      pools,
      directory,
      engine,
      policy,
      events,
      clock,
      sink,
      observer,
    };
    const onLeaving = (record: TensorRecord) => {
      prefetcher.left(record);
      disposables.left(record);
    };
    const giveUpGuess = (helps: (record: TensorRecord) => boolean) => prefetcher.giveUp(helps);
    const { targets } = checked.codecRules;
    const shares =
      targets === null || codec === null
        ? null
        : new (await import("../cache/byte-shares.js")).ByteShares({
            ...{ targets, codec, directory, rules: checked.codecRules },
            bytesOf: ({ slot, byteLength }) =>
              shelf.arenaOf(slot).bytes(core.offsetOf(slot), byteLength),
            tierFreeBytes: () => tier.stats().capacityBytes - tier.stats().physicalBytes,
          });
    const swapper: MemorySwapper = new MemorySwapper({
      ...parts,
      shares,
      guards,
      codecRules: { ...checked.codecRules, isOff: observer.isOff("coding") },
      onLeaving,
    });
    if (stack === null) swapper.speed.expect(profile.tiers?.ssd);
    const { capacityBytes } = tier.stats();
    const admission =
      seams.admissionPolicy ??
      (observer.isOff("admission") ? admitAll : admitReused({ capacityBytes }));
    const disposables = new Disposables({
      ...parts,
      swapper,
      admission,
      hasTier: capacityBytes > 0,
    });
    const tierName = tier.name;
    // An order that was chosen is kept to.
    const choice = seams.evictionPolicy === undefined ? new VictimChoice(swapper.speed) : null;
    const victims = new Victims({ ...parts, swapper, disposables, isDurable, choice });
    const reclaimer = new Reclaimer({
      ...parts,
      swapper,
      disposables,
      tierName,
      isDurable,
      giveUpGuess,
      victims,
    });
    const predictor = seams.predictor ?? successorPredictor();
    const residentBytes = seams.residentBytes ?? platform.residentBytes;
    if (residentBytes === null && checked.rssLimitBytes < Number.POSITIVE_INFINITY) {
      throw new MisuseError("unsupported", "limits.rss where the platform does not tell");
    }
    const { watermarks, rssLimitBytes } = checked;
    const watch = new PressureWatch({
      ...parts,
      swapper,
      watermarks,
      rssLimitBytes,
      residentBytes,
      demoteNext: () => victims.demoteNext(),
      // Whoever demotes now writes in the same order.
      prepareVictims: (bytes, mayGoOn) =>
        victims.prepare(bytes, () => mayGoOn() && !reclaimer.isDemoting),
    });
    if (capacityBytes > 0) reclaimer.watchPressure(watch);
    const feature = observer.feature("collector");
    const collectable = { ...parts, swapper, victims, watch, watermarks, feature };
    const collector =
      collecting && lifetimes
        ? collecting.createCollector({ ...collectable, reclaimer, predictor: lifetimes })
        : null;
    const cache = new HierarchicalCache({ ...parts, swapper, reclaimer, disposables, collector });
    const prefetcher: Prefetcher = new Prefetcher({
      ...parts,
      swapper,
      reclaimer,
      cache,
      predictor,
      feature: observer.feature("prefetch"),
      window: new PrefetchWindow({ depthMax: profile.prefetchDepthMax ?? 8 }),
      guessBytesMax: budget.arenaLimitBytes * GUESS_SHARE,
    });
    const sharing = new SharedTensors({ ...parts, swapper, reclaimer });
    const allocator = new TensorAllocator({
      ...parts,
      swapper,
      reclaimer,
      disposables,
      collector,
      sharing,
      guards,
      timedOneIn,
    });
    // Only who asks for it loads it.
    const gpu =
      options.gpu === undefined
        ? null
        : await (await import("./gpu.js")).openGpuLevel(options.gpu, {
            ...{ ...parts, swapper, cache, isShared, capacityBytes: checked.gpuBytes },
            random: seams.random ?? systemRandom,
            checkOpen: () => allocator.checkOpen(),
          });
    const repeated = new RepeatedTensors(pools, { reclaimer, allocator, held, events, guards });
    const random = seams.random ?? systemRandom;
    const workers = new Workers({ ...parts, reclaimer, random });
    observer.watch({ ...parts, swapper, cache, stack, disposables, learnt });
    return new TensorMemory({
      ...parts,
      stack,
      gpu,
      guards,
      repeated,
      workers,
      profile,
      swapper,
      cache,
      reclaimer,
      allocator,
      sharing,
      prefetcher,
      disposables,
      collector,
      watch,
      isDurable,
    });
  } catch (error) {
    await tier.close();
    throw error;
  }
}
