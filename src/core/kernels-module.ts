// The module kernels.wasm: where its bytes come from. Layer: core.
import type { KernelExports } from "./kernel-exports.js";
import { compile, instantiateWith, type WasmSource } from "./module-instance.js";

/** Uses one SIMD instruction and does nothing. */
const SIMD_PROBE = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0],
  ...[65, 0, 253, 15, 253, 98, 11],
);

/** Whether the engine has the instructions that the faster kernels are made of. */
export function hasSimd(): boolean {
  return WebAssembly.validate(SIMD_PROBE);
}

/** The packed kernels, loaded when they are first used; without SIMD where the engine has none. */
async function kernelsGzipBase64(): Promise<string> {
  const { KERNELS_WASM_GZIP_BASE64 } = hasSimd()
    ? await import("./kernels-wasm-bytes.generated.js")
    : await import("./kernels-scalar-wasm-bytes.generated.js");
  return KERNELS_WASM_GZIP_BASE64;
}

/** Compiles the kernels once, for several instances. @throws {MisuseError} `bad-option`. */
export async function compileKernels(source?: WasmSource): Promise<WebAssembly.Module> {
  return source === undefined ? compile(await kernelsGzipBase64()) : compile("", source);
}

export async function instantiateKernels(
  memory: WebAssembly.Memory,
  source?: WasmSource,
): Promise<KernelExports> {
  const module = await compileKernels(source);
  const exports = await instantiateWith(memory, "", module, "kernelsHeapBase");
  return exports as KernelExports;
}
