// Stats: the counters of each pool, over all arenas it ever had. Layer 2. Only counting happens
// here; ratios and trends are the host's. What can be summed over the pool's arenas and their class
// caches is not counted a second time: live blocks, granted bytes, allocations from a cache.
//
//   byte 0          8               16        24            32            40         64
//        ┌──────────┬───────────────┬─────────┬─────────────┬─────────────┬──────────┐
//        │ headroom │ requestedPeak │ claimed │ claimedPeak │ allocations │ reserved │
//        └──────────┴───────────────┴─────────┴─────────────┴─────────────┴──────────┘
//
// A block is claimed while it is live or cached, so granted bytes are claimed bytes less what the
// caches hold. Only the long way of allocation and free changes claimed bytes.
//
// INV-POOL-1  requestedPeak - headroom, and claimed, are the sums over the pool's open arenas;
//             headroom <= requestedPeak and claimed <= claimedPeak.
import * as abi from "./abi";

@unmanaged
export class PoolRow {
  /** Requested bytes below their peak. Negative only inside statsCharge. */
  headroom: i64;
  requestedPeak: u64;
  /** Granted bytes of live and cached blocks. */
  claimed: u64;
  claimedPeak: u64;
  /** Allocations ever made, but for those that the cache rows of open arenas count. */
  allocations: u64;
}

if (offsetof<PoolRow>("headroom") != abi.POOL_OFF_HEADROOM) ERROR("PoolRow.headroom");
if (offsetof<PoolRow>("requestedPeak") != abi.POOL_OFF_REQUESTED_PEAK) ERROR("PoolRow peak");
if (offsetof<PoolRow>("claimed") != abi.POOL_OFF_CLAIMED) ERROR("PoolRow.claimed");
if (offsetof<PoolRow>("claimedPeak") != abi.POOL_OFF_CLAIMED_PEAK) ERROR("PoolRow.claimedPeak");
if (offsetof<PoolRow>("allocations") != abi.POOL_OFF_ALLOCATIONS) ERROR("PoolRow.allocations");
if (offsetof<PoolRow>() > <usize>abi.POOL_BYTES) ERROR("PoolRow size");

/** Counters of `pool`, below POOL_COUNT; not checked. */
export function statsPool(base: usize, pool: u32): PoolRow {
  return changetype<PoolRow>(base + abi.POOLS_OFFSET + pool * abi.POOL_BYTES);
}

/** Counts `requested` bytes that a block was handed out for. */
export function statsCharge(base: usize, pool: u32, requested: u32): void {
  const row = statsPool(base, pool);
  row.headroom -= requested;
  if (row.headroom < 0) statsRaise(row);
}

/** Makes the requested bytes of this moment their peak: there is no headroom left. */
export function statsRaise(row: PoolRow): void {
  row.requestedPeak -= row.headroom;
  row.headroom = 0;
}

/**
 * Counts that a block has become longer, or shorter: then the growth is negative, in two's
 * complement.
 */
export function statsRecharge(base: usize, pool: u32, requested: u64, granted: u64): void {
  const row = statsPool(base, pool);
  row.headroom -= requested;
  if (row.headroom < 0) statsRaise(row);
  statsClaim(base, pool, granted);
}

/** Takes back what statsCharge counted for a block. */
export function statsDischarge(base: usize, pool: u32, requested: u32): void {
  statsPool(base, pool).headroom += requested;
}

/** Counts a block of `granted` bytes as claimed. */
export function statsClaim(base: usize, pool: u32, granted: u64): void {
  const row = statsPool(base, pool);
  row.claimed += granted;
  if (row.claimed > row.claimedPeak) row.claimedPeak = row.claimed;
}

/** Takes back what statsClaim counted for a block. */
export function statsRelease(base: usize, pool: u32, granted: u64): void {
  statsPool(base, pool).claimed -= granted;
}

/** Requested bytes of the live blocks of a pool. */
export function statsRequested(row: PoolRow): u64 {
  return row.requestedPeak - row.headroom;
}
