// Draws the heap's state; knows no tierheap but its figures.
import { formatBytes, type ListedTensor, type MemoryStats } from "tierheap";
import type { Finding } from "./pattern.js";

export function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found as T;
}

function make(tag: string, text = "", className = ""): HTMLElement {
  const made = document.createElement(tag);
  if (text !== "") made.textContent = text;
  if (className !== "") made.className = className;
  return made;
}

export function showStatus(text: string, tone: "plain" | "problem" = "plain"): void {
  const status = element("status");
  status.textContent = text;
  status.dataset["tone"] = tone;
}

interface Part {
  readonly name: string;
  readonly label: string;
  readonly bytes: number;
}

function drawMeter(target: HTMLElement, title: string, parts: Part[], limitBytes: number): void {
  const usedBytes = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const heading = make("p");
  const amount = `${formatBytes(usedBytes)} of ${formatBytes(limitBytes)}`;
  heading.append(make("strong", title), make("span", amount));
  const bar = make("div", "", "bar");
  bar.setAttribute("role", "img");
  const legend = make("ul", "", "legend");
  const spoken: string[] = [];
  for (const { name, label, bytes } of parts) {
    const piece = make("div", "", `part-${name}`);
    piece.style.width = `${(bytes / limitBytes) * 100}%`;
    bar.append(piece);
    const entry = make("li");
    entry.append(make("i", "", `part-${name}`), `${label} ${formatBytes(bytes)}`);
    legend.append(entry);
    spoken.push(`${label} ${formatBytes(bytes)}`);
  }
  bar.setAttribute("aria-label", `${title}: ${amount}; ${spoken.join(", ")}`);
  target.replaceChildren(heading, bar, legend);
}

export function drawMeters({ budget, tensors, tier }: MemoryStats): void {
  const { arenas, staging, control, retired } = budget.byCategory;
  drawMeter(
    element("ram"),
    "RAM",
    [
      { name: "live", label: "tensors", bytes: tensors.hotBytes },
      { name: "free", label: "free in arenas", bytes: Math.max(0, arenas - tensors.hotBytes) },
      { name: "staging", label: "staging", bytes: staging },
      { name: "control", label: "control plane", bytes: control },
      { name: "retired", label: "retired", bytes: retired },
    ],
    budget.limitBytes,
  );
  const isOff = tier.capacityBytes === 0;
  drawMeter(
    element("ssd"),
    isOff ? "Storage (off)" : "Storage",
    [{ name: "live", label: `${tier.objectCount} records`, bytes: tier.storedBytes }],
    isOff ? 1 : tier.capacityBytes,
  );
}

const FINDING_TEXT: Record<Finding, string> = {
  pattern: "pattern, equal",
  blank: "blank",
  damaged: "damaged",
};

function rowOf(tensor: ListedTensor, finding: Finding | undefined): HTMLElement {
  const { id, kind, dtype, shape, byteLength, isResident, isSaved } = tensor;
  const row = make("tr");
  const name = make("td");
  name.append(make("code", id.slice(id.indexOf("/") + 1)));
  name.title = kind;
  const where = [isResident ? "RAM" : "storage", ...(isSaved ? ["saved"] : [])].join(", ");
  const doing = make("td");
  const actions = [
    isResident ? ["swapOut", "Swap out"] : ["load", "Bring in"],
    ["save", "Save"],
    ["delete", "Delete"],
  ] as const;
  for (const [action, label] of actions) {
    const button = make("button", label) as HTMLButtonElement;
    button.type = "button";
    button.dataset["action"] = action;
    button.dataset["id"] = id;
    button.setAttribute("aria-label", `${label} ${id}`);
    doing.append(button, " ");
  }
  row.append(
    name,
    make("td", `${dtype} [${shape.join(", ")}]`),
    make("td", formatBytes(byteLength), "number"),
    make("td", where),
    make("td", finding === undefined ? "not looked at" : FINDING_TEXT[finding], finding ?? ""),
    doing,
  );
  return row;
}

export function drawTensors(
  tensors: readonly ListedTensor[],
  finding: (id: string) => Finding | undefined,
): void {
  const body = element("tensors");
  if (tensors.length > 0) {
    body.replaceChildren(...tensors.map((tensor) => rowOf(tensor, finding(tensor.id))));
    return;
  }
  const row = make("tr");
  const cell = make("td", "None yet.") as HTMLTableCellElement;
  cell.colSpan = 6;
  row.append(cell);
  body.replaceChildren(row);
}

let focused: HTMLElement | null = null;

/** While something is under way, nothing else can be started. The focus comes back afterwards. */
export function setBusy(isBusy: boolean): void {
  if (isBusy) focused = document.activeElement as HTMLElement | null;
  document.body.setAttribute("aria-busy", String(isBusy));
  for (const button of document.querySelectorAll("button")) button.disabled = isBusy;
  if (isBusy || focused === null) return;
  const { id } = focused.dataset;
  const sameRow = id === undefined ? null : `button[data-id="${CSS.escape(id)}"]`;
  const next = sameRow === null ? focused : document.querySelector<HTMLElement>(sameRow);
  next?.focus();
}
