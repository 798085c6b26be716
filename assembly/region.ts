// Region: the allocator of the arenas' order trees, inside the control memory. Layer 2. Opening an
// arena is rare, so a first-fit list is enough; it never sees the blocks of an arena.
//
// The list holds free extents in address order, neighbours always joined. At first the whole region
// is one extent, and an allocation takes the front of an extent: what was never needed is never
// written, apart from the 8 bytes at its start.
//
//   byte 0       4            8        valid only if free
//        ┌───────┬────────────┬─ ─
//        │ bytes │ nextOffset │ anything
//        └───────┴────────────┴─ ─
//
// Offsets count from `base`, where the control header lies, so 0 means none.
//
// INV-REGION-1  Free extents ascend, do not touch one another, and tile the region together with
//               the trees of the open arenas.
import { bitsAlignUp } from "./bits";
import { controlAt } from "./control";

@unmanaged
export class FreeExtent {
  bytes: u32;
  /** Offset of the next free extent, 0 if this is the last. */
  nextOffset: u32;
}

/** Makes the whole region of `base` one free extent. Its place and length are in the header. */
export function regionFormat(base: usize): void {
  const control = controlAt(base);
  control.regionFreeHead = 0;
  if (control.regionBytes != 0) regionRelease(base, control.region, control.regionBytes);
}

/**
 * Takes `bytes` from the lowest free extent that holds them.
 *
 * @param bytes At least 1; rounded up to CONTROL_ALIGNMENT.
 * @returns Offset from `base`, or 0 if no extent is long enough. Cost: one step per free extent.
 */
export function regionClaim(base: usize, bytes: u32): u32 {
  const control = controlAt(base);
  const extentBytes = regionExtentBytes(bytes);
  let previous: FreeExtent | null = null;
  let offset = control.regionFreeHead;
  // The list is at most as long as the arena table is: each gap lies below a tree.
  while (offset != 0) {
    const extent = changetype<FreeExtent>(base + offset);
    const next = extent.nextOffset;
    if (extent.bytes >= extentBytes) {
      let rest = next;
      if (extent.bytes > extentBytes) {
        rest = offset + extentBytes;
        const remainder = changetype<FreeExtent>(base + rest);
        remainder.bytes = extent.bytes - extentBytes;
        remainder.nextOffset = next;
      }
      regionLink(base, previous, rest);
      return offset;
    }
    previous = extent;
    offset = next;
  }
  return 0;
}

/**
 * Gives back the `bytes` at `offset`, as claimed, and joins them with free neighbours. Cost: one
 * step per free extent below.
 */
export function regionRelease(base: usize, offset: u32, bytes: u32): void {
  const control = controlAt(base);
  let previous: FreeExtent | null = null;
  let next = control.regionFreeHead;
  while (next != 0 && next < offset) {
    previous = changetype<FreeExtent>(base + next);
    next = previous.nextOffset;
  }

  const extent = changetype<FreeExtent>(base + offset);
  extent.bytes = regionExtentBytes(bytes);
  extent.nextOffset = next;
  if (next != 0 && offset + extent.bytes == next) regionAbsorb(base, extent);

  regionLink(base, previous, offset);
  if (previous !== null && regionEnd(base, previous) == offset) regionAbsorb(base, previous);
}

/** Bytes that a claim of `bytes` takes from the region. */
export function regionExtentBytes(bytes: u32): u32 {
  return <u32>bitsAlignUp(bytes);
}

/** Joins `extent` with the next one, which starts where it ends. */
function regionAbsorb(base: usize, extent: FreeExtent): void {
  const next = changetype<FreeExtent>(base + extent.nextOffset);
  extent.bytes += next.bytes;
  extent.nextOffset = next.nextOffset;
}

/** Offset of the first byte past `extent`. */
function regionEnd(base: usize, extent: FreeExtent): u32 {
  return <u32>(changetype<usize>(extent) - base) + extent.bytes;
}

/** Makes `offset` the successor of `previous`, or the head of the list. */
function regionLink(base: usize, previous: FreeExtent | null, offset: u32): void {
  if (previous === null) controlAt(base).regionFreeHead = offset;
  else previous.nextOffset = offset;
}
