// Control header: the root of the control plane at `base`. Layer 1. Everything else is found from
// here by offsets, so the memory may be copied or mapped elsewhere.
//
//   byte 0       4            8       12       16
//        ┌───────┬────────────┬───────┬────────┐
//        │ magic │ abiVersion │ guard │ status │
//        └───────┴────────────┴───────┴────────┘
//   byte 16           20             24          28             32              36
//        ┌────────────┬──────────────┬───────────┬──────────────┬───────────────┐
//        │ totalBytes │ slotCapacity │ slotFresh │ slotFreeHead │ slotFreeCount │
//        └────────────┴──────────────┴───────────┴──────────────┴───────────────┘
//   byte 36               40                 44    48     52       56              60      64
//        ┌────────────────┬──────────────────┬─────┬──────┬────────┬───────────────┬───────┐
//        │ slotBoundCount │ slotRetiredCount │ hot │ cold │ arenas │ arenaCapacity │ pools │
//        └────────────────┴──────────────────┴─────┴──────┴────────┴───────────────┴───────┘
//   byte 64       68            72               76           156        192
//        ┌────────┬─────────────┬────────────────┬────────────┬──────────┐
//        │ region │ regionBytes │ regionFreeHead │ plan, 20×4 │ reserved │
//        └────────┴─────────────┴────────────────┴────────────┴──────────┘
//
// Both capacities count rows, row 0 included, and row 0 stands for "none": slots are numbered 1 to
// slotCapacity - 1 and arenas 1 to arenaCapacity - 1. Of the plan, planSource to planRequested are
// valid only while planSlot is not 0, the others only while planArena is not 0.
import * as abi from "./abi";
import { lockLane } from "./lock";

@unmanaged
export class ControlHeader {
  magic: u32;
  abiVersion: u32;
  /** Belongs to lock.ts. */
  guard: u32;
  /** Why the last call that returned 0 did so. */
  status: u32;
  totalBytes: u32;
  slotCapacity: u32;
  /** Lowest slot never handed out; rows from here on were never written. */
  slotFresh: u32;
  slotFreeHead: u32;
  slotFreeCount: u32;
  /** Slots bound to a block: live ones and cached ones. */
  slotBoundCount: u32;
  slotRetiredCount: u32;
  hot: u32;
  cold: u32;
  arenas: u32;
  arenaCapacity: u32;
  pools: u32;
  region: u32;
  regionBytes: u32;
  /** Offset of the first free extent from `base`, 0 if there is none. */
  regionFreeHead: u32;
  /** Arena under compaction, 0 if none. */
  planArena: u32;
  planCount: u32;
  /** Next entry of the sorted slots to look at. */
  planCursor: u32;
  /** Slot of the move that waits for commit or veto, 0 if none. */
  planSlot: u32;
  planSource: u32;
  planTarget: u32;
  planUnits: u32;
  planGeneration: u32;
  planSizing: u32;
  planRequested: u32;
  planGoal: u32;
  planRound: u32;
  planMoved: u32;
  planNeed: u32;
  planLow: u32;
  planHigh: u32;
  planMaySlide: u32;
  planTargetSizing: u32;
  planInto: u32;
  planIsCopied: u32;
}

if (offsetof<ControlHeader>("magic") != abi.CONTROL_OFF_MAGIC) ERROR("magic");
if (offsetof<ControlHeader>("abiVersion") != abi.CONTROL_OFF_ABI_VERSION) ERROR("abiVersion");
if (offsetof<ControlHeader>("guard") != abi.CONTROL_OFF_GUARD) ERROR("guard");
if (offsetof<ControlHeader>("status") != abi.CONTROL_OFF_STATUS) ERROR("status");
if (offsetof<ControlHeader>("totalBytes") != abi.CONTROL_OFF_TOTAL_BYTES) ERROR("totalBytes");
if (offsetof<ControlHeader>("slotCapacity") != abi.CONTROL_OFF_SLOT_CAPACITY) ERROR("slotCapacity");
if (offsetof<ControlHeader>("slotFresh") != abi.CONTROL_OFF_SLOT_FRESH) ERROR("slotFresh");
if (offsetof<ControlHeader>("slotFreeHead") != abi.CONTROL_OFF_SLOT_FREE_HEAD) ERROR("freeHead");
if (offsetof<ControlHeader>("slotFreeCount") != abi.CONTROL_OFF_SLOT_FREE_COUNT) ERROR("freeCount");
if (offsetof<ControlHeader>("slotBoundCount") != abi.CONTROL_OFF_SLOT_BOUND_COUNT)
  ERROR("slotBoundCount");
if (offsetof<ControlHeader>("slotRetiredCount") != abi.CONTROL_OFF_SLOT_RETIRED_COUNT)
  ERROR("slotRetiredCount");
if (offsetof<ControlHeader>("hot") != abi.CONTROL_OFF_HOT) ERROR("hot");
if (offsetof<ControlHeader>("cold") != abi.CONTROL_OFF_COLD) ERROR("cold");
if (offsetof<ControlHeader>("arenas") != abi.CONTROL_OFF_ARENAS) ERROR("arenas");
if (offsetof<ControlHeader>("arenaCapacity") != abi.CONTROL_OFF_ARENA_CAPACITY) ERROR("capacity");
if (offsetof<ControlHeader>("pools") != abi.CONTROL_OFF_POOLS) ERROR("pools");
if (offsetof<ControlHeader>("region") != abi.CONTROL_OFF_REGION) ERROR("region");
if (offsetof<ControlHeader>("regionBytes") != abi.CONTROL_OFF_REGION_BYTES) ERROR("regionBytes");
if (offsetof<ControlHeader>("regionFreeHead") != abi.CONTROL_OFF_REGION_FREE_HEAD)
  ERROR("regionFreeHead");
if (offsetof<ControlHeader>("planArena") != abi.CONTROL_OFF_PLAN_ARENA) ERROR("planArena");
if (offsetof<ControlHeader>("planCount") != abi.CONTROL_OFF_PLAN_COUNT) ERROR("planCount");
if (offsetof<ControlHeader>("planCursor") != abi.CONTROL_OFF_PLAN_CURSOR) ERROR("planCursor");
if (offsetof<ControlHeader>("planSlot") != abi.CONTROL_OFF_PLAN_SLOT) ERROR("planSlot");
if (offsetof<ControlHeader>("planSource") != abi.CONTROL_OFF_PLAN_SOURCE) ERROR("planSource");
if (offsetof<ControlHeader>("planTarget") != abi.CONTROL_OFF_PLAN_TARGET) ERROR("planTarget");
if (offsetof<ControlHeader>("planUnits") != abi.CONTROL_OFF_PLAN_UNITS) ERROR("planUnits");
if (offsetof<ControlHeader>("planGeneration") != abi.CONTROL_OFF_PLAN_GENERATION)
  ERROR("planGeneration");
if (offsetof<ControlHeader>("planSizing") != abi.CONTROL_OFF_PLAN_SIZING) ERROR("planSizing");
if (offsetof<ControlHeader>("planRequested") != abi.CONTROL_OFF_PLAN_REQUESTED)
  ERROR("planRequested");
if (offsetof<ControlHeader>("planGoal") != abi.CONTROL_OFF_PLAN_GOAL) ERROR("planGoal");
if (offsetof<ControlHeader>("planRound") != abi.CONTROL_OFF_PLAN_ROUND) ERROR("planRound");
if (offsetof<ControlHeader>("planMoved") != abi.CONTROL_OFF_PLAN_MOVED) ERROR("planMoved");
if (offsetof<ControlHeader>("planNeed") != abi.CONTROL_OFF_PLAN_NEED) ERROR("planNeed");
if (offsetof<ControlHeader>("planLow") != abi.CONTROL_OFF_PLAN_LOW) ERROR("planLow");
if (offsetof<ControlHeader>("planHigh") != abi.CONTROL_OFF_PLAN_HIGH) ERROR("planHigh");
if (offsetof<ControlHeader>("planMaySlide") != abi.CONTROL_OFF_PLAN_MAY_SLIDE) ERROR("maySlide");
if (offsetof<ControlHeader>("planTargetSizing") != abi.CONTROL_OFF_PLAN_TARGET_SIZING)
  ERROR("planTargetSizing");
if (offsetof<ControlHeader>("planInto") != abi.CONTROL_OFF_PLAN_INTO) ERROR("planInto");
if (offsetof<ControlHeader>("planIsCopied") != abi.CONTROL_OFF_PLAN_IS_COPIED) ERROR("isCopied");
if (offsetof<ControlHeader>() > <usize>abi.CONTROL_HEADER_BYTES) ERROR("ControlHeader size");

/** The header at `base`. */
export function controlAt(base: usize): ControlHeader {
  return changetype<ControlHeader>(base);
}

/** Address of the row of `lane`, 0 to LANE_COUNT_MAX, of a shared plane. */
export function controlLane(base: usize, lane: u32): usize {
  return base + load<u32>(base, abi.CONTROL_OFF_LANES) + lane * abi.LANE_BYTES;
}

/** Notes why a call refuses and returns 0, the refusal value of slots, arenas and epochs. */
export function controlRefuse(base: usize, status: u32): u32 {
  // Another thread may be refused at the same time.
  if (ASC_FEATURE_THREADS) store<u32>(controlLane(base, lockLane()), status, abi.LANE_OFF_STATUS);
  else controlAt(base).status = status;
  return 0;
}

/** Units by which the pending move goes up if target and source overlap, else 0. */
export function controlPlanOverlap(base: usize): u32 {
  const control = controlAt(base);
  if (control.planInto != control.planArena || control.planTarget <= control.planSource) return 0;
  if (control.planTargetSizing != control.planSizing) return 0;
  const shift = control.planTarget - control.planSource;
  return shift < control.planUnits ? shift : 0;
}
