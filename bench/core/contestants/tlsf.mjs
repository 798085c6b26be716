// AssemblyScript's own allocator, as its compiler would build it into a program. It grows its memory
// and traps when that fails; here the memory is at its maximum from the start.
import asc from "assemblyscript/asc";
import { touched } from "./touched.mjs";

const SOURCE = `
  export function allocate(bytes: usize): usize { return heap.alloc(bytes); }
  export function free(address: usize): void { heap.free(address); }
`;
const ARGUMENTS = ["-O3", "--converge", "--noAssert", "--runtime", "minimal", "--importMemory"];
const WASM_PAGE_BYTES = 65536;

async function compile() {
  let binary;
  let diagnostics = "";
  const { error } = await asc.main(["tlsf.ts", ...ARGUMENTS, "--outFile", "tlsf.wasm"], {
    readFile: (name) => (name === "tlsf.ts" ? SOURCE : null),
    writeFile: (name, contents) => {
      if (name === "tlsf.wasm") binary = contents;
    },
    listFiles: () => [],
    stderr: {
      write: (text) => {
        diagnostics += text;
        return true;
      },
    },
  });
  if (error) throw new Error(diagnostics, { cause: error });
  return WebAssembly.compile(binary);
}

class TlsfHeap {
  #exports;

  constructor(exports, memory) {
    this.#exports = exports;
    this.allocate = exports.allocate;
    this.free = exports.free;
    this.buffer = memory.buffer;
    this.capacityBytes = memory.buffer.byteLength;
    this.metadataBytes = 0;
  }

  tryAllocate(bytes) {
    try {
      return this.#exports.allocate(bytes) >>> 0;
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) return 0;
      throw error;
    }
  }

  offsetOf(address) {
    return address;
  }
}

let compiled;

export async function openTlsf(capacities) {
  compiled ??= compile();
  const module = await compiled;
  const heaps = [];
  for (const capacity of capacities) {
    const pages = Math.floor(capacity / WASM_PAGE_BYTES);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    touched(memory.buffer);
    const imports = {
      memory,
      abort: () => {
        throw new Error("tlsf aborted");
      },
    };
    const { exports } = await WebAssembly.instantiate(module, { env: imports });
    heaps.push(new TlsfHeap(exports, memory));
  }
  return heaps;
}

export const tlsf = {
  id: "tlsf",
  title: "AssemblyScript tlsf",
  open: openTlsf,
  source: {
    prepare: "const { allocate, free } = heap; const handles = new Int32Array(placeCount);",
    allocate: "handles[place] = allocate(bytes);",
    free: "free(handles[place]);",
  },
};
