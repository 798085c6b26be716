// What there is: tensors and records, and whether everything about them adds up.
import type { Clock } from "../clock.js";
import type { ControlPlane } from "../core/control-plane.js";
import { invariantName } from "../core/invariants.js";
import { CONTENT_PREFIX } from "../limits.js";
import type { Budget } from "../memory/budget.js";
import type { Dtype, Layout, TensorKind } from "../types.js";
import { hasExpired } from "./cold-copies.js";
import type { Directory } from "./directory.js";
import type { Guards } from "./guards.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { TensorRecord } from "./tensor-record.js";
import type { TransferEngine } from "./transfer-engine.js";

/** A tensor of this memory, or a record of its namespace in the tier. */
export interface ListedTensor {
  readonly id: string;
  readonly kind: TensorKind;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly layout: Layout;
  readonly byteLength: number;
  readonly isResident: boolean;
  /** A saved record of it outlives the process. */
  readonly isSaved: boolean;
}

export interface VerifyResult {
  readonly isSound: boolean;
  /** The first invariant of the core that is broken, such as `"INV-TREE-2"`. */
  readonly brokenInvariant: string | null;
  readonly problems: readonly string[];
  /** How long the walk took. */
  readonly durationMs: number;
}

/** Tensors first, then records that no tensor of this memory stands for. */
export async function* listTensors(
  directory: Directory,
  engine: TransferEngine,
  prefix: string,
  nowMs: number,
): AsyncGenerator<ListedTensor> {
  const seen = new Set<string>();
  for (const record of [...directory]) {
    if (record.id?.startsWith(prefix) !== true || hasExpired(record, nowMs)) continue;
    if (record.referenceCount > 0) continue;
    const { id, kind, dtype, shape, layout, byteLength } = record;
    const { isResident } = record.shared ?? record;
    const isSaved = record.hasSavedRecord;
    seen.add(id);
    yield { id, kind, dtype, shape, layout, byteLength, isResident, isSaved };
  }
  for await (const key of engine.tier.list()) {
    const peeked = await engine.peekKey(key);
    if (peeked.verdict !== "found" || !engine.isOurs(peeked.header)) continue;
    const { id, kind, dtype, shape, layout, rawBytes, isSaved, expiresMs } = peeked.header;
    if (expiresMs > 0 && expiresMs <= nowMs) continue;
    if (!id.startsWith(prefix) || id.startsWith(CONTENT_PREFIX) || seen.has(id)) continue;
    // Where there are both, the saved record is what `acquire` finds.
    if (!isSaved && (await engine.peek({ id, isSaved: true })).verdict === "found") continue;
    seen.add(id);
    yield { id, kind, dtype, shape, layout, byteLength: rawBytes, isResident: false, isSaved };
  }
}

/** Walks every invariant of the core, of the residency records and of the budget. */
export function verifyMemory(parts: {
  readonly core: ControlPlane;
  readonly budget: Budget;
  readonly directory: Directory;
  readonly swapper: MemorySwapper;
  /** Blocks that belong to no tensor: of reservations, of fixed shapes, of plans. */
  readonly heldCount: number;
  /** Only in debug mode. */
  readonly guards: Guards | null;
  readonly clock: Clock;
}): VerifyResult {
  const { core, budget, directory, swapper, heldCount, guards, clock } = parts;
  const startMs = clock.monotonicMs();
  const code = core.check();
  const problems: string[] = [];
  let hotBytes = 0;
  let hotCount = 0;
  const references = new Map<TensorRecord, number>();
  for (const record of directory) {
    const name = record.id ?? `anonymous tensor ${record.index}`;
    const { shared } = record;
    if (shared !== null) references.set(shared, (references.get(shared) ?? 0) + 1);
    if (!record.isResident) {
      if (shared !== null) continue;
      const isSomewhere = record.cold !== null || record.device !== null || record.isLost;
      if (!isSomewhere) problems.push(`${name} is nowhere`);
      continue;
    }
    hotBytes += record.byteLength;
    hotCount += 1;
    const { slot, generation } = record;
    if (!core.isLive(slot) || core.generationOf(slot) !== generation) {
      problems.push(`${name} has a stale block`);
    }
  }
  const contents = [...directory].filter(({ referenceCount }) => referenceCount > 0);
  const isCounted = (content: TensorRecord) => references.get(content) === content.referenceCount;
  if (contents.length !== references.size || !contents.every(isCounted)) {
    problems.push("references do not add up");
  }
  const transfers = swapper.stats();
  // A transfer may hold a block that is not a tensor's yet, or no longer.
  const liveCount = core.lanes === null ? core.liveCount : [...core.liveSlots()].length;
  if (swapper.transfers.isIdle && liveCount !== hotCount + heldCount) {
    problems.push(`${liveCount} blocks are live, ${hotCount} tensors are resident`);
  }
  if (transfers.hotBytes !== hotBytes) problems.push("resident bytes do not add up");
  if (transfers.hotCount !== hotCount) problems.push("resident tensors do not add up");
  const { usedBytes, limitBytes, usedBytesPeak, byCategory } = budget.stats();
  const sum = Object.values(byCategory).reduce((total, bytes) => total + bytes, 0);
  if (sum !== usedBytes) problems.push("the budget does not add up");
  if (usedBytesPeak > limitBytes) problems.push("the budget was exceeded");
  if (guards !== null) problems.push(...guards.problems(directory));
  const brokenInvariant = code === 0 ? null : invariantName(code);
  const durationMs = clock.monotonicMs() - startMs;
  return { isSound: code === 0 && problems.length === 0, brokenInvariant, problems, durationMs };
}
