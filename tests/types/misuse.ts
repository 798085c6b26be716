// Compiled, never run: what the types must refuse. An expectation that is not met is an error.

import type { LinearMemory } from "../../src/core/linear-memory.js";
import { BuddyAllocator, createTensorMemory, type TensorOptions } from "../../src/node.js";
import type { TierReader, TierWriter } from "../../src/tier/tier.js";
import { privateBytes, privateCopy, privatePart } from "../../src/util/private-bytes.js";

declare const writer: TierWriter;
declare const reader: TierReader;
declare const linear: LinearMemory;

/** A tier takes and gives private bytes only. */
export async function tiers(): Promise<void> {
  await writer.write(privateBytes(4));
  await writer.write(privateCopy(linear.bytes(0, 4)));
  await reader.read(0, privatePart(privateBytes(8), 0, 4));
  // @ts-expect-error A view of linear memory is not private.
  await writer.write(linear.bytes(0, 4));
  // @ts-expect-error Nor is any other array.
  await writer.write(new Uint8Array(4));
  // @ts-expect-error Nor is shared memory.
  await writer.write(new Uint8Array(new SharedArrayBuffer(4)));
  // @ts-expect-error Linear memory is no target either.
  await reader.read(0, linear.bytes(0, 4));
}

export async function memories(): Promise<void> {
  const memory = await createTensorMemory({ budgets: { ram: "64MiB", ssd: 1 << 30 } });
  const tensor = memory.allocate({ kind: "KV_CACHE", shape: [1, 2], dtype: "f16", id: "a" });
  using pin = tensor.pin({ access: "read" });
  const half: Uint16Array = pin.view;
  // @ts-expect-error Elements of f16 are seen as 16 bits.
  const single: Float32Array = pin.view;
  const bytes: Uint8Array = memory.allocate({ kind: "KV_CACHE", byteLength: 4 }).pin().view;
  using lease = await memory.acquire<"f32">("b");
  const floats: Float32Array | undefined = lease?.view;
  // @ts-expect-error It may be null.
  const never = lease.view;
  // @ts-expect-error Not a dtype.
  memory.allocate({ kind: "KV_CACHE", shape: [1], dtype: "f128" });
  // @ts-expect-error Not a kind.
  memory.allocate({ kind: "KV", byteLength: 4 });
  // @ts-expect-error A shape needs a dtype.
  memory.allocate({ kind: "KV_CACHE", shape: [1] });
  // @ts-expect-error Either a shape or a number of bytes.
  memory.allocate({ kind: "KV_CACHE", shape: [1], dtype: "u8", byteLength: 1 });
  // @ts-expect-error Neither.
  const none: TensorOptions = { kind: "KV_CACHE" };
  // @ts-expect-error Not an access.
  tensor.pin({ access: "rw" });
  // @ts-expect-error Not a mode.
  await memory.save("a", { mode: "durabel" });
  // @ts-expect-error Not an option.
  await createTensorMemory({ ram: "1GiB" });
  // @ts-expect-error A view cannot be put in place of another.
  pin.view = half;
  // @ts-expect-error Nor can a shape be changed.
  tensor.shape[0] = 2;
  void [single, bytes, floats, none, never];
}

export async function allocators(): Promise<void> {
  const buddy = await BuddyAllocator.create({ totalBytes: 1 << 20 });
  const handle: number = buddy.tryAllocate(64);
  // @ts-expect-error An object is no handle.
  buddy.free({ handle });
  // @ts-expect-error Not made by hand.
  new BuddyAllocator();
}
