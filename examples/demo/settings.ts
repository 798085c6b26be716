// What the visitor has set, kept between visits; the address may say otherwise.
import { DEFAULT_SETTINGS, type HeapSettings } from "./heap.js";

const KEY = "tierheap-demo/settings";

export interface PageSettings {
  readonly heap: HeapSettings;
  /** Nothing runs until it is asked for. */
  readonly isQuiet: boolean;
}

function stored(): Partial<HeapSettings> {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<HeapSettings>;
  } catch {
    return {};
  }
}

function within(value: unknown, least: number, most: number, otherwise: number): number {
  const number = Number(value ?? Number.NaN);
  return Number.isInteger(number) && number >= least && number <= most ? number : otherwise;
}

/** @param search The query of the address: `ram`, `warm`, `storage` in MiB, and `quiet`. */
export function readSettings(search: string): PageSettings {
  const asked = new URLSearchParams(search);
  const kept = stored();
  const ram = within(asked.get("ram") ?? kept.ram, 16, 256, DEFAULT_SETTINGS.ram);
  const warm = within(asked.get("warm") ?? kept.warm, 0, 32, DEFAULT_SETTINGS.warm);
  const heap = {
    ram,
    warm: Math.min(warm, ram / 4),
    storage: within(asked.get("storage") ?? kept.storage, 0, 1024, DEFAULT_SETTINGS.storage),
    autoCompaction: kept.autoCompaction === true,
  };
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  return { heap, isQuiet: asked.has("quiet") || isStill };
}

/** `runtime=page`: the model's runtime starts and computes in the page's own thread, to see what that costs. */
export function isRuntimeInPage(search: string): boolean {
  return new URLSearchParams(search).get("runtime") === "page";
}

export function keepSettings(settings: HeapSettings): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // A page without storage forgets them.
  }
}
