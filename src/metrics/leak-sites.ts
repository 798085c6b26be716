// Who leaks: leaks by the place that allocated them. Layer: metrics.
import type { MemoryEvent } from "../memory/events.js";
import { formatBytes, formatTable } from "../stats/format.js";
import type { TensorKind } from "../types.js";

/** Leaks of one place. */
export interface LeakSite {
  readonly kind: TensorKind;
  /** Of the tensors, or the name of the scope that they were allocated in. */
  readonly tag: string;
  /** The stack of the allocation; null unless the memory was made with `debug: true`. */
  readonly callSite: string | null;
  count: number;
  bytes: number;
}

/** Places that are told apart; leaks of further ones are counted together. */
const SITE_COUNT_MAX = 1000;

/** Gathers the leaks of a memory, most bytes first. */
export class LeakSites {
  readonly #sites = new Map<string, LeakSite>();
  readonly #others: LeakSite = {
    ...{ kind: "ACTIVATIONS", tag: "(further places)", callSite: null },
    ...{ count: 0, bytes: 0 },
  };

  /** Takes note of one event; those that are no leaks are passed over. */
  note(event: MemoryEvent): void {
    if (event.type !== "leak") return;
    const { kind, tag, callSite, bytes } = event;
    const name = JSON.stringify([kind, tag, callSite]);
    let site = this.#sites.get(name);
    if (site === undefined) {
      site = { kind, tag, callSite, count: 0, bytes: 0 };
      if (this.#sites.size < SITE_COUNT_MAX) this.#sites.set(name, site);
      else site = this.#others;
    }
    site.count += 1;
    site.bytes += bytes;
  }

  /**
   * Takes note of a memory's events until the signal, or until it closes.
   *
   * @returns When that has happened.
   */
  async watch(
    memory: {
      events(options: { readonly signal?: AbortSignal }): AsyncIterable<MemoryEvent>;
    },
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    for await (const event of memory.events(options)) this.note(event);
  }

  /** A copy, most bytes first. */
  list(): readonly LeakSite[] {
    const sites = [...this.#sites.values(), ...(this.#others.count > 0 ? [this.#others] : [])];
    return sites.map((site) => ({ ...site })).sort((left, right) => right.bytes - left.bytes);
  }

  /** A table and, in debug mode, the stacks below it; one line if nothing leaked. */
  toString(): string {
    const sites = this.list();
    if (sites.length === 0) return "no leaks";
    const rows = sites.map(({ kind, tag, count, bytes, callSite }, index) => [
      `${index + 1}`,
      kind,
      tag === "" ? "-" : tag,
      `${count}`,
      formatBytes(bytes),
      callSite?.split("\n")[0] ?? "debug: true tells",
    ]);
    const table = formatTable([["", "kind", "tag", "tensors", "bytes", "allocated"], ...rows]);
    const stacks = sites.flatMap(({ callSite }, index) =>
      callSite === null ? [] : [`${index + 1}:\n${callSite.replaceAll(/^/gm, "  ")}`],
    );
    return [table, ...stacks].join("\n\n");
  }
}
