// Page forms: all that a page of KV can be kept in, over one workspace. Layer: kv.
//
//   a8  keys per channel at 8 bits over 64 tokens, values in blocks of 32 at 8 bits
//   a4  keys per channel at 4 bits over 64 tokens, values as rotated vectors at 4 bits
//   a3  the same at 3 bits
//   a2  keys per channel at 2 bits over 32 tokens, values as rotated vectors at 2 bits
//   low rank: keys before their rotation by position, in a basis that the model's keys gave
//
// Keys go per channel because their outliers keep to their channels; values go per token.
// Source: Liu et al., "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache" — these axes.
import { CodecWorkspace } from "../../core/codec-workspace.js";
import { createUnsharedMemory, type MemoryFactory } from "../../core/linear-memory.js";
import type { WasmSource } from "../../core/module-instance.js";
import { MisuseError } from "../../errors.js";
import type { KvLayerShape, PageForm } from "../page-form.js";
import {
  type Basis,
  type BasisBits,
  type BasisParts,
  basisOf,
  basisSide,
  basisWorkspaceBytes,
  fitBasis,
} from "./basis.js";
import { CodedForm } from "./coded.js";
import { exactForm } from "./exact.js";
import { type CodeBits, lmSide, sidesOf } from "./sides.js";

/** Enough for pages of 64 tokens with 32 heads of 128. */
const WORKSPACE_BYTES = 2 ** 20;
const CODE_BITS: readonly CodeBits[] = [8, 4, 3, 2];

export interface PageFormsOptions {
  /** Default: unshared memories. */
  readonly createMemory?: MemoryFactory;
  /** kernels.wasm; default: the one that the package carries. */
  readonly wasm?: WasmSource | undefined;
  /** Bytes of linear memory to code in. Default: 1 MiB. A page's section and one head must fit. */
  readonly workspaceBytes?: number;
}

/** What a low-rank form keeps. */
export interface LowRankOptions {
  /** Of the layer's keys before their rotation by position. */
  readonly keys: Basis;
  /** Values: their own basis, or bits of rotated vectors. Default: 4 bits. */
  readonly values?: Basis | Exclude<CodeBits, 8>;
}

export interface PageForms {
  readonly exact: PageForm;
  readonly a8: PageForm;
  readonly a4: PageForm;
  readonly a3: PageForm;
  readonly a2: PageForm;
  /** Keys and values with bits of their own: keys per channel, values as in the form of those bits. */
  mixed(keyBits: CodeBits, valueBits: CodeBits): PageForm;
  /** Bytes of linear memory that the forms work in. */
  readonly workspaceBytes: number;
  /**
   * A form for layers that this basis was found on.
   *
   * @remarks Its `sectionBytes` throws `bad-option` for keys that are rotated already: their energy is
   *   spread over all directions. Sections carry the basis' key; decoding over another basis throws
   *   `foreign-cache`.
   */
  lowRank(options: LowRankOptions): PageForm;
  /** As {@link fitBasis} of `basis.ts`, in a workspace of its own that is gone afterwards. */
  fitBasis(
    layer: KvLayerShape,
    rows: Uint8Array,
    tokens: number,
    wanted: BasisBits,
  ): Promise<Basis>;
  /** A basis from its parts. @throws {MisuseError} `bad-shape`, `bad-size`. */
  basisOf(parts: BasisParts): Basis;
}

/**
 * Loads the kernels and makes the forms.
 *
 * @remarks The workspace is not counted by any memory's budget: open the forms once, for all caches.
 * @throws {OutOfMemoryError} The platform has no room for the workspace.
 */
export async function openPageForms(options: PageFormsOptions = {}): Promise<PageForms> {
  const { createMemory = createUnsharedMemory, wasm, workspaceBytes = WORKSPACE_BYTES } = options;
  const workspace = await CodecWorkspace.create(workspaceBytes, createMemory, wasm);
  const coded = (name: string, keyBits: CodeBits, valueBits: CodeBits) =>
    new CodedForm({ name, workspace, ...sidesOf(keyBits, valueBits) });
  return {
    exact: exactForm,
    a8: coded("a8", 8, 8),
    a4: coded("a4", 4, 4),
    a3: coded("a3", 3, 3),
    a2: coded("a2", 2, 2),
    mixed: (keyBits, valueBits) => {
      for (const bits of [keyBits, valueBits]) {
        if (CODE_BITS.includes(bits)) continue;
        throw new MisuseError("bad-option", `codes have 8, 4, 3 or 2 bits, not ${String(bits)}`);
      }
      return coded(`k${keyBits}v${valueBits}`, keyBits, valueBits);
    },
    workspaceBytes: workspace.byteLength,
    lowRank: ({ keys, values = 4 }) => lowRankForm(workspace, keys, values),
    fitBasis: async (layer, rows, tokens, wanted) => {
      const neededBytes = basisWorkspaceBytes(layer.headDim, tokens) + WORKSPACE_BYTES;
      const own = await CodecWorkspace.create(neededBytes, createMemory, wasm);
      return fitBasis(own, layer, rows, tokens, wanted);
    },
    basisOf: (parts) => basisOf(workspace, parts),
  };
}

const hexOf = ({ key }: Basis) => key.toString(16).padStart(8, "0");

function lowRankForm(workspace: CodecWorkspace, keys: Basis, values: Basis | 4 | 3 | 2): PageForm {
  const isBasis = typeof values === "object";
  return new CodedForm({
    // Tells bases apart: pages over another one are not found.
    name: `lowrank-${hexOf(keys)}-${isBasis ? hexOf(values) : `v${values}`}`,
    workspace,
    keys: basisSide(keys),
    values: isBasis ? basisSide(values) : lmSide(values),
    requireLayer: (layer) => {
      if (layer.areKeysBeforeRope !== true) {
        throw new MisuseError(
          "bad-option",
          "low rank needs keys before their rotation by position",
        );
      }
      for (const basis of isBasis ? [keys, values] : [keys]) {
        if (basis.heads !== layer.heads || basis.headDim !== layer.headDim) {
          throw new MisuseError("bad-shape", "the basis was found on other heads");
        }
      }
    },
  });
}
