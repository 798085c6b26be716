// `tierheap verify`: reads every record that counts and says which are damaged.
import { Hasher } from "../core/hash-stream.js";
import { createUnsharedMemory } from "../core/linear-memory.js";
import { deletionPageIndex } from "../record/deletion-page.js";
import { formatBytes } from "../stats/format.js";
import type { TierKey } from "../tier/tier.js";
import { type Command, type CommandIo, type CommandOptions, EXIT_DAMAGED } from "./command.js";
import { countOf, printable } from "./output.js";
import { ProgressBar } from "./progress-bar.js";
import {
  type FrameGaps,
  forEachKey,
  frameGaps,
  READ_COUNT,
  type StoreView,
  verifyPage,
  verifyRecord,
  viewStore,
} from "./store-view.js";

interface Damage {
  readonly key: TierKey;
  /** Of the tensor, where the header can be read. */
  readonly id: string | null;
  readonly reason: string;
}

interface Verdict extends FrameGaps {
  readonly directory: string;
  readonly recordCount: number;
  readonly intactCount: number;
  readonly verifiedBytes: number;
  readonly damagedCount: number;
  /** The first ones. */
  readonly damaged: readonly Damage[];
  readonly incompatibleCount: number;
  /** Files with a segment's name that are no segment of the store. */
  readonly foreign: readonly string[];
  readonly isSound: boolean;
}

const DAMAGE_COUNT_MAX = 1000;
/** Lines about damage. */
const LINE_COUNT_MAX = 20;

async function verifyStore(
  directory: string,
  view: StoreView,
  progress: ProgressBar,
): Promise<Verdict> {
  const hasher = await Hasher.create(READ_COUNT, createUnsharedMemory);
  const counts = { recordCount: 0, intactCount: 0, verifiedBytes: 0, damagedCount: 0 };
  let incompatibleCount = 0;
  const damaged: Damage[] = [];
  const total = view.index.objectCount;
  const find = (key: TierKey, id: string | null, reason: string) => {
    counts.damagedCount += 1;
    if (damaged.length < DAMAGE_COUNT_MAX) damaged.push({ key, id, reason });
  };
  const check = async (key: TierKey): Promise<void> => {
    const entry = view.index.find(key);
    const object = await view.open(key);
    if (entry === null || object === null) return find(key, null, "the file is gone or not ours");
    try {
      const isPage = deletionPageIndex(key) !== null;
      const decoded = isPage ? await verifyPage(object) : await verifyRecord(key, object, hasher);
      if (decoded.verdict === "incompatible") incompatibleCount += 1;
      else if (decoded.verdict === "damaged") find(key, null, decoded.reason);
      else if (!(await view.isFrameWhole(entry))) {
        const id = "header" in decoded ? decoded.header.id : null;
        find(key, id, "the header of its frame is damaged");
      } else {
        counts.intactCount += 1;
        counts.verifiedBytes += object.byteLength;
      }
    } finally {
      await object.close();
    }
  };
  await forEachKey(view.index.keys(), READ_COUNT, async (key) => {
    await check(key).catch((error: { code?: unknown; message: string }) => {
      if (typeof error.code !== "string") throw error;
      find(key, null, error.message);
    });
    counts.recordCount += 1;
    progress.show(counts.recordCount / total, countOf(counts.recordCount, "record"));
  });
  progress.end();
  const gaps = frameGaps(view);
  const foreign = view.foreign.map(({ name }) => name);
  const isSound = counts.damagedCount + foreign.length + gaps.innerBytes === 0;
  return { directory, ...counts, damaged, incompatibleCount, foreign, ...gaps, isSound };
}

function describeVerdict(verdict: Verdict): string {
  const { recordCount, intactCount, verifiedBytes, damagedCount, incompatibleCount } = verdict;
  const lines = [
    `${printable(verdict.directory, 200)}: ${intactCount} of ${countOf(recordCount, "record")} intact, ` +
      `${formatBytes(verifiedBytes)} verified`,
  ];
  for (const { key, id, reason } of verdict.damaged.slice(0, LINE_COUNT_MAX)) {
    const name = id === null ? "" : ` (${printable(id)})`;
    lines.push(`damaged: ${key.slice(0, 16)}…${name}: ${printable(reason, 200)}`);
  }
  if (damagedCount > LINE_COUNT_MAX) lines.push(`and ${damagedCount - LINE_COUNT_MAX} more`);
  for (const name of verdict.foreign.slice(0, LINE_COUNT_MAX)) {
    lines.push(`no segment of this store: ${name}`);
  }
  if (verdict.innerBytes > 0) {
    lines.push(`${verdict.innerBytes} bytes between frames: damage, or what a power cut took`);
  }
  if (verdict.lastBytes > 0) {
    lines.push(`${verdict.lastBytes} bytes that a process was writing when it ended; no damage`);
  }
  if (incompatibleCount > 0) {
    lines.push(`${countOf(incompatibleCount, "record")} of another version; not judged`);
  }
  return `${lines.join("\n")}\n`;
}

async function verify(directory: string, options: CommandOptions, io: CommandIo): Promise<number> {
  const progress = new ProgressBar(io.err);
  const verdict = await viewStore(directory, (view) => verifyStore(directory, view, progress));
  const isJson = options["json"] === true;
  io.out.write(isJson ? `${JSON.stringify(verdict, null, 2)}\n` : describeVerdict(verdict));
  return verdict.isSound ? 0 : EXIT_DAMAGED;
}

export const VERIFY: Command = {
  synopsis: "verify DIR",
  summary: "Reads every record and compares header and checksum.",
  help: `  --json   print JSON

Changes nothing. Exit code 1 when damage is found. Records that do not count any more are not read,
nor those of another version of the format. A directory that a living process holds is refused.
`,
  options: { json: { type: "boolean" } },
  run: verify,
};
