// A WebGPU adapter in Node, by the package `webgpu`, where the machine has one.
import { existsSync } from "node:fs";

// By a variable, so that its types, which clash with the platform's, are not read.
const PACKAGE = "webgpu";
/** What Chromium brings: a loader and an adapter in software. */
const SOFTWARE = {
  loader: "/usr/lib/chromium/libvulkan.so.1",
  driver: "/usr/lib/chromium/vk_swiftshader_icd.json",
};
const RTLD_LAZY = 1;
const RTLD_NODELETE = 0x1000;

interface Dawn {
  create(flags: readonly string[]): GPU;
  readonly globals: object;
}

/** Lets the process have an adapter in software where it has no other one. */
function offerSoftware(): void {
  if (!existsSync(SOFTWARE.driver)) return;
  process.env["VK_ICD_FILENAMES"] ??= SOFTWARE.driver;
  try {
    // It is no module of Node's, which is said by an error; but from now on the library is loaded.
    process.dlopen({ exports: {} }, SOFTWARE.loader, RTLD_LAZY | RTLD_NODELETE);
  } catch {
    // The system's own loader is used, if there is one.
  }
}

/** @returns null, with why, where there is none. */
export async function openNodeGpu(): Promise<{
  readonly gpu: GPU | null;
  readonly reason: string;
}> {
  let dawn: Dawn;
  try {
    dawn = (await import(PACKAGE)) as Dawn;
  } catch (error) {
    return { gpu: null, reason: `the package webgpu does not load: ${(error as Error).message}` };
  }
  Object.assign(globalThis, dawn.globals);
  const first = dawn.create([]);
  if ((await first.requestAdapter()) !== null) return { gpu: first, reason: "" };
  offerSoftware();
  const second = dawn.create([]);
  if ((await second.requestAdapter()) !== null) return { gpu: second, reason: "" };
  return { gpu: null, reason: "this machine has no WebGPU adapter" };
}
