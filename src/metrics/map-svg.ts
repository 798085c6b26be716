// A memory map as a picture: one strip for each arena, one box for each block. Layer: metrics.

import { formatBytes, formatPercent } from "../stats/format.js";
import type { MappedArena, MemoryMap } from "../stats/memory-map.js";
import { TENSOR_KINDS, type TensorKind } from "../types.js";
import { arenaGaps } from "./arena-table.js";

const WIDTH = 960;
const LEFT = 150;
const RIGHT = 130;
const TOP = 64;
const STRIP_HEIGHT = 26;
const STRIP_PITCH = 34;
/** Neighbours of one kind are drawn as one box while they are narrower than this, in pixels. */
const BOX_WIDTH_MIN = 0.75;

const COLOURS: Record<TensorKind, string> = {
  KV_CACHE: "#0969da",
  IMAGE_FEATURES: "#1a7f64",
  TEXT_EMBEDDINGS: "#bf3989",
  GRADIENTS: "#bc4c00",
  ACTIVATIONS: "#9a6700",
  PARAMETERS: "#8250df",
};

const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 14px; }
  .arena { fill: #eaeef2; stroke: #d0d7de; }
  .block { stroke: #ffffff; stroke-width: 0.4; }
  .pinned { stroke: #cf222e; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .arena { fill: #21262d; stroke: #3d444d; } .block { stroke: #0d1117; }
  }`;

/** Text in an SVG: what XML forbids even as a reference becomes a question mark. */
function escaped(text: string): string {
  return text
    .replaceAll(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "?")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** Blocks that are drawn as one box. */
interface Box {
  readonly offset: number;
  end: number;
  count: number;
  readonly kind: TensorKind;
  readonly isPinned: boolean;
  readonly label: string;
}

function boxesOf({ blocks }: MappedArena, bytesPerBox: number): Box[] {
  const boxes: Box[] = [];
  for (const { offset, byteLength, requestedBytes, kind, id, isPinned } of blocks) {
    const end = offset + byteLength;
    const last = boxes.at(-1);
    const isAlike = last?.kind === kind && last.isPinned === isPinned;
    if (last !== undefined && isAlike && end - last.offset < bytesPerBox) {
      last.end = end;
      last.count += 1;
      continue;
    }
    const label = `${id ?? "(anonymous)"}: ${formatBytes(requestedBytes)} in ${formatBytes(byteLength)}`;
    boxes.push({
      offset,
      end,
      count: 1,
      kind,
      isPinned,
      label: isPinned ? `${label}, pinned` : label,
    });
  }
  return boxes;
}

/**
 * Draws a map as {@link MemoryMap} has it.
 *
 * @returns A whole SVG document that reads well on light and on dark ground; boxes say what they are when pointed at.
 * @remarks Bounded by the arenas and the width of the picture, not by the blocks.
 */
export function mapSvg({ arenas }: MemoryMap): string {
  const longest = Math.max(1, ...arenas.map(({ byteLength }) => byteLength));
  const scale = (WIDTH - LEFT - RIGHT) / longest;
  const totalBytes = arenas.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const blockCount = arenas.reduce((sum, { blocks }) => sum + blocks.length, 0);
  const title = `${arenas.length} arenas, ${formatBytes(totalBytes)}, ${blockCount} blocks`;
  const parts = [`<text class="title" x="8" y="22">${escaped(title)}</text>`];
  const kinds = TENSOR_KINDS.filter((each) => arenas.some(({ kind }) => kind === each));
  for (const [index, kind] of kinds.entries()) {
    const x = 8 + index * 150;
    parts.push(
      `<rect x="${x}" y="36" width="12" height="12" fill="${COLOURS[kind]}"/>`,
      `<text x="${x + 18}" y="47">${kind}</text>`,
    );
  }
  for (const [index, arena] of arenas.entries()) {
    const y = TOP + index * STRIP_PITCH;
    const width = Math.max(1, arena.byteLength * scale).toFixed(1);
    const { liveBytes, gapCount, externalFragmentation } = arenaGaps(arena);
    const fill = formatPercent(liveBytes / Math.max(1, arena.byteLength));
    parts.push(
      `<text x="8" y="${y + 17}">${arena.id} ${arena.kind}</text>`,
      `<rect class="arena" x="${LEFT}" y="${y}" width="${width}" height="${STRIP_HEIGHT}"><title>` +
        `${escaped(`${formatBytes(arena.byteLength)}, ${gapCount} gaps, ${formatPercent(externalFragmentation)} fragmented`)}</title></rect>`,
    );
    for (const box of boxesOf(arena, BOX_WIDTH_MIN / scale)) {
      const x = (LEFT + box.offset * scale).toFixed(2);
      const boxWidth = Math.max(BOX_WIDTH_MIN / 2, (box.end - box.offset) * scale).toFixed(2);
      const label =
        box.count === 1 ? box.label : `${box.count} blocks, ${formatBytes(box.end - box.offset)}`;
      parts.push(
        `<rect class="block${box.isPinned ? " pinned" : ""}" x="${x}" y="${y}" width="${boxWidth}" ` +
          `height="${STRIP_HEIGHT}" fill="${COLOURS[box.kind]}"><title>${escaped(label)}</title></rect>`,
      );
    }
    parts.push(`<text x="${WIDTH - RIGHT + 10}" y="${y + 17}">${fill} live</text>`);
  }
  const height = TOP + arenas.length * STRIP_PITCH + 8;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img">
<title>${escaped(title)}</title>
<style>${STYLE}
</style>
${parts.join("\n")}
</svg>
`;
}
