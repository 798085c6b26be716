// A store of one record, and what a memory makes of it.
import { expect } from "vitest";
import type { RecordHeader } from "../../src/record/record.js";
import { encodeHeader } from "../../src/record/record.js";
import { memoryFileSystem } from "../../src/testing/index.js";
import { FsTier } from "../../src/tier/fs.js";
import type { TierReader } from "../../src/tier/tier.js";
import { privateBytes } from "../../src/util/private-bytes.js";
import { closeMemory, openOn } from "../support/oracle.js";

export const CONTENT = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);

/** The bytes of a record of {@link CONTENT} under this id, and the path of a file with nothing else. */
export async function storedRecord(id: string): Promise<{ path: string; bytes: Uint8Array }> {
  const files = memoryFileSystem();
  const memory = await openOn(files);
  const tensor = memory.allocate({ kind: "KV_CACHE", shape: [2], dtype: "f32", id });
  {
    using pin = tensor.pin();
    pin.bytes.set(CONTENT);
  }
  await memory.save(id);
  await closeMemory(memory);
  const tier = new FsTier({ directory: "/store", fileSystem: files });
  await tier.open();
  for await (const key of tier.list()) {
    const reader = (await tier.openRead(key)) as TierReader;
    const bytes = privateBytes(reader.byteLength);
    await reader.read(0, bytes);
    await reader.close();
    await tier.close();
    return { path: `/store/${key}.tensor`, bytes };
  }
  throw new Error("nothing was stored");
}

export type Verdict = "intact" | "missing" | "wrong" | "corruption" | "incompatible" | "io";

/** The files in which objects lie. */
export const OBJECT_FILE = /\.(tensor|segment)$/;

/** What `acquire` says of a record file with these bytes. */
export async function verdictOf(id: string, path: string, bytes: Uint8Array): Promise<Verdict> {
  const files = memoryFileSystem();
  files.plant(path, bytes);
  const memory = await openOn(files);
  try {
    using lease = await memory.acquire(id, { access: "read" });
    if (lease === null) return "missing";
    return lease.bytes.every((byte, index) => byte === CONTENT[index]) ? "intact" : "wrong";
  } catch (error) {
    const { code } = error as { code: Verdict };
    const names = [...files.files().keys()];
    // Damage is put aside, never destroyed; what another version wrote stays where it is.
    if (code === "incompatible") expect(names).toEqual([path]);
    else expect(names).toEqual([expect.stringMatching(/\.damaged$/)]);
    return code;
  } finally {
    await closeMemory(memory);
  }
}

export const HEADER: RecordHeader = {
  tenant: "me",
  fingerprint: "model@1",
  id: "chat/42/0.key",
  kind: "KV_CACHE",
  dtype: "f16",
  shape: [1, 8, 128, 64],
  layout: "nchw",
  codecId: 0,
  isDurable: false,
  isSaved: true,
  generation: 1_700_000_000_000,
  rawBytes: 131_072,
  storedBytes: 131_072,
  expiresMs: 0,
};

/** An encoded header, changed. */
export function changedHeader(change: (view: DataView) => void): Uint8Array {
  const bytes = encodeHeader(HEADER);
  change(new DataView(bytes.buffer));
  return bytes;
}
