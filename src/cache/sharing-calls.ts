// The two calls that make shared tensors: checked, hashed, and given room before anything changes.
import { MisuseError } from "../errors.js";
import { checkId } from "../memory/checks.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { Pin } from "../memory/pin.js";
import { Tensor } from "../memory/tensor.js";
import { describe, type TensorKind } from "../types.js";
import type { Directory } from "./directory.js";
import type { Reclaimer } from "./reclaimer.js";
import {
  checkInternOptions,
  contentName,
  type InternOptions,
  type SharedTensors,
} from "./shared-tensors.js";
import type { TensorAllocator } from "./tensor-allocator.js";
import type { TensorRecord } from "./tensor-record.js";

export interface SharingParts {
  readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly directory: Directory;
  readonly reclaimer: Reclaimer;
  readonly allocator: TensorAllocator;
  readonly sharing: SharedTensors;
}

/** `TensorMemory.intern`. */
export async function internTensor(
  { allocator, sharing, reclaimer, pools }: SharingParts,
  options: InternOptions,
): Promise<Tensor> {
  const { checked, id, source, signal } = checkInternOptions(options);
  const check = () => {
    allocator.checkOpen();
    sharing.checkUnused(id);
  };
  check();
  const name = await contentName(checked, source);
  check();
  if (!sharing.has(name)) {
    const { byteLength: bytes, alignment } = checked;
    const request = { bytes, alignment, count: 1 };
    await reclaimer.reserve(pools.get(checked.kind) as MemoryPool, request, signal);
    check();
  }
  return new Tensor(sharing.intern(checked, name, source), allocator);
}

/** `TensorMemory.tie`. @param lease Of the other tensor, for reading. */
export async function tieTensors(
  { allocator, sharing, directory }: SharingParts,
  id: string,
  otherId: string,
  lease: () => Promise<Pin | null>,
): Promise<Tensor> {
  const check = () => {
    allocator.checkOpen();
    sharing.checkUnused(checkId(id));
  };
  check();
  checkId(otherId);
  for (;;) {
    const pin = await lease();
    if (pin === null) throw new MisuseError("unknown-id", `no tensor ${describe(otherId)}`);
    const other = directory.named(otherId) as TensorRecord;
    const { version } = other;
    let name = "";
    try {
      if (other.isDisposable) throw new MisuseError("unsupported", "a disposable tensor");
      if (other.shared === null) name = await contentName(other, pin.bytes);
    } finally {
      pin[Symbol.dispose]();
    }
    check();
    if (other.shared === null) {
      if (other.version !== version || other.writePinCount > 0) {
        throw new MisuseError("pinned", "the tensor was written while it was tied");
      }
      await other.transfer?.settled;
      check();
      if (other.isFreed || !other.isResident || other.version !== version) continue;
      if (other.transfer !== null) continue;
      sharing.share(other, name);
    }
    return new Tensor(sharing.tie(id, other), allocator);
  }
}

/** Makes room for a copy of a content, which `held` keeps from leaving until `use` is done. */
export async function withRoomBeside<T>(
  reclaimer: Reclaimer,
  { pool, byteLength: bytes, alignment }: TensorRecord,
  { held, signal }: { readonly held: Pin | null; readonly signal: AbortSignal | undefined },
  use: () => Promise<T>,
): Promise<T> {
  try {
    await reclaimer.reserve(pool, { bytes, alignment, count: 1 }, signal);
    return await use();
  } finally {
    held?.[Symbol.dispose]();
  }
}
