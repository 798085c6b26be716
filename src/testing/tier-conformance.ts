// Conformance suite of the seam `tier/tier.ts`.
import type { Tier, TierKey } from "../tier/tier.js";
import { lentBytes, type PrivateBytes, privateBytes, privatePart } from "../util/private-bytes.js";
import {
  assert,
  assertBytes,
  assertEqual,
  assertRejects,
  type ConformanceCase,
} from "./conformance.js";

/** A tier to test, not opened yet and empty. */
export interface TierFixture {
  readonly tier: Tier;
  /**
   * From now on, whatever a deletion needs of the storage fails; or works again. Left out where
   * `lacks.failures` says why.
   */
  failDeletions?(isFailing: boolean): void | Promise<void>;
  /** Another tier over the same storage, not opened yet; called after `tier` was closed. */
  reopened(): Promise<Tier>;
  /** Removes the storage. */
  dispose(): Promise<void>;
}

/** What some tiers cannot do, each with the reason that its cases are skipped for. */
export interface TierLacks {
  /** It takes no objects. */
  readonly room?: string;
  /** Its objects do not outlive it. */
  readonly persistence?: string;
  /** Its deletions cannot fail. */
  readonly failures?: string;
  /** It has no closed state to refuse calls in. */
  readonly closing?: string;
}

const KEY_A: TierKey = "a".repeat(64);
const KEY_B: TierKey = "b".repeat(64);

function pattern(byteLength: number, seed: number): PrivateBytes {
  const bytes = privateBytes(byteLength);
  for (let index = 0; index < byteLength; index++) bytes[index] = (index * 31 + seed) & 0xff;
  return bytes;
}

async function begin(tier: Tier, key: TierKey, byteLength: number) {
  const writer = await tier.begin(key, byteLength);
  assert(writer !== "no-space", "begin refuses an object although there is room");
  return writer;
}

/** Stores an object in pieces. */
async function store(tier: Tier, key: TierKey, bytes: PrivateBytes, durable = false) {
  const writer = await begin(tier, key, bytes.byteLength);
  const pieceBytes = Math.max(1, Math.ceil(bytes.byteLength / 3));
  for (let start = 0; start < bytes.byteLength; start += pieceBytes) {
    const end = Math.min(bytes.byteLength, start + pieceBytes);
    assertEqual(await writer.write(privatePart(bytes, start, end)), "written", "write");
  }
  assertEqual(await writer.commit({ durable }), "stored", "commit");
  await writer.abort();
}

async function load(tier: Tier, key: TierKey): Promise<PrivateBytes | null> {
  const reader = await tier.openRead(key);
  if (reader === null) return null;
  try {
    const bytes = privateBytes(reader.byteLength);
    assertEqual(await reader.read(0, bytes), bytes.byteLength, "read");
    return bytes;
  } finally {
    await reader.close();
  }
}

async function assertHolds(tier: Tier, key: TierKey, expected: PrivateBytes | null, what: string) {
  const bytes = await load(tier, key);
  if (expected === null || bytes === null) assertEqual(bytes, expected, what);
  else assertBytes(bytes, expected, what);
}

async function keysOf(tier: Tier): Promise<string> {
  const keys: string[] = [];
  for await (const key of tier.list()) keys.push(key.slice(0, 1));
  return keys.sort().join("");
}

async function reopen(tier: Tier, fixture: TierFixture): Promise<Tier> {
  await tier.close();
  const again = await fixture.reopened();
  await again.open();
  return again;
}

/**
 * @param make Gives an empty tier of that capacity, on storage of its own.
 * @param lacks What this tier cannot do.
 */
export function tierConformance(
  make: (options: { readonly capacityBytes: number }) => Promise<TierFixture>,
  lacks: TierLacks = {},
): ConformanceCase[] {
  const cases: ConformanceCase[] = [];
  const add = (
    name: string,
    run: (tier: Tier, fixture: TierFixture) => Promise<void>,
    options: { readonly skip?: string | undefined; readonly capacityBytes?: number } = {},
  ) => {
    cases.push({
      name,
      skip: options.skip,
      run: async () => {
        const fixture = await make({ capacityBytes: options.capacityBytes ?? 2 ** 30 });
        try {
          await fixture.tier.open();
          await run(fixture.tier, fixture);
        } finally {
          await fixture.tier.close();
          await fixture.dispose();
        }
      },
    });
  };
  const stores = { skip: lacks.room };

  add("knows nothing of a missing key", async (tier) => {
    assertEqual(await tier.openRead(KEY_A), null, "openRead");
    assertEqual(await tier.delete(KEY_A), false, "delete");
    await tier.quarantine(KEY_A);
    assertEqual(await keysOf(tier), "", "list");
    assertEqual(tier.stats().objectCount, 0, "objectCount");
    assertEqual(tier.stats().storedBytes, 0, "storedBytes");
  });

  add(
    "reads back what was committed, in any pieces",
    async (tier) => {
      for (const byteLength of [1, 255, 65536, 65537, (1 << 20) + 3]) {
        const bytes = pattern(byteLength, byteLength);
        await store(tier, KEY_A, bytes);
        await assertHolds(tier, KEY_A, bytes, `an object of ${byteLength} bytes`);
      }
    },
    stores,
  );

  add(
    "fills linear memory and several targets at once, where it says so",
    async (tier) => {
      if (!tier.capabilities.readsInPlace) return;
      const bytes = pattern(100_000, 5);
      await store(tier, KEY_A, bytes);
      const linear = new Uint8Array(new WebAssembly.Memory({ initial: 2 }).buffer);
      const reader = await tier.openRead(KEY_A);
      assert(reader !== null, "the object is missing");
      const head = privateBytes(7);
      const middle = lentBytes(linear.subarray(64, 64 + 99_000));
      const end = privateBytes(1000);
      assertEqual(await reader.read(0, head, middle, end), 100_000, "bytes read");
      await reader.close();
      assertBytes(head, bytes.subarray(0, 7), "the first target");
      assertBytes(middle, bytes.subarray(7, 99_007), "linear memory");
      assertBytes(end.subarray(0, 993), bytes.subarray(99_007), "the last target");
      assert(linear[63] === 0 && linear[64 + 99_000] === 0, "it was written beside the target");
      assert(
        end.subarray(993).every((byte) => byte === 0),
        "it was written past the object's end",
      );
    },
    stores,
  );

  add(
    "reads parts, and fewer bytes only at the end",
    async (tier) => {
      const bytes = pattern(1000, 1);
      await store(tier, KEY_A, bytes);
      const reader = await tier.openRead(KEY_A);
      assert(reader !== null, "the object is missing");
      assertEqual(reader.byteLength, 1000, "byteLength");
      const target = pattern(100, 9);
      assertEqual(await reader.read(950, target), 50, "bytes read at the end");
      assertBytes(target.subarray(0, 50), bytes.subarray(950), "the part read");
      assertBytes(target.subarray(50), pattern(100, 9).subarray(50), "the rest of the target");
      assertEqual(await reader.read(1000, target), 0, "bytes read past the end");
      assertEqual(await reader.read(7, target), 100, "bytes read in the middle");
      await reader.close();
    },
    stores,
  );

  add(
    "leaves the source as it was",
    async (tier) => {
      const bytes = pattern(5000, 2);
      await store(tier, KEY_A, bytes);
      assertBytes(bytes, pattern(5000, 2), "the source");
    },
    stores,
  );

  add(
    "shows the old object until the commit and the new one after it",
    async (tier) => {
      await store(tier, KEY_A, pattern(3000, 1));
      const writer = await begin(tier, KEY_A, 100);
      await writer.write(pattern(100, 2));
      await assertHolds(tier, KEY_A, pattern(3000, 1), "the object before the commit");
      assertEqual(await writer.commit({ durable: true }), "stored", "commit");
      await writer.abort();
      await assertHolds(tier, KEY_A, pattern(100, 2), "the object after the commit");
      assertEqual(tier.stats().objectCount, 1, "objectCount");
      assertEqual(tier.stats().storedBytes, 100, "storedBytes");
    },
    stores,
  );

  add(
    "keeps the old object when the writer is aborted",
    async (tier) => {
      await store(tier, KEY_A, pattern(300, 1));
      const writer = await begin(tier, KEY_A, 200);
      await writer.write(pattern(100, 2));
      await writer.abort();
      await writer.abort();
      await assertHolds(tier, KEY_A, pattern(300, 1), "the object");
      assertEqual(tier.stats().storedBytes, 300, "storedBytes");
    },
    stores,
  );

  add(
    "refuses to commit an incomplete object",
    async (tier) => {
      const writer = await begin(tier, KEY_A, 200);
      await writer.write(pattern(199, 1));
      await assertRejects(() => writer.commit({ durable: false }), ["io"], "commit");
      await writer.abort();
      await assertHolds(tier, KEY_A, null, "the object");
    },
    stores,
  );

  add(
    "refuses more bytes than were announced",
    async (tier) => {
      const writer = await begin(tier, KEY_A, 100);
      const overrun = async () => {
        await writer.write(pattern(64, 1));
        await writer.write(pattern(64, 1));
        await writer.commit({ durable: false });
      };
      await assertRejects(overrun, ["io"], "an overrun");
      await writer.abort();
      await assertHolds(tier, KEY_A, null, "the object");
    },
    stores,
  );

  add(
    "writes objects of different keys at the same time",
    async (tier) => {
      const first = await begin(tier, KEY_A, 200);
      const second = await begin(tier, KEY_B, 200);
      await Promise.all([first.write(pattern(100, 1)), second.write(pattern(100, 2))]);
      await Promise.all([first.write(pattern(100, 3)), second.write(pattern(100, 4))]);
      await second.commit({ durable: false });
      await first.abort();
      await assertHolds(tier, KEY_A, null, "the aborted object");
      assertBytes(
        (await load(tier, KEY_B))?.subarray(100) ?? privateBytes(0),
        pattern(100, 4),
        "B",
      );
      assertEqual(await keysOf(tier), "b", "list");
    },
    stores,
  );

  add(
    "deletes an object once",
    async (tier) => {
      await store(tier, KEY_A, pattern(10, 1));
      await store(tier, KEY_B, pattern(10, 2));
      assertEqual(await tier.delete(KEY_A), true, "the first delete");
      assertEqual(await tier.delete(KEY_A), false, "the second delete");
      await assertHolds(tier, KEY_A, null, "the deleted object");
      await assertHolds(tier, KEY_B, pattern(10, 2), "the other object");
      assertEqual(tier.stats().storedBytes, 10, "storedBytes");
    },
    stores,
  );

  add(
    "takes a quarantined object out of the way",
    async (tier) => {
      await store(tier, KEY_A, pattern(10, 1));
      await tier.quarantine(KEY_A);
      await assertHolds(tier, KEY_A, null, "the quarantined object");
      assertEqual(await keysOf(tier), "", "list");
      assertEqual(tier.stats().quarantinedCount, 1, "quarantinedCount");
      await store(tier, KEY_A, pattern(20, 2));
      await assertHolds(tier, KEY_A, pattern(20, 2), "the object stored after it");
    },
    stores,
  );

  add(
    "counts what it did",
    async (tier) => {
      await store(tier, KEY_A, pattern(600, 1));
      await load(tier, KEY_A);
      const stats = tier.stats();
      assertEqual(stats.commitCount, 1, "commitCount");
      assertEqual(stats.bytesWritten, 600, "bytesWritten");
      assertEqual(stats.bytesRead, 600, "bytesRead");
      assertEqual(stats.openReadCount, 1, "openReadCount");
      assertEqual(stats.capacityBytes, 2 ** 30, "capacityBytes");
    },
    stores,
  );

  add(
    "refuses by a value what exceeds its capacity, and works again later",
    async (tier) => {
      await store(tier, KEY_A, pattern(640, 1));
      assertEqual(await tier.begin(KEY_B, 640), "no-space", "begin");
      const writer = await begin(tier, KEY_B, 384);
      assertEqual(await tier.begin(KEY_A, 1), "no-space", "begin beside an open writer");
      await writer.abort();
      await assertHolds(tier, KEY_A, pattern(640, 1), "the old object");
      assertEqual(tier.stats().noSpaceCount, 2, "noSpaceCount");
      await tier.delete(KEY_A);
      await store(tier, KEY_B, pattern(1024, 3));
      await assertHolds(tier, KEY_B, pattern(1024, 3), "the object that fits now");
    },
    { ...stores, capacityBytes: 1024 },
  );

  if (lacks.room !== undefined) {
    add("refuses every object by a value", async (tier) => {
      assertEqual(await tier.begin(KEY_A, 1), "no-space", "begin");
      assertEqual(tier.stats().noSpaceCount, 1, "noSpaceCount");
    });
  }

  add("may be closed more than once", async (tier) => {
    await tier.close();
    await tier.close();
  });

  add(
    "refuses calls once it is closed",
    async (tier) => {
      const writer = await begin(tier, KEY_A, 10);
      await tier.close();
      const closed = (what: string, work: () => Promise<unknown>) =>
        assertRejects(work, ["closed"], `${what} after close`);
      await closed("write", () => writer.write(pattern(10, 1)));
      await writer.abort();
      await closed("begin", () => tier.begin(KEY_A, 10));
      await closed("openRead", () => tier.openRead(KEY_A));
      await closed("delete", () => tier.delete(KEY_A));
      await closed("quarantine", () => tier.quarantine(KEY_A));
      await closed("list", () => keysOf(tier));
    },
    { skip: lacks.closing },
  );

  add(
    "finds committed objects, and nothing else, when it is opened again",
    async (tier, fixture) => {
      await store(tier, KEY_A, pattern(700, 1), true);
      await store(tier, KEY_B, pattern(10, 2));
      await tier.delete(KEY_B);
      const writer = await begin(tier, KEY_B, 10);
      await writer.write(pattern(10, 3));
      const again = await reopen(tier, fixture);
      try {
        await assertHolds(again, KEY_A, pattern(700, 1), "the committed object");
        await assertHolds(again, KEY_B, null, "the object that was not committed");
        assertEqual(await keysOf(again), "a", "list");
        assertEqual(again.stats().storedBytes, 700, "storedBytes");
      } finally {
        await again.close();
      }
    },
    { skip: lacks.room ?? lacks.persistence },
  );

  const failing = { skip: lacks.room ?? lacks.failures };
  /** Tries to delete A while that must fail. */
  const failToDelete = async (tier: Tier, fixture: TierFixture): Promise<void> => {
    assert(fixture.failDeletions !== undefined, "the fixture cannot make deletions fail");
    await fixture.failDeletions(true);
    await assertRejects(() => tier.delete(KEY_A), ["io", "timeout"], "delete");
  };

  add(
    "never finds again what it could not delete",
    async (tier, fixture) => {
      await store(tier, KEY_A, pattern(300, 1));
      await store(tier, KEY_B, pattern(10, 2));
      await failToDelete(tier, fixture);
      // It may be missing, or the question may fail.
      assertEqual(await load(tier, KEY_A).catch(() => null), null, "while its deletion fails");
      await fixture.failDeletions?.(false);
      assertEqual(await keysOf(tier), "b", "list");
      await assertHolds(tier, KEY_A, null, "the object once deletions work");
      await assertHolds(tier, KEY_B, pattern(10, 2), "the other object");
      assertEqual(tier.stats().storedBytes, 10, "storedBytes");
    },
    failing,
  );

  add(
    "keeps what is stored after a failed deletion",
    async (tier, fixture) => {
      await store(tier, KEY_A, pattern(300, 1), true);
      await failToDelete(tier, fixture);
      await fixture.failDeletions?.(false);
      await store(tier, KEY_A, pattern(200, 2), true);
      await assertHolds(tier, KEY_A, pattern(200, 2), "the object stored after it");
      assertEqual(await keysOf(tier), "a", "list");
      if (lacks.persistence !== undefined) return;
      const again = await reopen(tier, fixture);
      await assertHolds(again, KEY_A, pattern(200, 2), "the object when opened again");
      await again.close();
    },
    failing,
  );

  add(
    "does not bring back, when it is opened again, what it could not delete before",
    async (tier, fixture) => {
      await store(tier, KEY_A, pattern(300, 1), true);
      await failToDelete(tier, fixture);
      await fixture.failDeletions?.(false);
      const again = await reopen(tier, fixture);
      await assertHolds(again, KEY_A, null, "the object");
      assertEqual(await keysOf(again), "", "list");
      await again.close();
    },
    { skip: failing.skip ?? lacks.persistence },
  );

  add("says truly whether its objects outlive it", async (tier) => {
    const { isPersistent, hasDurableCommit } = tier.capabilities;
    assertEqual(isPersistent, lacks.persistence === undefined, "isPersistent");
    assert(isPersistent || !hasDurableCommit || tier.stats().capacityBytes === 0, "persistence");
  });

  return cases;
}
