// Small helpers over the document.
import { formatBytes, OutOfMemoryError } from "tierheap";

/** @throws {Error} The page has no such element. */
export function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found as T;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (className !== "") made.className = className;
  made.append(...children);
  return made;
}

/** Sets the text only if it changes: what is set is laid out. */
export function setText(target: Element, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/** One live region for the whole page. It tells outcomes of what the visitor did, nothing that runs by itself. */
export function say(text: string, tone: "plain" | "problem" = "plain"): void {
  const status = element("status");
  setText(status, text);
  status.dataset["tone"] = tone;
}

export function sayProblem(error: unknown): void {
  say(describeProblem(error), "problem");
}

/** A refusal with its numbers in units that people read; of other errors what they say. */
export function describeProblem(error: unknown): string {
  if (!(error instanceof OutOfMemoryError)) {
    return error instanceof Error ? error.message : String(error);
  }
  const [requested, free, largest, pinned] = [
    error.requestedBytes,
    error.freeBytes,
    error.largestFreeBlockBytes,
    error.pinnedBytes,
  ].map(formatBytes);
  const numbers = `${free} free, ${largest} in one block, ${pinned} pinned`;
  return `${requested} do not fit beside what may not leave RAM (${numbers}).`;
}

export function nextFrame(): Promise<number> {
  return new Promise((resolve) => {
    requestAnimationFrame(resolve);
  });
}

/** Lets the page draw and answer between two pieces of work. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** A value of the style sheet as it is written there. */
export function styleValue(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A colour of the style sheet as it is now, light or dark: a canvas need not know `light-dark()`. */
export function styleColour(name: string): string {
  const probe = make("i");
  probe.style.color = `var(${name})`;
  probe.hidden = true;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
