// Type-checked in an empty project against the packed package's declarations.
import { createTensorMemory, type MemoryStats, type Tensor } from "tierheap";
import { openOrtDecoder } from "tierheap/adapters/ort";
import { byteTargets } from "tierheap/codecs";
import { openKvCaches } from "tierheap/kv";
import { lruPolicy } from "tierheap/policies";

export async function check(): Promise<MemoryStats> {
  const memory = await createTensorMemory({
    budgets: { ram: "64MiB" },
    codecs: { targets: byteTargets({ KV_CACHE: "16MiB" }) },
    seams: { evictionPolicy: lruPolicy() },
  });
  const tensor: Tensor<"f32"> = memory.allocate({ kind: "KV_CACHE", shape: [2, 3], dtype: "f32" });
  const first: number | undefined = tensor.pin().view[0];
  // @ts-expect-error — there is no such kind.
  memory.tryAllocate({ kind: "WEIGHTS", byteLength: first ?? 1 });
  return memory.stats();
}

export const parts = [openOrtDecoder, openKvCaches];
