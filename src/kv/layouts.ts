// Layouts that code pages: which form each page of a layer has, by its place alone. The first pages stay
// exact, since attention leans on them whatever they say, and so do the last ones.
//
//   layout   between the first and the last pages
//   quant8   a8
//   quant    a4
//   lowrank  keys in a basis, values as rotated vectors
//   hybrid   a8, then a4, then the shortest: the older the shorter; a page with more than its share of
//            attention is kept one step better
//
// Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks" — the first pages.
import { MisuseError } from "../errors.js";
import { exactForm } from "./forms/exact.js";
import type { KvLayout } from "./kv-layout.js";
import type { PageForm } from "./page-form.js";

export type CodedLayoutName = "quant8" | "quant" | "lowrank" | "hybrid";

/** Forms to choose from: `openPageForms` has them. */
export interface CodedLayoutForms {
  readonly a8: PageForm;
  readonly a4: PageForm;
  readonly a2: PageForm;
}

export interface CodedLayoutOptions {
  /** First pages that stay exact, 0 or more. Default: 1. */
  readonly sinkPages?: number;
  /** Last full pages that stay exact, 0 or more, beside the unfinished one. Default: 1. */
  readonly recentPages?: number;
  /** `hybrid`: pages after the exact ones that have a8, 0 or more. Default: 3. */
  readonly a8Pages?: number;
  /** `hybrid`: pages after those that have a4, 0 or more. Default: 8. */
  readonly a4Pages?: number;
  /** `hybrid`: times the mean share of attention from which a page is kept a step better. Default: 1.2. */
  readonly attentionFactor?: number;
  /** The low-rank form of a layer, or null where there is none: that layer then gets a4, or a2. */
  readonly lowRankOfLayer?: (layerIndex: number) => PageForm | null;
  /** Another form for a layer, instead of the layout's: precision by layer and by kind. */
  readonly formOfLayer?: (layerIndex: number) => PageForm | null;
}

/**
 * A layout by its name.
 *
 * @throws {MisuseError} `bad-option` — a count or factor out of range, or `lowrank` without forms.
 * @remarks Its `formOf` throws `bad-option` when `lowrank` meets keys that are rotated already, whatever
 *   the place, so that a cache finds out before it has any row.
 */
export function codedLayout(
  name: CodedLayoutName,
  forms: CodedLayoutForms,
  options: CodedLayoutOptions = {},
): KvLayout {
  const {
    sinkPages = 1,
    recentPages = 1,
    a8Pages = 3,
    a4Pages = 8,
    attentionFactor = 1.2,
  } = options;
  for (const count of [sinkPages, recentPages, a8Pages, a4Pages]) {
    if (Number.isSafeInteger(count) && count >= 0) continue;
    throw new MisuseError("bad-option", `pages of a layout are 0 or more, not ${count}`);
  }
  if (!(attentionFactor >= 1)) {
    throw new MisuseError("bad-option", "attentionFactor is at least 1");
  }
  if (name === "lowrank" && options.lowRankOfLayer === undefined) {
    throw new MisuseError("bad-option", "lowrank needs a form for each layer");
  }
  const parameters = name === "hybrid" ? `,${a8Pages},${a4Pages},${attentionFactor}` : "";
  return {
    name: `${name}(${sinkPages},${recentPages}${parameters})`,
    isUniform: false,
    keeps: () => true,
    formOf: (shape, place) => {
      const { pageIndex, pageCount, layerIndex } = place;
      if (shape.isCritical === true) return exactForm;
      const chosen = options.formOfLayer?.(layerIndex) ?? null;
      const lowRank = options.lowRankOfLayer?.(layerIndex) ?? null;
      if (name === "lowrank" && chosen === null && shape.areKeysBeforeRope !== true) {
        throw new MisuseError(
          "bad-option",
          "low rank needs keys before their rotation by position",
        );
      }
      const age = pageCount - 1 - pageIndex;
      if (pageIndex < sinkPages || age < recentPages) return exactForm;
      if (chosen !== null) return chosen;
      if (name === "quant8") return forms.a8;
      if (name === "quant") return forms.a4;
      if (name === "lowrank") return lowRank ?? forms.a4;
      const oldest = shape.areKeysBeforeRope === true ? (lowRank ?? forms.a2) : forms.a2;
      const steps = [forms.a8, forms.a4, oldest];
      const step = age < recentPages + a8Pages ? 0 : age < recentPages + a8Pages + a4Pages ? 1 : 2;
      const isNoted = (place.attentionMass ?? 0) * pageCount >= attentionFactor;
      return steps[Math.max(0, isNoted ? step - 1 : step)] as PageForm;
    },
  };
}
