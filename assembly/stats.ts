// Stats: the counters of each pool, over all arenas it ever had. Layer 2. Only counting happens
// here; ratios and trends are the host's.
//
//   byte 0           8               16               24        32            40             48
//        ┌───────────┬───────────────┬────────────────┬─────────┬─────────────┬──────────────┐
//        │ requested │ requestedPeak │ requestedTotal │ granted │ grantedPeak │ grantedTotal │
//        └───────────┴───────────────┴────────────────┴─────────┴─────────────┴──────────────┘
//   byte 48            56          60              64
//        ┌─────────────┬───────────┬───────────────┐
//        │ allocations │ liveCount │ liveCountPeak │
//        └─────────────┴───────────┴───────────────┘
//
// INV-POOL-1  Current counters are the sums over the pool's open arenas, and
//             current <= peak <= total for each of them.
import * as abi from "./abi";

@unmanaged
export class PoolRow {
  /** Bytes, like the five fields after it. */
  requested: u64;
  requestedPeak: u64;
  requestedTotal: u64;
  granted: u64;
  grantedPeak: u64;
  grantedTotal: u64;
  allocations: u64;
  liveCount: u32;
  liveCountPeak: u32;
}

if (offsetof<PoolRow>("requested") != abi.POOL_OFF_REQUESTED) ERROR("PoolRow.requested");
if (offsetof<PoolRow>("requestedPeak") != abi.POOL_OFF_REQUESTED_PEAK) ERROR("PoolRow peak");
if (offsetof<PoolRow>("requestedTotal") != abi.POOL_OFF_REQUESTED_TOTAL) ERROR("PoolRow total");
if (offsetof<PoolRow>("granted") != abi.POOL_OFF_GRANTED) ERROR("PoolRow.granted");
if (offsetof<PoolRow>("grantedPeak") != abi.POOL_OFF_GRANTED_PEAK) ERROR("PoolRow.grantedPeak");
if (offsetof<PoolRow>("grantedTotal") != abi.POOL_OFF_GRANTED_TOTAL) ERROR("PoolRow.grantedTotal");
if (offsetof<PoolRow>("allocations") != abi.POOL_OFF_ALLOCATIONS) ERROR("PoolRow.allocations");
if (offsetof<PoolRow>("liveCount") != abi.POOL_OFF_LIVE_COUNT) ERROR("PoolRow.liveCount");
if (offsetof<PoolRow>("liveCountPeak") != abi.POOL_OFF_LIVE_COUNT_PEAK) ERROR("liveCountPeak");
if (offsetof<PoolRow>() != abi.POOL_BYTES) ERROR("PoolRow size");

/** Counters of `pool`, below POOL_COUNT; not checked. */
export function statsPool(base: usize, pool: u32): PoolRow {
  return changetype<PoolRow>(base + abi.POOLS_OFFSET + pool * abi.POOL_BYTES);
}

/** Counts a block of `granted` bytes, handed out for `requested` bytes. */
export function statsCharge(base: usize, pool: u32, requested: u64, granted: u64): void {
  const row = statsPool(base, pool);
  row.requested += requested;
  row.requestedTotal += requested;
  if (row.requested > row.requestedPeak) row.requestedPeak = row.requested;
  row.granted += granted;
  row.grantedTotal += granted;
  if (row.granted > row.grantedPeak) row.grantedPeak = row.granted;
  row.allocations += 1;
  row.liveCount += 1;
  if (row.liveCount > row.liveCountPeak) row.liveCountPeak = row.liveCount;
}

/**
 * Counts that a block has become longer, or shorter: then the growth is negative, in two's
 * complement. Totals count growth alone.
 */
export function statsRecharge(base: usize, pool: u32, requested: u64, granted: u64): void {
  const row = statsPool(base, pool);
  row.requested += requested;
  if (<i64>requested > 0) row.requestedTotal += requested;
  if (row.requested > row.requestedPeak) row.requestedPeak = row.requested;
  row.granted += granted;
  if (<i64>granted > 0) row.grantedTotal += granted;
  if (row.granted > row.grantedPeak) row.grantedPeak = row.granted;
}

/** Takes back what statsCharge counted for a block. Peaks and totals stay. */
export function statsDischarge(base: usize, pool: u32, requested: u64, granted: u64): void {
  const row = statsPool(base, pool);
  row.requested -= requested;
  row.granted -= granted;
  row.liveCount -= 1;
}
