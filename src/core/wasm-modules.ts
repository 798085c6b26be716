// Compiles and instantiates the two modules, core.wasm and kernels.wasm. Layer: core.
// The only file that uses the AssemblyScript loader.
import { instantiate } from "@assemblyscript/loader";
import { LANE_FIRST } from "../../assembly/abi.js";
import { MisuseError } from "../errors.js";
import type { KernelExports } from "./kernel-exports.js";
import { CORE_WASM_BASE64 } from "./wasm-bytes.generated.js";

/**
 * Where a module's bytes come from, for pages whose security policy forbids inline bytes, or that
 * would rather stream them. Default: the bytes that the package carries.
 */
export type WasmSource = WebAssembly.Module | BufferSource | Response | URL;

/** Raw exports of core.wasm. Every u32 result arrives signed; {@link ControlPlane} repairs that. */
export interface CoreExports {
  controlHeapBase(): number;
  controlBytes(slotCapacity: number, arenaCapacity: number, regionBytes: number): number;
  controlInit(
    base: number,
    totalBytes: number,
    slotCapacity: number,
    arenaCapacity: number,
  ): number;
  controlAttach(base: number): number;
  arenaOpen(base: number, pool: number, capacityGranules: number, granuleShift: number): number;
  arenaClose(base: number, arena: number): number;
  arenaAllocate(base: number, arena: number, requestedBytes: number, alignment: number): number;
  arenaAllocateWhole(base: number, arena: number, requestedBytes: number): number;
  slotFree(base: number, slot: number, generation: number): number;
  slotFreeBatch(base: number, address: number, count: number): number;
  slotResize(
    base: number,
    slot: number,
    generation: number,
    requestedBytes: number,
    alignment: number,
  ): number;
  slotExchange(
    base: number,
    slot: number,
    generation: number,
    other: number,
    otherGeneration: number,
  ): number;
  slotPin(base: number, slot: number, generation: number): number;
  slotUnpin(base: number, slot: number, generation: number): number;
  slotResolve(base: number, slot: number, generation: number): number;
  slotUnits(base: number, slot: number): number;
  arenaLongestFree(base: number, arena: number): number;
  compactBegin(base: number, arena: number, needBytes: number, maySlide: boolean): number;
  compactEvacuate(base: number, arena: number, into: number): number;
  compactNext(base: number): number;
  compactCommit(base: number): number;
  compactVeto(base: number): number;
  laneReserve(base: number): number;
  laneAttach(base: number): number;
  laneRelease(base: number, lane: number): number;
  slotHandOver(base: number, slot: number, generation: number): number;
  slotAdopt(base: number, slot: number, generation: number): number;
  compactPostpone(base: number): number;
  recover(base: number): number;
  check(base: number): number;
}

const compiled = new Map<string, Promise<WebAssembly.Module>>();

function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return bytes;
}

async function compileSource(source: WasmSource): Promise<WebAssembly.Module> {
  if (source instanceof WebAssembly.Module) return source;
  if (source instanceof URL) return WebAssembly.compileStreaming(fetch(source));
  if (typeof Response === "function" && source instanceof Response) {
    return WebAssembly.compileStreaming(source);
  }
  return WebAssembly.compile(source as BufferSource);
}

async function compile(base64: string, source?: WasmSource): Promise<WebAssembly.Module> {
  if (source !== undefined) {
    return compileSource(source).catch((cause: unknown) => {
      throw new MisuseError("bad-option", "wasm: the source is not a module", { cause });
    });
  }
  let module = compiled.get(base64);
  if (module === undefined) {
    module = WebAssembly.compile(decodeBase64(base64));
    compiled.set(base64, module);
  }
  return module;
}

/** @throws {MisuseError} `bad-option` — the source is not the module that has this export. */
async function instantiateWith(
  memory: WebAssembly.Memory,
  base64: string,
  source: WasmSource | undefined,
  mark: string,
  lane = LANE_FIRST,
): Promise<unknown> {
  const module = await compile(base64, source);
  try {
    // The loader's own exports wrap every function, which costs a call each.
    const { instance } = await instantiate(module, { env: { memory }, lock: { LANE: lane } });
    if (mark in instance.exports) return instance.exports;
  } catch (cause) {
    throw new MisuseError("bad-option", "wasm: the module refuses the memory", { cause });
  }
  throw new MisuseError("bad-option", `wasm: the module has no ${mark}`);
}

/** Compiles the core once, for several instances. @throws {MisuseError} `bad-option`. */
export function compileCore(source?: WasmSource): Promise<WebAssembly.Module> {
  return compile(CORE_WASM_BASE64, source);
}

export async function instantiateCore(
  memory: WebAssembly.Memory,
  source?: WasmSource,
): Promise<CoreExports> {
  const exports = await instantiateWith(memory, CORE_WASM_BASE64, source, "controlHeapBase");
  return exports as CoreExports;
}

/** Compiles the core's shared build. Its bytes are loaded only when somebody asks for it. */
export async function compileSharedCore(source?: WasmSource): Promise<WebAssembly.Module> {
  if (source !== undefined) return compile("", source);
  const { CORE_SHARED_WASM_BASE64 } = await import("./wasm-bytes-shared.generated.js");
  return compile(CORE_SHARED_WASM_BASE64);
}

/** An instance of the shared build for one lane. */
export async function instantiateSharedCore(
  memory: WebAssembly.Memory,
  module: WebAssembly.Module,
  lane: number,
): Promise<CoreExports> {
  const exports = await instantiateWith(memory, "", module, "controlHeapBase", lane);
  return exports as CoreExports;
}

/** Uses one SIMD instruction and does nothing. */
const SIMD_PROBE = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0],
  ...[65, 0, 253, 15, 253, 98, 11],
);

/** The kernels' bytes, loaded when they are first used; without SIMD where the engine has none. */
async function kernelsBase64(): Promise<string> {
  const { KERNELS_WASM_BASE64 } = WebAssembly.validate(SIMD_PROBE)
    ? await import("./kernels-wasm-bytes.generated.js")
    : await import("./kernels-scalar-wasm-bytes.generated.js");
  return KERNELS_WASM_BASE64;
}

/** Compiles the kernels once, for several instances. @throws {MisuseError} `bad-option`. */
export async function compileKernels(source?: WasmSource): Promise<WebAssembly.Module> {
  return source === undefined ? compile(await kernelsBase64()) : compile("", source);
}

export async function instantiateKernels(
  memory: WebAssembly.Memory,
  source?: WasmSource,
): Promise<KernelExports> {
  const module = await compileKernels(source);
  const exports = await instantiateWith(memory, "", module, "kernelsHeapBase");
  return exports as KernelExports;
}
