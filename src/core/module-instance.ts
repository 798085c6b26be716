// Compiles and instantiates a module, whatever it is. Layer: core.
// The only file that uses the AssemblyScript loader.
import { instantiate } from "@assemblyscript/loader";
import { LANE_FIRST } from "../../assembly/abi.js";
import { MisuseError } from "../errors.js";

/**
 * Where a module's bytes come from, for pages whose security policy forbids inline bytes, or that
 * would rather stream them. Default: the bytes that the package carries.
 */
export type WasmSource = WebAssembly.Module | BufferSource | Response | URL;

const compiled = new Map<string, Promise<WebAssembly.Module>>();

/** Packed bytes take less in a bundle, before and after what a server does to it. */
function unpack(gzipBase64: string): Promise<ArrayBuffer> {
  const packed = Uint8Array.from(atob(gzipBase64), (unit) => unit.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(unpacked).arrayBuffer();
}

async function compileSource(source: WasmSource): Promise<WebAssembly.Module> {
  if (source instanceof WebAssembly.Module) return source;
  if (source instanceof URL) return WebAssembly.compileStreaming(fetch(source));
  if (typeof Response === "function" && source instanceof Response) {
    return WebAssembly.compileStreaming(source);
  }
  return WebAssembly.compile(source as BufferSource);
}

/**
 * Compiles once, for several instances.
 *
 * @param gzipBase64 The module, packed, unless there is another source.
 * @throws {MisuseError} `bad-option`.
 */
export async function compile(
  gzipBase64: string,
  source?: WasmSource,
): Promise<WebAssembly.Module> {
  if (source !== undefined) {
    return compileSource(source).catch((cause: unknown) => {
      throw new MisuseError("bad-option", "wasm: the source is not a module", { cause });
    });
  }
  let module = compiled.get(gzipBase64);
  if (module === undefined) {
    module = unpack(gzipBase64).then((bytes) => WebAssembly.compile(bytes));
    compiled.set(gzipBase64, module);
  }
  return module;
}

/** @throws {MisuseError} `bad-option` — the source is not the module that has this export. */
export async function instantiateWith(
  memory: WebAssembly.Memory,
  gzipBase64: string,
  source: WasmSource | undefined,
  mark: string,
  lane = LANE_FIRST,
): Promise<unknown> {
  const module = await compile(gzipBase64, source);
  try {
    // The loader's own exports wrap every function, which costs a call each.
    const { instance } = await instantiate(module, { env: { memory }, lock: { LANE: lane } });
    if (mark in instance.exports) return instance.exports;
  } catch (cause) {
    throw new MisuseError("bad-option", "wasm: the module refuses the memory", { cause });
  }
  throw new MisuseError("bad-option", `wasm: the module has no ${mark}`);
}
