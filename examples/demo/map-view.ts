// The live map: a canvas that shows the arenas, follows pointer, wheel and keyboard, and takes at most a
// fixed share of the main thread, however much the heap changes.
import { formatBytes, type MappedArena, type MemoryMap, type TensorMemory } from "tierheap";
import { element, make, nextFrame, setText } from "./dom.js";
import { TimeShare } from "./main-thread.js";
import {
  blockAt,
  type Grid,
  layGrid,
  longestFreeBytes,
  placeAt,
  sumByColour,
  Viewport,
} from "./map-layout.js";
import { kindName, liveBytes, MapPainter } from "./map-painter.js";

/** Share of the main thread after which the map waits before it looks again. */
const SHARE_MAX = 0.06;
/** While nothing runs, the map looks so often whether something has changed. */
const IDLE_MS = 400;
const TABLE_MS = 2000;
const LEGEND_MS = 500;
const PAN_STEP = 48;
const ZOOM_STEP = 1.4;

export class MapView {
  readonly share = new TimeShare();
  readonly #root = element("map");
  readonly #canvas = element<HTMLCanvasElement>("map-canvas");
  readonly #tip = element("map-tip");
  readonly #viewport = new Viewport();
  readonly #painter: MapPainter;
  /** The tile of each arena, by the arena's number. */
  readonly #tileOf = new Map<number, number>();
  readonly #pointers = new Map<number, { x: number; y: number }>();
  #tiles: (MappedArena | null)[] = [];
  #wantedTiles = 8;
  #grid: Grid = layGrid(8, 600, 300);
  #isStale = true;
  #nextMs = 0;
  #tableMs = 0;
  #legendMs = 0;
  #hover: { x: number; y: number } | null = null;
  #paintedRows = 0;

  constructor() {
    const context = this.#canvas.getContext("2d", { alpha: false });
    if (context === null) throw new Error("this browser has no canvas");
    this.#painter = new MapPainter(context, this.#viewport, this.#grid);
    new ResizeObserver(() => this.#resize()).observe(this.#canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#painter.refreshColours();
      this.#resize();
    });
    this.#listen();
    this.#resize();
  }

  /** Rows painted so far: while nothing changes, it stays. */
  get paintedRows(): number {
    return this.#paintedRows;
  }

  /** Another memory, that may open so many arenas. */
  begin(arenaCount: number): void {
    this.#wantedTiles = Math.max(1, arenaCount);
    this.#tileOf.clear();
    this.#tiles = [];
    this.#resize();
  }

  /**
   * Follows a memory until `isEnded`. Looks at most once per frame, and so rarely that what it takes stays
   * below the share.
   *
   * @param isBusy Whether something runs that changes the heap.
   */
  async follow(memory: TensorMemory, isEnded: () => boolean, isBusy: () => boolean): Promise<void> {
    // The first call loads its code; that is no part of what the map takes.
    this.#show(await memory.map());
    while (!isEnded()) {
      const nowMs = await nextFrame();
      if (isEnded()) return;
      if (nowMs < this.#nextMs && !this.#isStale) continue;
      const beganMs = performance.now();
      this.#show(await memory.map());
      const tookMs = performance.now() - beganMs;
      this.share.add(tookMs);
      this.#nextMs = beganMs + (isBusy() ? tookMs / SHARE_MAX : IDLE_MS);
    }
  }

  #show({ arenas }: MemoryMap): void {
    const open = new Set(arenas.map(({ id }) => id));
    for (const id of this.#tileOf.keys()) if (!open.has(id)) this.#tileOf.delete(id);
    const taken = new Set(this.#tileOf.values());
    for (const { id } of arenas) {
      if (this.#tileOf.has(id)) continue;
      let tile = 0;
      while (taken.has(tile)) tile += 1;
      taken.add(tile);
      this.#tileOf.set(id, tile);
    }
    const count = Math.max(this.#wantedTiles, ...[...taken].map((tile) => tile + 1));
    if (count !== this.#tiles.length) this.#isStale = true;
    this.#tiles = new Array<MappedArena | null>(count).fill(null);
    for (const arena of arenas) this.#tiles[this.#tileOf.get(arena.id) as number] = arena;
    if (this.#isStale) this.#restart();
    this.#paintedRows += this.#painter.paint(this.#tiles);
    this.#showTip();
    this.#fillLegend(arenas);
    this.#fillTable(arenas);
  }

  #resize(): void {
    const { clientWidth, clientHeight } = this.#canvas;
    const dpr = devicePixelRatio;
    this.#canvas.width = Math.round(clientWidth * dpr);
    this.#canvas.height = Math.round(clientHeight * dpr);
    this.#viewport.resize(clientWidth, clientHeight);
    // A canvas that was resized is black until something is drawn.
    this.#restart();
    this.#painter.paint(this.#tiles);
  }

  #restart(): void {
    this.#isStale = false;
    const { clientWidth, clientHeight } = this.#canvas;
    this.#grid = layGrid(this.#tiles.length, clientWidth, clientHeight);
    this.#painter.reset(this.#grid, clientWidth, clientHeight, devicePixelRatio);
  }

  // --- Pointer, wheel, keyboard ----------------------------------------------------------------------

  #listen(): void {
    const canvas = this.#canvas;
    this.#root.tabIndex = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#pointers.set(event.pointerId, this.#placeOf(event));
    });
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const type of ["pointerup", "pointercancel"] as const) {
      canvas.addEventListener(type, ({ pointerId }) => this.#pointers.delete(pointerId));
    }
    canvas.addEventListener("pointerleave", () => {
      this.#hover = null;
      this.#showTip();
    });
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.#root.addEventListener("keydown", (event) => this.#key(event));
    element("map-in").addEventListener("click", () => this.#zoom(ZOOM_STEP));
    element("map-out").addEventListener("click", () => this.#zoom(1 / ZOOM_STEP));
    element("map-fit").addEventListener("click", () => this.#zoom(0));
  }

  #placeOf({ clientX, clientY }: MouseEvent): { x: number; y: number } {
    const { left, top } = this.#canvas.getBoundingClientRect();
    return { x: clientX - left, y: clientY - top };
  }

  #move(event: PointerEvent): void {
    const place = this.#placeOf(event);
    this.#hover = event.pointerType === "touch" ? null : place;
    const before = this.#pointers.get(event.pointerId);
    if (before !== undefined) {
      const others = [...this.#pointers].filter(([id]) => id !== event.pointerId);
      const other = others[0]?.[1];
      if (other === undefined) this.#viewport.pan(before.x - place.x, before.y - place.y);
      else {
        const distance = (at: { x: number; y: number }) =>
          Math.max(1, Math.hypot(at.x - other.x, at.y - other.y));
        const middle = { x: (place.x + other.x) / 2, y: (place.y + other.y) / 2 };
        this.#viewport.zoomAt(distance(place) / distance(before), middle.x, middle.y);
      }
      this.#pointers.set(event.pointerId, place);
      this.#changed();
    }
    this.#showTip();
  }

  /** The wheel belongs to the page until the map was chosen, by a click or the Tab key, or is zoomed. */
  #wheel(event: WheelEvent): void {
    const isChosen = document.activeElement === this.#root || this.#viewport.zoom > 1;
    if (!isChosen && !event.ctrlKey && !event.metaKey) return;
    if (this.#viewport.zoom === 1 && event.deltaY > 0) return;
    event.preventDefault();
    const { x, y } = this.#placeOf(event);
    this.#viewport.zoomAt(Math.exp(-event.deltaY / 300), x, y);
    this.#changed();
  }

  #key(event: KeyboardEvent): void {
    if (event.target !== this.#root || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves: Record<string, () => void> = {
      ArrowLeft: () => this.#viewport.pan(-PAN_STEP, 0),
      ArrowRight: () => this.#viewport.pan(PAN_STEP, 0),
      ArrowUp: () => this.#viewport.pan(0, -PAN_STEP),
      ArrowDown: () => this.#viewport.pan(0, PAN_STEP),
      "+": () => this.#viewport.zoomAt(ZOOM_STEP),
      "=": () => this.#viewport.zoomAt(ZOOM_STEP),
      "-": () => this.#viewport.zoomAt(1 / ZOOM_STEP),
      "0": () => this.#viewport.fit(),
    };
    const move = moves[event.key];
    if (move === undefined) return;
    // Without a zoom the arrows scroll the page as ever.
    if (event.key.startsWith("Arrow") && this.#viewport.zoom === 1) return;
    event.preventDefault();
    move();
    this.#changed();
  }

  #zoom(factor: number): void {
    if (factor === 0) this.#viewport.fit();
    else this.#viewport.zoomAt(factor);
    this.#changed();
  }

  #changed(): void {
    this.#isStale = true;
    this.#canvas.style.touchAction = this.#viewport.zoom > 1 ? "none" : "pan-y";
    setText(element("map-zoom"), `${this.#viewport.zoom.toFixed(1)}×`);
  }

  // --- Words -------------------------------------------------------------------------------------------

  #showTip(): void {
    const text = this.#hover === null ? null : this.#textAt(this.#hover.x, this.#hover.y);
    this.#tip.hidden = text === null;
    if (text === null || this.#hover === null) return;
    setText(this.#tip, text);
    const right = this.#canvas.clientWidth - this.#tip.offsetWidth - 4;
    const left = Math.max(4, Math.min(this.#hover.x + 14, right));
    const below = this.#hover.y + 18;
    const isLow = below + this.#tip.offsetHeight > this.#canvas.clientHeight;
    const top = isLow ? this.#hover.y - this.#tip.offsetHeight - 10 : below;
    this.#tip.style.transform = `translate(${left}px, ${top}px)`;
  }

  #textAt(x: number, y: number): string | null {
    const { zoom, x: offsetX, y: offsetY } = this.#viewport;
    const place = placeAt(this.#grid, (x + offsetX) / zoom, (y + offsetY) / zoom);
    const arena = place === null ? null : (this.#tiles[place.tile] ?? null);
    if (place === null || arena === null) return null;
    const offset = ((place.row + place.ratio) / this.#grid.rowCount) * arena.byteLength;
    const found = blockAt(arena, offset);
    const at = (bytes: number) => `0x${bytes.toString(16).padStart(6, "0")}`;
    if (!("kind" in found)) {
      return `free · ${formatBytes(found.freeBytes)}\nfrom ${at(found.freeOffset)}`;
    }
    const { id, kind, requestedBytes, byteLength, isPinned } = found;
    const slack = byteLength - requestedBytes;
    return [
      `${id ?? "anonymous"}${isPinned ? " · pinned" : ""}`,
      `${kindName(kind)} · ${formatBytes(requestedBytes)}${slack > 0 ? ` + ${formatBytes(slack)} rounding` : ""}`,
      `arena ${arena.id}, from ${at(found.offset)}`,
    ].join("\n");
  }

  /** How much there is of each colour. */
  #fillLegend(arenas: readonly MappedArena[]): void {
    const nowMs = performance.now();
    if (nowMs < this.#legendMs) return;
    this.#legendMs = nowMs + LEGEND_MS;
    const sums = sumByColour(arenas);
    for (const item of element("map-legend").children as Iterable<HTMLElement>) {
      const bytes = sums.get(item.dataset["kind"] ?? "") ?? 0;
      item.toggleAttribute("data-empty", bytes === 0);
      setText(item.lastElementChild as Element, bytes === 0 ? "–" : formatBytes(bytes));
    }
  }

  /** The same in words, for those who do not see the canvas; filled only while it is open. */
  #fillTable(arenas: readonly MappedArena[]): void {
    const nowMs = performance.now();
    const details = element<HTMLDetailsElement>("map-words");
    if (!details.open || nowMs < this.#tableMs) return;
    this.#tableMs = nowMs + TABLE_MS;
    const rows = arenas.map((arena) => {
      const pinnedCount = arena.blocks.filter(({ isPinned }) => isPinned).length;
      const name = make("th", "", `${arena.id}`);
      name.scope = "row";
      const cells = [
        kindName(arena.kind),
        formatBytes(arena.byteLength),
        formatBytes(liveBytes(arena)),
        `${arena.blocks.length}`,
        `${pinnedCount}`,
        formatBytes(longestFreeBytes(arena)),
      ];
      return make("tr", "", name, ...cells.map((text) => make("td", "", text)));
    });
    element("map-rows").replaceChildren(...rows);
  }
}
