// The module core.wasm: its exports, and where its bytes come from. Layer: core.
import { compile, instantiateWith, type WasmSource } from "./module-instance.js";
import { CORE_WASM_GZIP_BASE64 } from "./wasm-bytes.generated.js";

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

/** Compiles the core once, for several instances. @throws {MisuseError} `bad-option`. */
export function compileCore(source?: WasmSource): Promise<WebAssembly.Module> {
  return compile(CORE_WASM_GZIP_BASE64, source);
}

export async function instantiateCore(
  memory: WebAssembly.Memory,
  source?: WasmSource,
): Promise<CoreExports> {
  const exports = await instantiateWith(memory, CORE_WASM_GZIP_BASE64, source, "controlHeapBase");
  return exports as CoreExports;
}

/** Compiles the core's shared build. Its bytes are loaded only when somebody asks for it. */
export async function compileSharedCore(source?: WasmSource): Promise<WebAssembly.Module> {
  if (source !== undefined) return compile("", source);
  const { CORE_SHARED_WASM_GZIP_BASE64 } = await import("./wasm-bytes-shared.generated.js");
  return compile(CORE_SHARED_WASM_GZIP_BASE64);
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
