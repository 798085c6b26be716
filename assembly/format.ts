// Format: lays the control plane out in its memory and recognizes one that is there. Layer 3.
//
//        ┌────────┬───────┬────────┬───────────┬────────────┬────────┬────────┐
//   base │ header │ pools │ arenas │ hot slots │ cold slots │ lanes* │ region │   * if shared
//        └────────┴───────┴────────┴───────────┴────────────┴────────┴────────┘
//
// Each part starts at a multiple of CONTROL_ALIGNMENT, and the region takes what the others leave.
// The memory may hold anything before. Of the slot tables only row 0 is written.
import * as abi from "./abi";
import { CONTROL_ALIGNMENT, bitsAlignUp } from "./bits";
import { ControlHeader, controlAt } from "./control";
import { laneCacheFormat } from "./lane-cache";
import { regionFormat } from "./region";

if (abi.POOLS_OFFSET != abi.CONTROL_HEADER_BYTES) ERROR("POOLS_OFFSET");
if (abi.ARENAS_OFFSET != abi.POOLS_OFFSET + abi.POOL_COUNT * abi.POOL_BYTES) ERROR("ARENAS_OFFSET");

/** Bytes of the lane rows, which only shared planes have. */
const LANES_BYTES: u32 = ASC_FEATURE_THREADS ? (abi.LANE_COUNT_MAX + 1) * abi.LANE_BYTES : 0;

/**
 * Bytes of a control plane.
 *
 * @param slotCapacity Rows, row 0 included: 2 to SLOT_CAPACITY_MAX.
 * @param arenaCapacity Rows, row 0 included: 2 to ARENA_CAPACITY_MAX.
 * @param regionBytes The sum of arenaMetadataBytes over the arenas that are to be open at a time.
 * @returns 0 if a capacity is out of range or the sum exceeds 32 bits.
 */
export function formatBytes(slotCapacity: u32, arenaCapacity: u32, regionBytes: u32): u32 {
  if (!isInRange(slotCapacity, arenaCapacity)) return 0;
  const bytes = regionOffset(slotCapacity, arenaCapacity) + bitsAlignUp(regionBytes);
  return bytes <= u32.MAX_VALUE ? <u32>bytes : 0;
}

/**
 * Formats an empty control plane at `base`.
 *
 * @returns STATUS_OK; STATUS_BAD_ARGUMENT if `base` is not a multiple of CONTROL_ALIGNMENT, if the
 *   plane does not fit into `totalBytes` or those not into the memory, or for a capacity out of
 *   range.
 */
export function formatInit(
  base: usize,
  totalBytes: u32,
  slotCapacity: u32,
  arenaCapacity: u32,
): u32 {
  if (!isInMemory(base, totalBytes) || !isInRange(slotCapacity, arenaCapacity)) {
    return abi.STATUS_BAD_ARGUMENT;
  }
  if (regionOffset(slotCapacity, arenaCapacity) > totalBytes) return abi.STATUS_BAD_ARGUMENT;

  memory.fill(base, 0, arenasEnd(arenaCapacity));
  const control = controlAt(base);
  control.magic = abi.CONTROL_MAGIC;
  control.abiVersion = abi.ABI_VERSION;
  control.totalBytes = totalBytes;
  control.slotCapacity = slotCapacity;
  control.arenaCapacity = arenaCapacity;
  control.slotFresh = 1;
  control.pools = abi.POOLS_OFFSET;
  control.arenas = abi.ARENAS_OFFSET;
  control.hot = arenasEnd(arenaCapacity);
  control.cold = control.hot + slotTableBytes(slotCapacity, abi.HOT_BYTES);
  control.region = <u32>regionOffset(slotCapacity, arenaCapacity);
  if (ASC_FEATURE_THREADS) {
    const lanes = control.region - lanesBytes(arenaCapacity);
    store<u32>(base, lanes, abi.CONTROL_OFF_LANES);
    memory.fill(base + lanes, 0, LANES_BYTES);
    laneCacheFormat(base, 0);
    laneCacheFormat(base, abi.LANE_FIRST);
  }
  control.regionBytes = (totalBytes - control.region) & ~(CONTROL_ALIGNMENT - 1);
  memory.fill(base + control.hot, 0, abi.HOT_BYTES);
  memory.fill(base + control.cold, 0, abi.COLD_BYTES);
  regionFormat(base);
  return abi.STATUS_OK;
}

/** STATUS_OK if a control plane of this ABI version lies at `base`, else STATUS_BAD_MAGIC. */
export function formatAttach(base: usize): u32 {
  if (!isInMemory(base, abi.CONTROL_HEADER_BYTES)) return abi.STATUS_BAD_MAGIC;
  const control = controlAt(base);
  if (control.magic != abi.CONTROL_MAGIC || control.abiVersion != abi.ABI_VERSION) {
    return abi.STATUS_BAD_MAGIC;
  }
  return isLaidOut(base, control) ? abi.STATUS_OK : abi.STATUS_BAD_MAGIC;
}

/** Whether the offsets of `control` are those that its capacities imply. */
function isLaidOut(base: usize, control: ControlHeader): bool {
  const slotCapacity = control.slotCapacity;
  const arenaCapacity = control.arenaCapacity;
  if (!isInRange(slotCapacity, arenaCapacity) || !isInMemory(base, control.totalBytes))
    return false;
  const region = regionOffset(slotCapacity, arenaCapacity);
  const lanes = load<u32>(base, abi.CONTROL_OFF_LANES);
  if (ASC_FEATURE_THREADS && lanes != <u32>region - lanesBytes(arenaCapacity)) return false;
  return (
    region <= control.totalBytes &&
    control.region == <u32>region &&
    control.regionBytes == ((control.totalBytes - control.region) & ~(CONTROL_ALIGNMENT - 1)) &&
    control.pools == abi.POOLS_OFFSET &&
    control.arenas == abi.ARENAS_OFFSET &&
    control.hot == arenasEnd(arenaCapacity) &&
    control.cold == control.hot + slotTableBytes(slotCapacity, abi.HOT_BYTES)
  );
}

function isInRange(slotCapacity: u32, arenaCapacity: u32): bool {
  if (slotCapacity < 2 || slotCapacity > <u32>abi.SLOT_CAPACITY_MAX) return false;
  return arenaCapacity >= 2 && arenaCapacity <= <u32>abi.ARENA_CAPACITY_MAX;
}

function isInMemory(base: usize, bytes: u32): bool {
  if ((base & (CONTROL_ALIGNMENT - 1)) != 0) return false;
  return <u64>base + bytes <= (<u64>memory.size()) << 16;
}

function arenasEnd(arenaCapacity: u32): u32 {
  return abi.ARENAS_OFFSET + arenaCapacity * abi.ARENA_BYTES;
}

/** Bytes of one of the two slot tables. */
function slotTableBytes(slotCapacity: u32, rowBytes: u32): u32 {
  return <u32>bitsAlignUp(slotCapacity * rowBytes);
}

/** Bytes of the lane rows and of the lanes' caches. */
function lanesBytes(arenaCapacity: u32): u32 {
  if (!ASC_FEATURE_THREADS) return 0;
  const cacheCount = (abi.LANE_COUNT_MAX + 1) * arenaCapacity;
  return LANES_BYTES + <u32>bitsAlignUp(<u64>cacheCount * abi.LANE_CACHE_BYTES);
}

function regionOffset(slotCapacity: u32, arenaCapacity: u32): u64 {
  const hotBytes = slotTableBytes(slotCapacity, abi.HOT_BYTES);
  const coldBytes = slotTableBytes(slotCapacity, abi.COLD_BYTES);
  return <u64>arenasEnd(arenaCapacity) + hotBytes + coldBytes + lanesBytes(arenaCapacity);
}
