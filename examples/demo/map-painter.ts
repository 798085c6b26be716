// Paints a memory map on a canvas, and of that only the rows whose blocks have changed.
import { formatBytes, type MappedArena, type MappedBlock, type TensorKind } from "tierheap";
import { styleColour, styleValue } from "./dom.js";
import { type Grid, TITLE_HEIGHT, tileOrigin, type Viewport } from "./map-layout.js";

const KINDS: readonly TensorKind[] = [
  "KV_CACHE",
  "IMAGE_FEATURES",
  "TEXT_EMBEDDINGS",
  "GRADIENTS",
  "ACTIVATIONS",
  "PARAMETERS",
];

/** Blocks narrower than this are drawn without the line behind them. */
const LINE_WIDTH_MIN = 3;
const LABEL_WIDTH_MIN = 56;
const LABEL_HEIGHT_MIN = 15;

/** Blocks of one request, chat or file have one shade of their kind's colour. */
const SHADES = [1, 0.86, 0.74, 0.93, 0.8] as const;

interface Palette {
  readonly kinds: ReadonlyMap<TensorKind, string>;
  readonly ground: string;
  readonly free: string;
  readonly line: string;
  readonly text: string;
  readonly quiet: string;
  readonly pinned: string;
  readonly onKind: string;
  readonly font: string;
}

function readPalette(): Palette {
  return {
    kinds: new Map(KINDS.map((kind) => [kind, styleColour(`--kind-${kind.toLowerCase()}`)])),
    ground: styleColour("--surface"),
    free: styleColour("--free"),
    line: styleColour("--line"),
    text: styleColour("--text"),
    quiet: styleColour("--quiet"),
    pinned: styleColour("--text"),
    onKind: styleColour("--on-kind"),
    font: `12px ${styleValue("--font")}`,
  };
}

export class MapPainter {
  readonly #context: CanvasRenderingContext2D;
  readonly #viewport: Viewport;
  #palette = readPalette();
  #grid: Grid;
  /** A digest of what each row of each tile shows; undefined: not drawn yet. */
  #shown: (number | undefined)[] = [];
  #titles: string[] = [];
  #width = 1;
  #height = 1;
  #dpr = 1;

  constructor(context: CanvasRenderingContext2D, viewport: Viewport, grid: Grid) {
    this.#context = context;
    this.#viewport = viewport;
    this.#grid = grid;
  }

  /** Everything is to be drawn anew: another size, another part of the map, other colours. */
  reset(grid: Grid, width: number, height: number, dpr: number): void {
    this.#grid = grid;
    this.#width = width;
    this.#height = height;
    this.#dpr = dpr;
    this.#shown = [];
    this.#titles = [];
    this.#context.setTransform(dpr, 0, 0, dpr, 0, 0);
    this.#context.fillStyle = this.#palette.ground;
    this.#context.fillRect(0, 0, width, height);
  }

  refreshColours(): void {
    this.#palette = readPalette();
  }

  /** @param tiles One arena per tile; null where none is open. @returns How many rows were painted. */
  paint(tiles: readonly (MappedArena | null)[]): number {
    let painted = 0;
    for (const [index, arena] of tiles.entries()) painted += this.#paintTile(index, arena);
    return painted;
  }

  #paintTile(index: number, arena: MappedArena | null): number {
    const { rowCount, rowHeight, tileWidth, tileHeight } = this.#grid;
    const origin = tileOrigin(this.#grid, index);
    const { zoom, x, y } = this.#viewport;
    const left = origin.x * zoom - x;
    const top = origin.y * zoom - y;
    const width = tileWidth * zoom;
    if (left > this.#width || top > this.#height) return 0;
    if (left + width < 0 || top + tileHeight * zoom < 0) return 0;
    this.#paintTitle(index, arena, left, top, width);
    const bytesPerRow = (arena?.byteLength ?? 1) / rowCount;
    const blocks = arena?.blocks ?? [];
    let first = 0;
    let painted = 0;
    for (let row = 0; row < rowCount; row++) {
      const start = row * bytesPerRow;
      const end = start + bytesPerRow;
      while (endOf(blocks[first]) <= start) first += 1;
      let last = first;
      let digest = arena === null ? 1 : 2;
      for (let block = blocks[last]; block !== undefined && block.offset < end; ) {
        digest = Math.imul(digest ^ block.offset, 0x01000193) + block.byteLength;
        digest = Math.imul(digest ^ (block.isPinned ? 1 : 0), 0x01000193);
        last += 1;
        block = blocks[last];
      }
      if (this.#shown[index * rowCount + row] === digest) continue;
      this.#shown[index * rowCount + row] = digest;
      const rowTop = top + (TITLE_HEIGHT + row * rowHeight) * zoom;
      const height = rowHeight * zoom;
      if (rowTop > this.#height || rowTop + height < 0) continue;
      const strip = { left, top: rowTop, width, height: Math.max(1, height - 1), start, end };
      this.#paintRow(strip, arena === null, blocks.slice(first, last));
      painted += 1;
    }
    return painted;
  }

  #paintRow(strip: Strip, isMissing: boolean, blocks: readonly MappedBlock[]): void {
    const context = this.#context;
    const palette = this.#palette;
    const { left, top, width, height, start, end } = strip;
    context.fillStyle = palette.ground;
    context.fillRect(left, top, width, height + 1);
    context.globalAlpha = isMissing ? 0.4 : 1;
    context.fillStyle = palette.free;
    context.fillRect(left, top, width, height);
    context.globalAlpha = 1;
    const scale = width / (end - start);
    let drawnTo = Number.NEGATIVE_INFINITY;
    for (const block of blocks) {
      const blockEnd = endOf(block);
      const from = Math.max(
        drawnTo,
        this.#snap(left + (Math.max(block.offset, start) - start) * scale),
      );
      const to = this.#snap(left + (Math.min(blockEnd, end) - start) * scale);
      // What is narrower than a pixel shares that with its neighbours.
      const wide = Math.max(to - from, 1 / this.#dpr);
      if (to < from || to < 0 || from > this.#width) continue;
      const hasLine = wide >= LINE_WIDTH_MIN && blockEnd <= end;
      context.fillStyle = palette.kinds.get(block.kind) ?? palette.text;
      context.globalAlpha = shadeOf(block.id);
      context.fillRect(from, top, hasLine ? wide - 1 : wide, height);
      context.globalAlpha = 1;
      if (block.isPinned) {
        context.fillStyle = palette.pinned;
        context.fillRect(from, top + height - 2, hasLine ? wide - 1 : wide, 2);
      }
      if (wide >= LABEL_WIDTH_MIN && height >= LABEL_HEIGHT_MIN) {
        this.#paintLabel(block, Math.max(from, 0), top, from + wide - Math.max(from, 0), height);
      }
      drawnTo = from + wide;
    }
  }

  #paintLabel(block: MappedBlock, left: number, top: number, width: number, height: number): void {
    const context = this.#context;
    const text = block.id ?? formatBytes(block.requestedBytes);
    const count = Math.floor((width - 10) / 6.5);
    if (count < 4) return;
    context.fillStyle = this.#palette.onKind;
    context.font = this.#palette.font;
    context.textBaseline = "middle";
    const shown = text.length <= count ? text : `…${text.slice(1 - count)}`;
    context.fillText(shown, left + 5, top + height / 2, width - 8);
  }

  #paintTitle(
    index: number,
    arena: MappedArena | null,
    left: number,
    top: number,
    width: number,
  ): void {
    const title = arena === null ? "no arena yet" : titleOf(arena, width);
    if (this.#titles[index] === title) return;
    this.#titles[index] = title;
    const height = TITLE_HEIGHT * this.#viewport.zoom;
    const context = this.#context;
    context.fillStyle = this.#palette.ground;
    context.fillRect(left, top, width, height);
    context.font = this.#palette.font;
    context.textBaseline = "alphabetic";
    context.fillStyle = arena === null ? this.#palette.quiet : this.#palette.text;
    context.fillText(title, Math.max(left, 0), top + height - 6, width);
  }

  #snap(place: number): number {
    return Math.round(place * this.#dpr) / this.#dpr;
  }
}

interface Strip {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  /** Bytes from the arena's base that lie in the row. */
  readonly start: number;
  readonly end: number;
}

/** By what the id says before its last stroke. */
function shadeOf(id: string | null): number {
  let digest = 0;
  const end = id === null ? 0 : id.lastIndexOf("/");
  for (let at = end - 1; at >= Math.max(0, end - 6); at--) {
    digest = digest * 31 + (id as string).charCodeAt(at);
  }
  return SHADES[digest % SHADES.length] ?? 1;
}

function endOf(block: MappedBlock | undefined): number {
  return block === undefined ? Number.POSITIVE_INFINITY : block.offset + block.byteLength;
}

/** `KV_CACHE` → `KV cache`. */
export function kindName(kind: TensorKind): string {
  const words = kind.toLowerCase().replaceAll("_", " ");
  return words.startsWith("kv")
    ? `KV${words.slice(2)}`
    : `${words[0]?.toUpperCase()}${words.slice(1)}`;
}

export function liveBytes({ blocks }: MappedArena): number {
  return blocks.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

function titleOf(arena: MappedArena, width: number): string {
  const percent = Math.round((liveBytes(arena) / arena.byteLength) * 100);
  const name = kindName(arena.kind);
  const { length } = arena.blocks;
  const count = length === 1 ? "1 block" : `${length} blocks`;
  if (width < 210) return `${name} · ${percent} %`;
  return `${name} · ${percent} % of ${formatBytes(arena.byteLength)} · ${count}`;
}
