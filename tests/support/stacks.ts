// Stacks of tiers for tests, and the parts that a test wants to look into.
import { ObjectMover } from "../../src/cache/object-mover.js";
import { Staging } from "../../src/cache/staging.js";
import { TierManager } from "../../src/cache/tier-manager.js";
import { TierStack } from "../../src/cache/tier-stack.js";
import { reuseIntervals } from "../../src/predictor/reuse-intervals.js";
import { manualClock } from "../../src/testing/index.js";
import type { ObjectHints, Tier, TierKey } from "../../src/tier/tier.js";
import { type PrivateBytes, privateBytes } from "../../src/util/private-bytes.js";

/** A stack over opaque objects: only what is read back is compared. */
export function stackOf(tiers: readonly Tier[], mayBeAbsent: readonly string[] = []) {
  const clock = manualClock();
  const failures: string[] = [];
  const stack = new TierStack({
    ...{ tiers, mayBeAbsent, clock },
    manager: new TierManager(reuseIntervals()),
    mover: new ObjectMover(new Staging(2, 4096), null),
    onFailure: (tier, error) => failures.push(`${tier}: ${error.message}`),
  });
  return { stack, clock, failures };
}

export const keyOf = (index: number): TierKey => index.toString(16).padStart(64, "0");

/** Bytes that say whose they are. */
export function objectOf(key: number, version: number, byteLength: number): PrivateBytes {
  const bytes = privateBytes(byteLength);
  for (let index = 0; index < byteLength; index++) {
    bytes[index] = key * 31 + version * 7 + index * 13;
  }
  bytes[0] = key;
  bytes[1] = version;
  return bytes;
}

/** Its version, 0 when there is no object, -1 when it is not whole. */
export async function versionAt(tier: Tier, key: number): Promise<number> {
  const reader = await tier.openRead(keyOf(key));
  if (reader === null) return 0;
  try {
    const bytes = privateBytes(reader.byteLength);
    await reader.read(0, bytes);
    const version = bytes[1] as number;
    const expected = objectOf(key, version, bytes.byteLength);
    return expected.every((byte, index) => byte === bytes[index]) ? version : -1;
  } finally {
    await reader.close();
  }
}

/** What pressure writes: a copy of a live tensor, which may be anywhere. */
export const SWAPPED: ObjectHints = {
  kind: "KV_CACHE",
  isDurable: false,
  isSaved: false,
  expiresMs: 0,
};

export async function put(
  tier: Tier,
  key: number,
  bytes: PrivateBytes,
  hints: ObjectHints = SWAPPED,
): Promise<"stored" | "no-space"> {
  const writer = await tier.begin(keyOf(key), bytes.byteLength, hints);
  if (writer === "no-space") return writer;
  try {
    if ((await writer.write(bytes)) === "no-space") return "no-space";
    return await writer.commit({ durable: hints.isDurable });
  } finally {
    await writer.abort();
  }
}
