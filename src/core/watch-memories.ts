// How much linear memory there is on this thread, whoever made it. Replaces functions of the platform: only for
// threads that belong to one runtime.

/**
 * Watches every WebAssembly memory that is made from now on, or exported by an instance.
 *
 * @returns A function that tells their bytes together.
 */
export function watchMemories(): () => number {
  const memories = new Set<WebAssembly.Memory>();
  const { Memory, Instance, instantiate, instantiateStreaming } = WebAssembly;
  WebAssembly.Memory = class extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      super(descriptor);
      memories.add(this);
    }
  };
  const note = <T>(made: T): T => {
    const instance = made instanceof Instance ? made : (made as { instance?: unknown }).instance;
    if (!(instance instanceof Instance)) return made;
    for (const each of Object.values(instance.exports)) {
      if (each instanceof Memory) memories.add(each);
    }
    return made;
  };
  WebAssembly.instantiate = ((...given: Parameters<typeof instantiate>) =>
    instantiate(...given).then(note)) as typeof instantiate;
  WebAssembly.instantiateStreaming = (...given) => instantiateStreaming(...given).then(note);
  return () => {
    let byteLength = 0;
    for (const { buffer } of memories) byteLength += buffer.byteLength;
    return byteLength;
  };
}
