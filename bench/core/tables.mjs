// Tables of times as text: a row per contestant, with the floor and our own row to compare with.

const OURS = "tierheap";
const FLOOR = "floor";

export const tidy = (value) => (value < 100 ? value.toFixed(1) : value.toFixed(0));

/** The collector's work falls into few chunks: there the mean tells more than the median. */
function times({ median, least, mean }, isCollected) {
  return `${tidy(median)} (${tidy(least)})${isCollected ? `, mean ${tidy(mean)}` : ""}`;
}

const ratio = (row, other) => (other === undefined ? "" : tidy(row.median / other.median));

/** The row that the library itself is, else the first one of ours: the others are compared with it. */
function oursAmong(rows) {
  return rows.find(({ id }) => id === OURS) ?? rows.find(({ id }) => id.startsWith(OURS));
}

/**
 * One table per metric: contestants in their order, and how much more than an empty call, and than
 * our own row, each of them takes.
 *
 * @param rows Times of all contestants in all metrics of a section.
 * @param isCollected Whether the garbage collector takes part.
 */
export function printTimes(rows, isCollected) {
  for (const metric of new Set(rows.map((row) => row.metric))) {
    const own = rows.filter((row) => row.metric === metric);
    const floor = own.find(({ id }) => id === FLOOR);
    const ours = oursAmong(own);
    const cells = own.map((row) => [
      row.id.startsWith(OURS) ? `* ${row.title}` : `  ${row.title}`,
      times(row, isCollected),
      ratio(row, floor),
      ratio(row, ours),
    ]);
    printAligned([[`  ${metric}, ns`, "median (least)", "÷ empty call", "÷ ours"], ...cells]);
  }
}

function printAligned(lines) {
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const text = lines.map((line) =>
    line
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]),
      )
      .join("   ")
      .trimEnd(),
  );
  console.log(`${text.join("\n")}\n`);
}
