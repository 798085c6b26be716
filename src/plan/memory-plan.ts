// Foretells where the tensors of some chats will be, in how many bytes, and what it takes to have them back.
// Pure arithmetic over shapes: allocates and asks nothing. Layer: plan.
import { TENSOR_KINDS, type TensorKind } from "../types.js";
import { arenaBytesOf, blockBytesOf, overheadBytesOf, recordBytesOf } from "./footprint.js";
import {
  type KvForm,
  type KvPlanOptions,
  kvTensorsOf,
  type TensorRun,
  tokenBytesOf,
} from "./kv-bytes.js";
import { type CheckedPlan, COLD_TIERS, type ColdTier, type PlanBudgets } from "./plan-request.js";
import { RamRoom } from "./ram-room.js";

/** A speed, and who says so. */
export interface PlannedSpeed {
  readonly latencyMs: number;
  /** Of all transfers together. */
  readonly bytesPerSecond: number;
  /** `"profile"`: what the hardware profile expects. `"assumed"`: nobody knows; such times are guesses. */
  readonly source: "given" | "measured" | "profile" | "assumed";
}

export interface PlannedKind {
  readonly kind: TensorKind;
  readonly tensorCount: number;
  /** Of all tensors of the kind, wherever they are. */
  readonly tensorBytes: number;
  /** The same in blocks of arenas. */
  readonly blockBytes: number;
}

/** What is in a tier when the warmer ones are full. */
export interface PlannedTier {
  readonly name: "ram" | ColdTier;
  readonly capacityBytes: number;
  readonly tensorCount: number;
  readonly tensorBytes: number;
  /** Taken of the capacity: by arenas and bookkeeping in RAM, by records below it. */
  readonly usedBytes: number;
  /**
   * The same when copies of what came back are kept, as they are while there is room. Of the first
   * tier that outlives the process; elsewhere as `usedBytes`.
   */
  readonly usedBytesMax: number;
  /** Chats that are in this tier, or in it and in warmer ones. */
  readonly chatCount: number;
  /**
   * Milliseconds until a mean chat that is here as a whole would be in RAM, with room made for it as far as
   * what that takes was measured. 0 for RAM.
   */
  readonly chatRestoreMs: number;
  /** null for RAM. */
  readonly speed: PlannedSpeed | null;
}

export interface MemoryPlan {
  readonly model: string;
  readonly kv: KvForm;
  readonly chatCount: number;
  /** Of all chats together. */
  readonly tokenCount: number;
  /** KV of one token as the model makes it. */
  readonly tokenBytes: number;
  /** Mean of the chats: KV and images, in the form that is planned. */
  readonly chatBytes: number;
  /** Kinds that there is something of. */
  readonly kinds: readonly PlannedKind[];
  /** RAM first; tiers that are off are left out. */
  readonly tiers: readonly PlannedTier[];
  /** Part of `budgets.ram` for metadata and buffers. */
  readonly overheadBytes: number;
  /** Length of an ordinary arena. */
  readonly arenaBytes: number;
  /** Everything is in RAM at once. */
  readonly isResident: boolean;
  /** Everything has a place somewhere. */
  readonly fits: boolean;
  readonly spilledBytes: number;
  /** For which no tier has room. */
  readonly unplacedBytes: number;
  /** Bytes of the weights, whether the heap has them or not; null if their number is not known. */
  readonly weightBytes: number | null;
  /** In words, the most important first. */
  readonly advice: readonly string[];
}

/** What a plan counts with. */
export interface PlanMachine {
  readonly budgets: PlanBudgets;
  /** null: estimated. */
  readonly overheadBytes: number | null;
  /** null: as {@link arenaBytesOf} for arenas of at most 64 MiB. */
  readonly arenaBytes: number | null;
  /** What is known. */
  readonly speeds: { readonly [tier in ColdTier]?: PlannedSpeed | undefined };
  /** Measured; 1 if not. */
  readonly storedRatio: number;
}

const MIB = 2 ** 20;
const ARENA_BYTES_MAX = 64 * MIB;
/** Bytes of a weight as it is published. */
const WEIGHT_BYTES = 2;

/** Cautious: what a verified read of a common device gives. */
const ASSUMED: Record<ColdTier, PlannedSpeed> = {
  warm: { latencyMs: 0.1, bytesPerSecond: 1.5e9, source: "assumed" },
  ssd: { latencyMs: 0.5, bytesPerSecond: 1e9, source: "assumed" },
  hdd: { latencyMs: 10, bytesPerSecond: 1.5e8, source: "assumed" },
  remote: { latencyMs: 5, bytesPerSecond: 1e8, source: "assumed" },
};

/** Tensors that are placed together. */
interface Group {
  readonly kind: TensorKind;
  readonly runs: readonly TensorRun[];
  /** null: of all chats. */
  readonly chat: number | null;
}

function groupsOf(request: CheckedPlan): Group[] {
  const { model, tokens, sharedTokens, images, dtype, form, pageTokens } = request;
  const kv: KvPlanOptions = { model, dtype, form, pageTokens };
  const elementBytes = dtype === "f32" ? 4 : 2;
  const { featureDim = 0, featureCount = 0 } = model.vision ?? {};
  const imageBytes = images.tokens * featureDim * featureCount * elementBytes;
  const groups: Group[] = [];
  if (request.weightBytes > 0) {
    // In RAM at every step, so before anything else.
    const byteLength = Math.ceil(request.weightBytes / model.layers);
    groups.push({ kind: "PARAMETERS", chat: null, runs: [{ count: model.layers, byteLength }] });
  }
  for (const { kind, count, bytes } of request.tensors) {
    groups.push({ kind, chat: null, runs: [{ count, byteLength: bytes }] });
  }
  const sharedPages = Math.floor(sharedTokens / pageTokens);
  if (sharedPages > 0) {
    groups.push({ kind: "KV_CACHE", chat: null, runs: kvTensorsOf(kv, sharedPages * pageTokens) });
  }
  for (const [chat, count] of tokens.entries()) {
    groups.push({ kind: "KV_CACHE", chat, runs: kvTensorsOf(kv, count, sharedTokens) });
    if (images.count === 0) continue;
    const run = { count: images.count, byteLength: imageBytes };
    groups.push({ kind: "IMAGE_FEATURES", chat, runs: [run] });
  }
  return groups;
}

const bytesOf = (runs: readonly TensorRun[]) =>
  runs.reduce((sum, { count, byteLength }) => sum + count * byteLength, 0);

function kindsOf(groups: readonly Group[]): PlannedKind[] {
  return TENSOR_KINDS.map((kind) => {
    const runs = groups.filter((group) => group.kind === kind).flatMap((group) => group.runs);
    return {
      kind,
      tensorCount: runs.reduce((sum, { count }) => sum + count, 0),
      tensorBytes: bytesOf(runs),
      blockBytes: runs.reduce(
        (sum, { count, byteLength }) => sum + count * blockBytesOf(byteLength),
        0,
      ),
    };
  }).filter(({ tensorCount }) => tensorCount > 0);
}

/** A tier that is filled. */
interface Filling {
  readonly name: ColdTier;
  readonly capacityBytes: number;
  usedBytes: number;
  tensorCount: number;
  tensorBytes: number;
}

/** Puts everything where there is room, the warmest place first. */
function place(groups: readonly Group[], room: RamRoom, fillings: Filling[], storedRatio: number) {
  const hot = { tensorCount: 0, tensorBytes: 0 };
  /** By chat, how far down its coldest tensor is: 0 is RAM, behind the last tier is nowhere. */
  const depths = new Map<number, number>();
  let spilledBytes = 0;
  let unplacedBytes = 0;
  for (const { kind, chat, runs } of groups) {
    for (const run of runs) {
      const { byteLength } = run;
      const taken = room.take(kind, run);
      hot.tensorCount += taken;
      hot.tensorBytes += taken * byteLength;
      let left = run.count - taken;
      let depth = 0;
      spilledBytes += left * byteLength;
      for (const [index, filling] of fillings.entries()) {
        const recordBytes = recordBytesOf(byteLength, storedRatio);
        const roomBytes = filling.capacityBytes - filling.usedBytes;
        const count = Math.min(left, Math.floor(roomBytes / recordBytes));
        if (count === 0) continue;
        filling.usedBytes += count * recordBytes;
        filling.tensorCount += count;
        filling.tensorBytes += count * byteLength;
        left -= count;
        depth = index + 1;
      }
      unplacedBytes += left * byteLength;
      if (left > 0) depth = fillings.length + 1;
      if (chat !== null) depths.set(chat, Math.max(depths.get(chat) ?? 0, depth));
    }
  }
  const chatsAt = (depth: number) => [...depths.values()].filter((each) => each === depth).length;
  return { hot, spilledBytes, unplacedBytes, chatsAt };
}

/**
 * A plan without advice.
 *
 * @param machine Budgets and what was measured.
 */
export function planOn(request: CheckedPlan, machine: PlanMachine): MemoryPlan {
  const { model, tokens, dtype, form } = request;
  const { ram, warm } = machine.budgets;
  const storedRatio = request.storedRatio ?? machine.storedRatio;
  const isFile = (name: ColdTier) =>
    (name === "ssd" || name === "hdd") && machine.budgets[name] > 0;
  const fileCount = COLD_TIERS.filter(isFile).length;
  const overheadBytes = machine.overheadBytes ?? overheadBytesOf(ram, fileCount);
  const arenaBytes = machine.arenaBytes ?? arenaBytesOf(ram, warm, ARENA_BYTES_MAX);
  const groups = groupsOf(request);
  const room = new RamRoom(Math.max(0, ram - warm - overheadBytes), arenaBytes);
  const fillings = COLD_TIERS.filter((name) => machine.budgets[name] > 0).map(
    (name): Filling => ({
      ...{ name, capacityBytes: machine.budgets[name] },
      ...{ usedBytes: 0, tensorCount: 0, tensorBytes: 0 },
    }),
  );
  const placed = place(groups, room, fillings, storedRatio);
  const ofChats = groups.filter(({ chat }) => chat !== null).flatMap(({ runs }) => runs);
  const all = groups.flatMap(({ runs }) => runs);
  const recordsOf = (runs: readonly TensorRun[]) =>
    runs.reduce(
      (sum, { count, byteLength }) => sum + count * recordBytesOf(byteLength, storedRatio),
      0,
    );
  const keeper = fillings.find(({ name }) => name !== "warm")?.name;
  const chatStoredBytes = recordsOf(ofChats) / tokens.length;
  const chatTensorCount = ofChats.reduce((sum, { count }) => sum + count, 0) / tokens.length;
  const hotBytes = overheadBytes + warm + room.arenaBytes;
  const ramTier: PlannedTier = {
    ...{ name: "ram", capacityBytes: ram, ...placed.hot },
    ...{ usedBytes: hotBytes, usedBytesMax: hotBytes },
    ...{ chatCount: placed.chatsAt(0), chatRestoreMs: 0, speed: null },
  };
  const colder = fillings.map((filling, index): PlannedTier => {
    const speed = speedOf(filling.name, request, machine);
    const isKeeper = filling.name === keeper && placed.spilledBytes > 0;
    const copiesBytes = isKeeper ? Math.min(filling.capacityBytes, recordsOf(all)) : 0;
    return {
      ...filling,
      usedBytesMax: Math.max(filling.usedBytes, copiesBytes),
      chatCount: placed.chatsAt(index + 1),
      chatRestoreMs:
        Math.ceil(chatTensorCount) * speed.latencyMs +
        (1000 * chatStoredBytes) / speed.bytesPerSecond,
      speed,
    };
  });
  const { parameterCount } = model;
  return {
    ...{ model: model.name, kv: form, chatCount: tokens.length },
    tokenCount: tokens.reduce((sum, count) => sum + count, 0),
    tokenBytes: tokenBytesOf(model, dtype),
    chatBytes: bytesOf(ofChats) / tokens.length,
    kinds: kindsOf(groups),
    tiers: [ramTier, ...colder],
    ...{ overheadBytes, arenaBytes },
    isResident: placed.spilledBytes === 0,
    fits: placed.unplacedBytes === 0,
    ...{ spilledBytes: placed.spilledBytes, unplacedBytes: placed.unplacedBytes },
    weightBytes:
      request.weightBytes > 0
        ? request.weightBytes
        : parameterCount === undefined
          ? null
          : WEIGHT_BYTES * parameterCount,
    advice: [],
  };
}

function speedOf(name: ColdTier, request: CheckedPlan, machine: PlanMachine): PlannedSpeed {
  const given = request.speeds[name];
  if (given === undefined) return machine.speeds[name] ?? ASSUMED[name];
  const { latencyMs = 0, bytesPerSecond } = given;
  return { latencyMs, bytesPerSecond, source: "given" };
}
