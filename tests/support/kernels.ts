// The kernels of a build, on a memory of their own, for tests of single kernels.
import { readFileSync } from "node:fs";
import { CodecWorkspace } from "../../src/core/codec-workspace.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";

export type KernelBuild = "kernels" | "kernels.scalar";

/** Builds whose bytes must be equal. */
export const KERNEL_BUILDS: readonly KernelBuild[] = ["kernels", "kernels.scalar"];

/** A workspace over the release module of that name. */
export function workspaceOf(build: KernelBuild, byteLength = 1 << 24): Promise<CodecWorkspace> {
  const binary = readFileSync(new URL(`../../build/${build}.wasm`, import.meta.url));
  return CodecWorkspace.create(byteLength, createUnsharedMemory, binary);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** CRC-32 as zlib computes it, in hexadecimal. */
export function crc32(bytes: Iterable<number>): string {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (CRC_TABLE[(crc ^ byte) & 255] as number) ^ (crc >>> 8);
  return (~crc >>> 0).toString(16).padStart(8, "0");
}

/** 64 tokens of 128 values in [-1, 1), channel 5 raised by 16. */
export function fixture(): Float32Array {
  return Float32Array.from({ length: 8192 }, (_, index) => {
    const value = ((Math.imul(index, 0x9e3779b1) >>> 8) - 2 ** 23) / 2 ** 23;
    return index % 128 === 5 ? Math.fround(value + 16) : value;
  });
}
