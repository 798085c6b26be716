// `tierheap inspect`: what is stored, by namespace, kind, codec and age.

import { systemClock } from "../clock.js";
import { CODEC_UNITS } from "../codec/codec.js";
import { deletionPageIndex } from "../record/deletion-page.js";
import { CODEC_RAW, type RecordHeader } from "../record/record.js";
import { formatBytes, formatTable } from "../stats/format.js";
import type { Command, CommandIo, CommandOptions } from "./command.js";
import { AGE_BOUNDS, countOf, formatAge, printable } from "./output.js";
import { forEachKey, READ_COUNT, readHeader, type StoreView, viewStore } from "./store-view.js";

/** Records that agree in all of this are counted together. */
interface Group {
  readonly tenant: string;
  readonly fingerprint: string;
  readonly kind: string;
  readonly codec: string;
  /** Written by `save`; otherwise swapped-out copies. */
  readonly isSaved: boolean;
  recordCount: number;
  rawBytes: number;
  storedBytes: number;
  /** When the first and the last of them were written, in milliseconds since 1970. */
  oldestMs: number;
  newestMs: number;
}

interface Inventory {
  readonly directory: string;
  readonly recordCount: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  /** Length of all files of the store. */
  readonly physicalBytes: number;
  /** Of it, what does not count any more. */
  readonly deadBytes: number;
  readonly segmentCount: number;
  readonly groups: readonly Group[];
  /** Records that are in no group, because there are too many. */
  readonly otherCount: number;
  readonly ages: Readonly<Record<string, number>>;
  readonly damagedCount: number;
  /** Notes of deletions that another tier of a stack could not be told of. */
  readonly deletionPageCount: number;
  readonly incompatibleCount: number;
  readonly quarantinedCount: number;
  readonly quarantinedBytes: number;
  readonly temporaryCount: number;
}

/** Bounds what a hostile store can make us remember. */
const GROUP_COUNT_MAX = 10_000;
/** Lines of the table. */
const LINE_COUNT_MAX = 100;

/** Codecs by their number in records, as docs/record-format.md has them. */
const CODEC_NAMES: ReadonlyMap<number, string> = new Map([
  [CODEC_RAW, "raw"],
  [CODEC_UNITS, "units"],
]);

function codecName(id: number): string {
  return CODEC_NAMES.get(id) ?? `codec ${id}`;
}

async function takeInventory(
  directory: string,
  view: StoreView,
  nowMs: number,
): Promise<Inventory> {
  const groups = new Map<string, Group>();
  const ages: Record<string, number> = Object.fromEntries(AGE_BOUNDS.map(({ name }) => [name, 0]));
  const totals = { recordCount: 0, rawBytes: 0, storedBytes: 0, otherCount: 0 };
  const refused = { damagedCount: 0, incompatibleCount: 0 };
  const note = (header: RecordHeader, byteLength: number) => {
    const { tenant, fingerprint, kind, isSaved, rawBytes, generation } = header;
    const codec = codecName(header.codecId);
    totals.recordCount += 1;
    totals.rawBytes += rawBytes;
    totals.storedBytes += byteLength;
    const bound = AGE_BOUNDS.find(({ untilMs }) => nowMs - generation < untilMs);
    if (bound !== undefined) ages[bound.name] = (ages[bound.name] ?? 0) + 1;
    const name = JSON.stringify([tenant, fingerprint, kind, codec, isSaved]);
    let group = groups.get(name);
    if (group === undefined) {
      if (groups.size === GROUP_COUNT_MAX) {
        totals.otherCount += 1;
        return;
      }
      const parts = { tenant, fingerprint, kind, codec, isSaved };
      const sums = { recordCount: 0, rawBytes: 0, storedBytes: 0 };
      group = { ...parts, ...sums, oldestMs: generation, newestMs: generation };
      groups.set(name, group);
    }
    group.recordCount += 1;
    group.rawBytes += rawBytes;
    group.storedBytes += byteLength;
    group.oldestMs = Math.min(group.oldestMs, generation);
    group.newestMs = Math.max(group.newestMs, generation);
  };
  let deletionPageCount = 0;
  await forEachKey(view.index.keys(), READ_COUNT, async (key) => {
    if (deletionPageIndex(key) !== null) {
      deletionPageCount += 1;
      return;
    }
    const object = await view.open(key);
    if (object === null) {
      refused.damagedCount += 1;
      return;
    }
    try {
      const decoded = await readHeader(object);
      if (decoded.verdict === "valid") note(decoded.header, object.byteLength);
      else if (decoded.verdict === "damaged") refused.damagedCount += 1;
      else refused.incompatibleCount += 1;
    } finally {
      await object.close();
    }
  });
  const replacedBytes = view.replaced.reduce((sum, { payloadBytes }) => sum + payloadBytes, 0);
  return {
    directory,
    ...totals,
    physicalBytes: view.index.physicalBytes,
    deadBytes: view.index.deadBytes + replacedBytes,
    segmentCount: view.index.segments.size,
    groups: [...groups.values()].sort((left, right) => right.storedBytes - left.storedBytes),
    ages,
    ...refused,
    deletionPageCount,
    quarantinedCount: view.damaged.length,
    quarantinedBytes: view.damaged.reduce((sum, { byteLength }) => sum + byteLength, 0),
    temporaryCount: view.temporary.length,
  };
}

function describeInventory(inventory: Inventory, nowMs: number): string {
  const { recordCount, rawBytes, storedBytes, physicalBytes, deadBytes, segmentCount } = inventory;
  const lines = [
    `${printable(inventory.directory, 200)}: ${countOf(recordCount, "record")} of ${formatBytes(rawBytes)}, ` +
      `stored in ${formatBytes(storedBytes)}`,
    `on disk ${formatBytes(physicalBytes)} with ${countOf(segmentCount, "segment")}, ` +
      `${formatBytes(deadBytes)} of it dead`,
  ];
  if (recordCount > 0) {
    const rows = inventory.groups
      .slice(0, LINE_COUNT_MAX)
      .map((group) => [
        printable(group.tenant) || "-",
        printable(group.fingerprint) || "-",
        group.kind,
        group.codec,
        group.isSaved ? "saved" : "swapped",
        `${group.recordCount}`,
        formatBytes(group.rawBytes),
        formatBytes(group.storedBytes),
        `${formatAge(nowMs - group.newestMs)} – ${formatAge(nowMs - group.oldestMs)}`,
      ]);
    const head = ["tenant", "fingerprint", "kind", "codec", "copy", "records", "raw", "stored"];
    lines.push("", formatTable([[...head, "age"], ...rows]));
    const left = inventory.groups.length - rows.length;
    if (left > 0) lines.push(`and ${countOf(left, "more line")}; --json has all`);
    const ages = Object.entries(inventory.ages).map(([name, count]) => `${count} ${name}`);
    lines.push("", `ages: ${ages.join(", ")}`);
  }
  const { damagedCount, incompatibleCount, quarantinedCount, temporaryCount } = inventory;
  if (damagedCount > 0) lines.push(`${countOf(damagedCount, "record")} without a readable header`);
  const { deletionPageCount } = inventory;
  if (deletionPageCount > 0) {
    lines.push(
      `${countOf(deletionPageCount, "page")} of deletions that another tier has to make up for`,
    );
  }
  if (incompatibleCount > 0)
    lines.push(`${countOf(incompatibleCount, "record")} of another version`);
  if (quarantinedCount > 0) {
    const bytes = formatBytes(inventory.quarantinedBytes);
    lines.push(`${countOf(quarantinedCount, "quarantined file")}, ${bytes}`);
  }
  if (temporaryCount > 0)
    lines.push(`${countOf(temporaryCount, "temporary file")} of dead writers`);
  return `${lines.join("\n")}\n`;
}

async function inspect(
  directory: string,
  options: CommandOptions,
  { out }: CommandIo,
): Promise<number> {
  const nowMs = systemClock.wallMs();
  const inventory = await viewStore(directory, (view) => takeInventory(directory, view, nowMs));
  const isJson = options["json"] === true;
  out.write(
    isJson ? `${JSON.stringify(inventory, null, 2)}\n` : describeInventory(inventory, nowMs),
  );
  return 0;
}

export const INSPECT: Command = {
  synopsis: "inspect DIR",
  summary: "Says what a store holds, by namespace, kind, codec and age.",
  help: `  --json   print JSON

Reads the headers of all records that count, and changes nothing. A directory that a living process
holds is refused.
`,
  options: { json: { type: "boolean" } },
  run: inspect,
};
