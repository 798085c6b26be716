// Seam: in which form each page of a cache is kept, and which pages leave. A layout decides by places
// alone; it sees neither rows nor tensors.
import { MisuseError } from "../errors.js";
import { exactForm } from "./forms/exact.js";
import type { KvLayerShape, PageForm } from "./page-form.js";

/** Where a page is in its cache. */
export interface PagePlace {
  /** 0-based, counted from the first token of the chat. */
  readonly pageIndex: number;
  /** Full pages so far, more than `pageIndex`; those that left are counted. */
  readonly pageCount: number;
  /** 0-based. */
  readonly layerIndex: number;
  /** What the caller noted last: the share of attention that the page gets, or null. */
  readonly attentionMass: number | null;
}

/** How a cache keeps its full pages. The unfinished tail is always exact. */
export interface KvLayout {
  /** With its parameters: caches of one name share pages, of others only while both layouts are exact. */
  readonly name: string;
  /** {@link formOf} looks at the shape alone: no page is ever written anew. */
  readonly isUniform: boolean;
  /**
   * The form of one layer's section. As pages are added a page is asked for again; it is written anew
   * when that makes it shorter. Critical layers are exact, whatever this says.
   */
  formOf(shape: KvLayerShape, place: PagePlace): PageForm;
  /** Whether a page stays. One that has left does not come back. */
  keeps(pageIndex: number, pageCount: number): boolean;
}

/** Every page stays as it came. */
export const pagedLayout: KvLayout = {
  name: "paged",
  isUniform: true,
  formOf: () => exactForm,
  keeps: () => true,
};

/**
 * Keeps the first pages, which attention leans on whatever they say, and the last ones. All rows between
 * are gone: this is no compression, the model no longer knows what was said there.
 *
 * @param options.sinkPages First pages, 0 or more. Default: 1.
 * @param options.recentPages Last full pages, 1 or more.
 * @throws {MisuseError} `bad-option`.
 * @see Xiao et al., Efficient Streaming Language Models with Attention Sinks, 2023.
 */
export function windowLayout(options: {
  readonly sinkPages?: number;
  readonly recentPages: number;
}): KvLayout {
  const { sinkPages = 1, recentPages } = options;
  if (!Number.isSafeInteger(sinkPages) || sinkPages < 0) {
    throw new MisuseError("bad-option", "sinkPages is an integer, 0 or more");
  }
  if (!Number.isSafeInteger(recentPages) || recentPages < 1) {
    throw new MisuseError("bad-option", "recentPages is an integer, 1 or more");
  }
  return {
    ...pagedLayout,
    name: `window(${sinkPages},${recentPages})`,
    keeps: (index, count) => index < sinkPages || index >= count - recentPages,
  };
}
