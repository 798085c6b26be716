// The tiers as a stack, the fastest on top, and between them what moves down and up.
import { formatBytes, type MemoryStats } from "tierheap";
import { element, make, setText } from "./dom.js";
import type { Sample, TierSample } from "./sampler.js";

const TITLES: Readonly<Record<string, string>> = {
  ram: "RAM",
  warm: "RAM, encoded",
  ssd: "Browser storage",
};

/** A flow of so many bytes per second is drawn as the thinnest line. */
const THIN_BYTES_PER_SECOND = 2 ** 16;

interface Part {
  readonly name: string;
  readonly label: string;
  readonly bytes: number;
}

interface TierElements {
  readonly amount: HTMLElement;
  readonly bar: HTMLElement;
  /** What its colours mean, with bytes: of a tier of several parts. */
  readonly parts: HTMLElement;
  readonly note: HTMLElement;
}

interface FlowElements {
  readonly down: HTMLElement;
  readonly up: HTMLElement;
}

function partsOfRam({ budget, tensors }: MemoryStats): Part[] {
  const { arenas, staging, control, retired, warm } = budget.byCategory;
  return [
    { name: "live", label: "tensors", bytes: tensors.hotBytes },
    { name: "free", label: "free in arenas", bytes: Math.max(0, arenas - tensors.hotBytes) },
    { name: "warm", label: "kept for encoded", bytes: warm },
    { name: "other", label: "staging, workers", bytes: staging + control },
    { name: "retired", label: "to be collected", bytes: retired },
  ];
}

export class TiersView {
  readonly #root = element("tiers");
  #tiers: TierElements[] = [];
  #flows: FlowElements[] = [];
  #names = "";

  show({ tiers, stats }: Sample): void {
    const shown = tiers.filter(({ capacityBytes }) => capacityBytes > 0);
    const names = shown.map(({ name }) => name).join();
    if (names !== this.#names) this.#build(shown);
    this.#names = names;
    for (const [index, tier] of shown.entries()) {
      const used = tier.name === "ram" ? stats.budget.usedBytes : tier.physicalBytes;
      const parts =
        tier.name === "ram"
          ? partsOfRam(stats)
          : [{ name: "live", label: "records", bytes: tier.storedBytes }];
      this.#showTier(this.#tiers[index] as TierElements, tier, used, parts);
      const flow = this.#flows[index - 1];
      if (flow !== undefined) showFlow(flow, tier);
    }
  }

  #build(tiers: readonly TierSample[]): void {
    this.#tiers = [];
    this.#flows = [];
    const items: HTMLElement[] = [];
    for (const { name } of tiers) {
      if (items.length > 0) {
        const down = make("span", "flow down");
        const up = make("span", "flow up");
        this.#flows.push({ down, up });
        items.push(make("li", "flows", down, up));
      }
      const amount = make("span", "amount");
      const bar = make("div", "bar");
      bar.setAttribute("role", "img");
      const note = make("p", "note");
      const parts = make("ul", "parts");
      note.hidden = name === "ram";
      parts.hidden = name !== "ram";
      const head = make("p", "tier-head", make("strong", "", TITLES[name] ?? name), amount);
      this.#tiers.push({ amount, bar, parts, note });
      items.push(make("li", "tier", head, bar, parts, note));
    }
    this.#root.replaceChildren(...items);
  }

  #showTier(to: TierElements, tier: TierSample, usedBytes: number, parts: readonly Part[]): void {
    const amount = `${formatBytes(usedBytes)} of ${formatBytes(tier.capacityBytes)}`;
    setText(to.amount, amount);
    // One background: pieces that change their width would be laid out anew each time.
    let at = 0;
    const stops = parts.map(({ name, bytes }) => {
      const from = at;
      at += (bytes / tier.capacityBytes) * 100;
      return `var(--part-${name}) ${from.toFixed(2)}% ${at.toFixed(2)}%`;
    });
    to.bar.style.background = `linear-gradient(to right, ${stops.join()}, var(--free) 0)`;
    const spoken = parts.map(({ label, bytes }) => `${label} ${formatBytes(bytes)}`);
    to.bar.setAttribute(
      "aria-label",
      `${TITLES[tier.name] ?? tier.name}: ${amount}; ${spoken.join(", ")}`,
    );
    if (tier.name === "ram") showParts(to.parts, parts);
    else setText(to.note, `${tier.objectCount.toLocaleString("en")} records`);
  }
}

function showParts(to: HTMLElement, parts: readonly Part[]): void {
  if (to.childElementCount === 0) {
    const items = parts.map(({ name, label }) => {
      const key = make("i");
      key.style.background = `var(--part-${name})`;
      return make("li", "", key, make("span", "", label), make("span", "amount"));
    });
    to.append(...items);
  }
  for (const [index, { bytes }] of parts.entries()) {
    setText(to.children[index]?.lastElementChild as Element, formatBytes(bytes));
  }
}

function showFlow({ down, up }: FlowElements, tier: TierSample): void {
  showOne(down, "↓", tier.writtenBytesPerSecond);
  showOne(up, "↑", tier.readBytesPerSecond);
}

function showOne(target: HTMLElement, arrow: string, bytesPerSecond: number): void {
  setText(target, `${arrow} ${formatBytes(bytesPerSecond)}/s`);
  const isMoving = bytesPerSecond > 0;
  target.dataset["moving"] = `${isMoving}`;
  const width = isMoving
    ? 1 + Math.max(0, Math.log2(bytesPerSecond / THIN_BYTES_PER_SECOND)) / 2
    : 1;
  target.style.setProperty("--flow-width", `${Math.min(6, width).toFixed(1)}px`);
}
