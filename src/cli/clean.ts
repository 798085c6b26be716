// `tierheap clean`: gives back what a store does not need, and says what.
import { TierError } from "../errors.js";
import { formatBytes } from "../stats/format.js";
import { nodeFileSystem } from "../tier/file-system-node.js";
import { FsTier } from "../tier/fs.js";
import { frameBytesOf } from "../tier/segment-format.js";
import type { TierKey } from "../tier/tier.js";
import type { Command, CommandIo, CommandOptions } from "./command.js";
import { CommandError, EXIT_REFUSED } from "./command.js";
import { countOf, printable } from "./output.js";
import { forEachKey, READ_COUNT, readHeader, type StoreView, viewStore } from "./store-view.js";

/** Deletions that are under way at once, so that they share their syncs. */
const DELETE_COUNT = 32;

/** What there is to do. */
interface Plan {
  readonly swapped: readonly TierKey[];
  readonly swappedBytes: number;
  readonly temporaryCount: number;
  /** Dead frames, dead files and temporary files. */
  readonly deadBytes: number;
  readonly quarantined: readonly string[];
  readonly quarantinedBytes: number;
  /** Length of all files of the store, quarantined and temporary ones too. */
  readonly bytesBefore: number;
}

async function planOf(view: StoreView, keepsSwapped: boolean): Promise<Plan> {
  const { index, replaced, temporary, damaged } = view;
  const swapped: TierKey[] = [];
  let swappedBytes = 0;
  await forEachKey(keepsSwapped ? [] : index.keys(), READ_COUNT, async (key) => {
    const entry = index.find(key);
    const object = await view.open(key);
    if (entry === null || object === null) return;
    try {
      const decoded = await readHeader(object);
      // What cannot be read may be anybody's.
      if (decoded.verdict !== "valid" || decoded.header.isSaved) return;
      swapped.push(key);
      const { payloadBytes } = entry;
      swappedBytes += entry.segment === null ? payloadBytes : frameBytesOf(payloadBytes);
    } finally {
      await object.close();
    }
  });
  const bytesOf = (files: readonly { readonly byteLength: number }[]) =>
    files.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const replacedBytes = replaced.reduce((sum, { payloadBytes }) => sum + payloadBytes, 0);
  return {
    swapped,
    swappedBytes,
    temporaryCount: temporary.length,
    deadBytes: index.deadBytes + replacedBytes + bytesOf(temporary),
    quarantined: damaged.map(({ name }) => name),
    quarantinedBytes: bytesOf(damaged),
    bytesBefore: index.physicalBytes + bytesOf(temporary) + bytesOf(damaged),
  };
}

/** @returns Bytes of the store's files afterwards, without quarantined ones. */
async function carryOut(directory: string, plan: Plan, removesQuarantined: boolean) {
  const files = nodeFileSystem;
  const tier = new FsTier({ directory, fileSystem: files });
  await tier.open();
  try {
    await forEachKey(plan.swapped, DELETE_COUNT, async (key) => {
      await tier.delete(key);
    });
    await tier.clean();
    if (removesQuarantined) {
      for (const name of plan.quarantined) await files.remove(files.join(directory, name));
    }
  } finally {
    await tier.close();
  }
  return tier.stats().physicalBytes;
}

async function clean(directory: string, options: CommandOptions, io: CommandIo): Promise<number> {
  const isDry = options["dry-run"] === true;
  const removesQuarantined = options["quarantine"] === true;
  const keepsSwapped = options["keep-swapped"] === true;
  const plan = await viewStore(directory, async (view) => {
    const isEmpty = view.index.segments.size + view.index.objectCount === 0;
    if (isEmpty && view.damaged.length + view.temporary.length === 0) {
      throw new CommandError(EXIT_REFUSED, `${printable(directory)} holds no store`);
    }
    return planOf(view, keepsSwapped);
  });
  const { swapped, swappedBytes, temporaryCount, deadBytes, quarantined, bytesBefore } = plan;
  const kept = removesQuarantined ? 0 : plan.quarantinedBytes;
  const lines = [
    `swapped-out copies: ${swapped.length}, ${formatBytes(swappedBytes)}`,
    `dead: ${formatBytes(deadBytes)}, ${countOf(temporaryCount, "temporary file")}`,
    `quarantined: ${countOf(quarantined.length, "file")}, ${formatBytes(plan.quarantinedBytes)}` +
      (removesQuarantined || quarantined.length === 0 ? "" : "; kept, --quarantine removes them"),
  ];
  if (isDry) {
    io.out.write(`${printable(directory, 200)}: would remove\n  ${lines.join("\n  ")}\n`);
    return 0;
  }
  let bytesAfter: number;
  try {
    bytesAfter = kept + (await carryOut(directory, plan, removesQuarantined));
  } catch (error) {
    // Somebody came between the look and the lock.
    if (!(error instanceof TierError) || error.code !== "busy") throw error;
    throw new CommandError(EXIT_REFUSED, `${printable(directory)} is in use by another process`);
  }
  io.out.write(
    `${printable(directory, 200)}: removed\n  ${lines.join("\n  ")}\n` +
      `${formatBytes(bytesBefore)} before, ${formatBytes(bytesAfter)} now\n`,
  );
  return 0;
}

export const CLEAN: Command = {
  synopsis: "clean DIR",
  summary: "Removes what dead processes left, and gives back the room of what is dead.",
  help: `  --dry-run       say what would be done, and change nothing
  --quarantine    remove quarantined files too
  --keep-swapped  keep swapped-out copies

A swapped-out copy belongs to a tensor of a process. When that has ended, \`acquire\` can still find it,
until it is swept. Saved records are kept in any case, damaged ones too. Takes the directory's lock; a
directory that a living process holds is refused.
`,
  options: {
    "dry-run": { type: "boolean" },
    quarantine: { type: "boolean" },
    "keep-swapped": { type: "boolean" },
  },
  run: clean,
};
