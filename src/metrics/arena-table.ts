// The arenas of a memory map as a table: what of each is live, and in how many pieces the rest is. Layer: metrics.

import { formatBytes, formatPercent, formatTable } from "../stats/format.js";
import type { MappedArena, MemoryMap } from "../stats/memory-map.js";

/** What the blocks of an arena leave. */
export interface ArenaGaps {
  readonly liveBytes: number;
  readonly requestedBytes: number;
  readonly gapCount: number;
  readonly longestGapBytes: number;
  /** 1 − longest gap ÷ all gaps; 0 without any. */
  readonly externalFragmentation: number;
}

/** The gaps between the blocks of an arena, its end included. */
export function arenaGaps({ byteLength, blocks }: MappedArena): ArenaGaps {
  let [liveBytes, requestedBytes, gapCount, longestGapBytes, end] = [0, 0, 0, 0, 0];
  const note = (gapBytes: number) => {
    if (gapBytes > 0) gapCount += 1;
    longestGapBytes = Math.max(longestGapBytes, gapBytes);
  };
  for (const block of blocks) {
    note(block.offset - end);
    end = block.offset + block.byteLength;
    liveBytes += block.byteLength;
    requestedBytes += block.requestedBytes;
  }
  note(byteLength - end);
  const freeBytes = byteLength - liveBytes;
  const externalFragmentation = freeBytes === 0 ? 0 : 1 - longestGapBytes / freeBytes;
  return { liveBytes, requestedBytes, gapCount, longestGapBytes, externalFragmentation };
}

/** One line for each arena of {@link MemoryMap}, as `memory.map()` gives it. */
export function formatArenas(map: MemoryMap): string {
  const rows = map.arenas.map((arena) => {
    const gaps = arenaGaps(arena);
    return [
      `${arena.id}`,
      arena.kind,
      formatBytes(arena.byteLength),
      `${arena.blocks.length}`,
      `${arena.blocks.filter(({ isPinned }) => isPinned).length}`,
      formatBytes(gaps.requestedBytes),
      formatBytes(gaps.liveBytes),
      `${gaps.gapCount}`,
      formatBytes(gaps.longestGapBytes),
      formatPercent(gaps.externalFragmentation),
    ];
  });
  const head = ["arena", "kind", "length", "blocks", "pinned", "requested", "granted"];
  return formatTable([[...head, "gaps", "longest gap", "ext. frag."], ...rows]);
}
