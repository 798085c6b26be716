// What each quantising codec writes into its sections, and how it is read back. Everything lies in the
// workspace; nothing is checked here: the format's reader has done that.
import type { CodecWorkspace } from "../core/codec-workspace.js";
import { decodeComponents } from "./components.js";
import { decodeFactors } from "./factors.js";
import { BLOCK_VALUES, LM_UNIT_VALUES, lmVectorCount, roundUp } from "./format.js";
import { eachPage, loadParts, repeatLastRow, storeParts, type UnitPlace } from "./parts.js";

/**
 * Encodes f32 values into the sections of a quantising codec.
 *
 * @param values Room for `paddedCount` values; what is behind the last is overwritten.
 * @param thresholdBits Of `sparse`: the least magnitude that is kept, as bits.
 * @returns False if `sparse` keeps another count than the header says.
 */
export function encodeSections(
  workspace: CodecWorkspace,
  place: UnitPlace,
  values: number,
  thresholdBits = 0,
): boolean {
  const { header, sections, address } = place;
  const { kernels } = workspace;
  const { rows, columns, codec, bits, group } = header;
  const count = rows * columns;
  const codes = address + sections.codes;
  const scales = address + sections.scales;
  if (codec === "chan") {
    repeatLastRow(workspace, values, header);
    const scratch = workspace.take(16 * group + 192);
    eachPage(header, (page, first, pageRows) => {
      const source = values + first * columns * 4;
      const to = codes + (first * columns * bits) / 8;
      const ranges = scales + page * columns * 4;
      kernels.chanEncode(source, columns * 4, pageRows, columns, bits, to, ranges, scratch);
    });
    return true;
  }
  const padding = workspace.f32(values, roundUp(count, 4096));
  padding.fill(0, count);
  const blocks = Math.ceil(count / BLOCK_VALUES);
  if (codec === "q8") {
    const encode = header.isExact ? kernels.q8EncodeExact : kernels.q8Encode;
    encode(values, codes, scales, blocks);
  } else if (codec === "q4") {
    const encode = header.isExact ? kernels.q4EncodeExact : kernels.q4Encode;
    encode(values, codes, scales, blocks);
  } else if (codec === "lm") {
    const length = 2 ** group;
    const vectors = lmVectorCount(header);
    const rotated = workspace.take(vectors * length * 4);
    workspace.f32(rotated, vectors * length).set(workspace.f32(values, vectors * length));
    const scratch = workspace.take(192 + Math.max(LM_UNIT_VALUES, length));
    kernels.lmEncode(rotated, vectors, length, bits, codes, scales, scratch);
  } else if (codec === "sparse") {
    const kept = workspace.take((count + 64) * 4);
    const found = kernels.sparseEncode(values, roundUp(count, 64), thresholdBits, codes, kept);
    if (found !== header.count) return false;
    const padded = roundUp(found, BLOCK_VALUES);
    workspace.f32(kept, padded).fill(0, found);
    storeParts(workspace, kept, padded, header.variant, address + sections.extra, scales);
  }
  return true;
}

/**
 * Decodes the sections of a quantising codec to f32.
 *
 * @param target Room for `paddedCount` values.
 * @returns What is wrong with the sections, or null.
 */
export function decodeSections(
  workspace: CodecWorkspace,
  place: UnitPlace,
  target: number,
): string | null {
  const { header, sections, address } = place;
  const { kernels } = workspace;
  const { rows, columns, codec, bits, group } = header;
  const count = rows * columns;
  const codes = address + sections.codes;
  const scales = address + sections.scales;
  const blocks = Math.ceil(count / BLOCK_VALUES);
  if (codec === "q8") kernels.q8Decode(codes, scales, target, blocks);
  else if (codec === "q4") kernels.q4Decode(codes, scales, target, blocks);
  else if (codec === "chan") {
    const scratch = workspace.take((8 + Math.min(group, roundUp(rows, 8))) * columns);
    eachPage(header, (page, first, pageRows) => {
      const from = codes + (first * columns * bits) / 8;
      const ranges = scales + page * columns * 4;
      const to = target + first * columns * 4;
      kernels.chanDecode(from, ranges, pageRows, columns, bits, to, columns * 4, scratch);
    });
  } else if (codec === "lm") {
    const length = 2 ** group;
    const scratch = workspace.take(192 + Math.max(LM_UNIT_VALUES, length));
    const vectors = lmVectorCount(header);
    kernels.lmDecode(codes, scales, vectors, length, bits, target, 1, scratch);
  } else if (codec === "sparse") {
    const padded = roundUp(count, 64);
    if (kernels.sparseCount(codes, padded / 8) !== header.count) return "bitmap";
    const parts = roundUp(header.count, BLOCK_VALUES);
    const kept = workspace.take((parts + BLOCK_VALUES) * 4);
    loadParts(workspace, address + sections.extra, scales, parts, header.variant, kept);
    kernels.sparseDecode(codes, kept, target, padded);
  } else if (codec === "lowrank") decodeFactors(workspace, place, target);
  else decodeComponents(workspace, place, target);
  return null;
}
