// One suite for arenas of every length, from the smallest to 4 GiB, in every build. The core never
// touches the bytes that it manages, so none are needed.
import { describe, expect, it } from "vitest";
import type { ControlPlane } from "../../src/core/control-plane.js";
import { BUILDS, openPlane } from "../proof/builds.mjs";
import { runModel } from "../proof/model-run.mjs";
import { SEED } from "../support/oracle.js";

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** Blocks of equal length that an arena is filled with. */
const PART_COUNT = 256;

interface Length {
  readonly name: string;
  readonly capacityBytes: number;
  readonly granuleShift: number;
}

const LENGTHS: readonly Length[] = [
  { name: "16 KiB", capacityBytes: 16 * KIB, granuleShift: 6 },
  { name: "1 MiB", capacityBytes: MIB, granuleShift: 6 },
  { name: "1 MiB in granules of 4 KiB", capacityBytes: MIB, granuleShift: 12 },
  { name: "600 KiB and 192 B", capacityBytes: 600 * KIB + 192, granuleShift: 6 },
  { name: "3 MiB and 12 KiB", capacityBytes: 3 * MIB + 12 * KIB, granuleShift: 6 },
  { name: "4 MiB", capacityBytes: 4 * MIB, granuleShift: 6 },
  { name: "37 MiB and 20 KiB", capacityBytes: 37 * MIB + 20 * KIB, granuleShift: 6 },
  { name: "100 MB in granules of 16 B", capacityBytes: 100_000_000, granuleShift: 4 },
  { name: "1 GiB in granules of 1 MiB", capacityBytes: GIB, granuleShift: 20 },
  { name: "4 GiB less 4 KiB", capacityBytes: 4 * GIB - 4096, granuleShift: 6 },
  { name: "4 GiB", capacityBytes: 4 * GIB, granuleShift: 6 },
];

interface Opened extends Length {
  readonly plane: ControlPlane;
  readonly arena: number;
}

async function open(build: string, length: Length): Promise<Opened> {
  const { plane } = await openPlane({ build, arenas: [length], slotCount: 2 * PART_COUNT });
  const arena = plane.openArena(0, length.capacityBytes, length.granuleShift);
  expect(arena).toBe(1);
  return { ...length, plane, arena };
}

const partBytes = ({ capacityBytes, granuleShift }: Length) =>
  Math.max(2 ** granuleShift, 2 ** Math.floor(Math.log2(capacityBytes / PART_COUNT)));

/** Allocates parts until the arena is full. @returns Their slots. */
function fill(opened: Opened): number[] {
  const { plane, arena } = opened;
  const slots: number[] = [];
  for (;;) {
    const slot = plane.allocate(arena, partBytes(opened), 1);
    if (slot === 0) return slots;
    slots.push(slot);
  }
}

function free({ plane }: Opened, slots: readonly number[]): void {
  for (const slot of slots) plane.free(slot, plane.generationOf(slot));
}

function offsetsOf({ plane }: Opened, slots: readonly number[]): number[] {
  return slots.map((slot) => plane.offsetOf(slot)).sort((left, right) => left - right);
}

describe.each(BUILDS)("%s", (build) => {
  describe.each(LENGTHS)("an arena of $name", (length) => {
    it("is filled to the last block, and no two share a byte", async () => {
      const opened = await open(build, length);
      const offsets = offsetsOf(opened, fill(opened));
      const bytes = partBytes(opened);
      expect(offsets.length).toBe(Math.floor(length.capacityBytes / bytes));
      offsets.forEach((offset, index) => {
        expect(offset).toBeGreaterThanOrEqual(index * bytes);
        expect(offset + bytes).toBeLessThanOrEqual(offsets[index + 1] ?? length.capacityBytes);
      });
      expect(opened.plane.check()).toBe(0);
    });

    it("is whole again when everything is freed", async () => {
      const opened = await open(build, length);
      const { plane, arena, capacityBytes, granuleShift } = opened;
      for (let round = 0; round < 3; round++) free(opened, fill(opened));
      expect(plane.check()).toBe(0);
      const granuleBytes = 2 ** granuleShift;
      const bytes = Math.floor(capacityBytes / granuleBytes) * granuleBytes;
      expect(plane.allocateWhole(arena, Math.min(bytes, 2 ** 32 - 1))).not.toBe(0);
      expect(plane.check()).toBe(0);
    });

    it("is compacted around pinned blocks", async () => {
      const opened = await open(build, length);
      const { plane, arena } = opened;
      const slots = fill(opened);
      free(
        opened,
        slots.filter((_, index) => index % 2 === 0),
      );
      const kept = slots.filter((_, index) => index % 2 === 1);
      const [pinned] = kept as [number, ...number[]];
      const pinnedOffset = plane.offsetOf(pinned);
      plane.pin(pinned, plane.generationOf(pinned));
      plane.beginCompaction(arena);
      for (let move = plane.nextMove(); move !== null; move = plane.nextMove()) {
        expect(move.slot).not.toBe(pinned);
        expect(plane.commitMove()).toBe(true);
      }
      expect(plane.offsetOf(pinned)).toBe(pinnedOffset);
      expect(new Set(offsetsOf(opened, kept)).size).toBe(kept.length);
      expect(plane.check()).toBe(0);
      const { largestFreeBlockBytes, freeBytes } = plane.arenaCounters(arena);
      expect(largestFreeBlockBytes).toBeGreaterThanOrEqual(freeBytes / 4);
    });

    it("agrees with the model", async () => {
      const shape = {
        arenas: [length, { capacityBytes: MIB, granuleShift: 6 }],
        bytesMax: Math.min(2 ** 31, length.capacityBytes / 2),
        slotCount: 300,
        stepCount: 4000,
      };
      const options = { build, seed: SEED, operationCount: 4000, shrinkTrialCount: 0, shape };
      const { allocations } = await runModel(options);
      expect(allocations).toBeGreaterThan(200);
    });
  });
});
