// The documents' tables: what is kept of a figure, and how it is shown. See figures.mjs. A table is a comment, which
// is not shown, and what is filled in below it:
//
//   <!-- figures: a/one a/two-* -->            ids, with * for anything
//
//   <!-- figures:                              or a line for each of them,
//   a/one: what it means                       with words for readers
//   a/two-*
//   -->

/** Runs of a figure that are kept. */
const RUN_COUNT_MAX = 5;
const TABLE = /(<!-- figures:\s([\s\S]*?)\s-->\n)[\s\S]*?(<!-- \/figures -->)/g;
const BINARY_UNITS = ["B", "KiB", "MiB", "GiB"];
/** Longer units are words, which a target does not repeat. */
const SHORT_UNIT_LENGTH_MAX = 3;
/** Units of numbers that stand by themselves. */
const BARE_UNITS = ["", "ratio", "factor", undefined];

function formatNumber(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  // What is nearly all is not all.
  const digits = value > 99 && value < 100 ? 4 : 3;
  const text = Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(digits);
  return Number(text).toLocaleString("en-US", { maximumFractionDigits: 6 });
}

function formatBytes(bytes) {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < BINARY_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${formatNumber(Number(value.toFixed(1)))} ${BINARY_UNITS[unit]}`;
}

function formatValue(value, unit, { isShort = false } = {}) {
  if (unit === "bytes") return formatBytes(value);
  if (unit === "share") return `${formatNumber(100 * value)} %`;
  const isBare = BARE_UNITS.includes(unit) || (isShort && unit.length > SHORT_UNIT_LENGTH_MAX);
  return isBare ? formatNumber(value) : `${formatNumber(value)} ${unit}`;
}

/** The middle of the runs, and how far they lie apart. */
function seenText({ unit, runs }) {
  const values = runs.map(({ value }) => value).sort((left, right) => left - right);
  const middle = formatValue(values[Math.floor((values.length - 1) / 2)], unit);
  const [least, most] = [formatValue(values[0], unit), formatValue(values.at(-1), unit)];
  if (runs.length === 1) return middle;
  const range = least === most ? "" : `${least} to ${most} `;
  return `${middle} (${range}in ${runs.length} runs)`;
}

/** A figure says whether it meets its target, and so on which side of it the target lies. */
function targetText({ unit, target, runs }) {
  if (target === undefined || target === null) return "";
  const judged = runs.filter(({ met }) => met !== undefined);
  const isAtLeast = judged.some(({ value, met }) => (met ? value > target : value < target));
  const isAtMost = judged.some(({ value, met }) => (met ? value < target : value > target));
  const sign = isAtLeast === isAtMost ? "" : isAtLeast ? "≥ " : "≤ ";
  const missedCount = runs.filter(({ met }) => met === false).length;
  const times = runs.length === 1 ? "" : ` in ${missedCount} of ${runs.length}`;
  return `${sign}${formatValue(target, unit, { isShort: true })}${missedCount === 0 ? "" : `, missed${times}`}`;
}

const cell = (text) => String(text).replaceAll("|", "\\|").replaceAll("\n", " ");

/** What a table asks for: ids, in which `*` stands for anything, each with words or without. */
function wantedOf(text) {
  if (!text.includes("\n") && !text.includes(": ")) {
    return text.split(/[ ,]+/).map((pattern) => ({ pattern, test: testOf(pattern) }));
  }
  return text.split("\n").map((line) => {
    const [, pattern, words] = /^(\S+?)(?:: (.*))?$/.exec(line) ?? [];
    if (pattern === undefined) throw new Error(`it is no line of a table: ${line}`);
    return { pattern, words, test: testOf(pattern) };
  });
}

function testOf(pattern) {
  const parts = pattern.split("*").map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`);
}

/** What printed the figures of a table, with the machine's load at the end of each, where that was noted. */
function originText(rows) {
  const loadsOf = new Map();
  for (const { command, seed, runs } of rows) {
    if (command === undefined) continue;
    const isSaid = seed === undefined || command.includes("--seed");
    const text = `\`${command}\`${isSaid ? "" : ` with seed ${seed}`}`;
    const loads = runs.map(({ load }) => load).filter(Number.isFinite);
    loadsOf.set(text, [...(loadsOf.get(text) ?? []), ...loads]);
  }
  if (loadsOf.size === 0) return "";
  const parts = [...loadsOf].map(([text, loads]) => {
    const ends = loads.length === 0 ? [] : [Math.min(...loads), Math.max(...loads)];
    const range = [...new Set(ends.map((each) => each.toFixed(1)))].join(" to ");
    return range === "" ? text : `${text} (load ${range})`;
  });
  return `\nBy ${parts.join(", ")}.\n`;
}

function tableOf(text, figures) {
  const rows = new Map();
  for (const { pattern, words, test } of wantedOf(text)) {
    const own = figures.filter(({ id }) => test.test(id));
    if (own.length === 0) throw new Error(`no figure is called ${pattern}`);
    for (const figure of own) if (!rows.has(figure)) rows.set(figure, words);
  }
  const lines = [...rows].map(([figure, words]) => {
    const id = `\`${cell(figure.id)}\``;
    const name = words === undefined ? id : `${words} (${id})`;
    return `| ${name} | ${seenText(figure)} | ${targetText(figure)} | ${cell(figure.beside ?? "")} |`;
  });
  const head = ["| Figure | Seen | Target | Beside |", "|---|---:|---:|---|"];
  return [...head, ...lines, originText([...rows.keys()])].join("\n");
}

/** The document with its tables filled in. @throws When a table names no figure that there is. */
export function fill(document, figures) {
  return document.replaceAll(
    TABLE,
    (_, head, wanted, tail) => `${head}${tableOf(wanted, figures)}${tail}`,
  );
}

/** Tells of an id whether a table of one of the documents shows it. */
export function shownIds(documents) {
  const wanted = documents.flatMap((document) =>
    [...document.matchAll(TABLE)].flatMap(([, , text]) => wantedOf(text)),
  );
  return (id) => wanted.some(({ test }) => test.test(id));
}

/** Adds a run to what is kept of each figure; with `isFresh`, in place of earlier runs. */
export function take(kept, { environment, command, seed, figures }, { isFresh = false } = {}) {
  const byId = new Map(kept.map((figure) => [figure.id, figure]));
  const text = (value) => (typeof value === "string" && value !== "" ? value : undefined);
  for (const { id, value, unit, target, met, beside } of figures) {
    if (typeof value !== "number" || !Number.isFinite(value)) continue;
    const runs = isFresh ? [] : (byId.get(id)?.runs ?? []);
    const load = environment?.load;
    const run = { value, ...(met !== undefined && { met }), ...(load !== undefined && { load }) };
    byId.set(id, {
      ...{ id, unit, target, beside: text(beside) },
      ...{ command: text(command), seed: seed ?? environment?.seed, node: environment?.node },
      runs: [...runs, run].slice(-RUN_COUNT_MAX),
    });
  }
  return [...byId.values()];
}
