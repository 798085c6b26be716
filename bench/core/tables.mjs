// Tables of times as text: a row per contestant, with the floor and our own row to compare with.

/** The row that the library itself is: the others are compared with it. */
const OURS = "tierheap";
const FLOOR = "floor";

export const tidy = (value) => (value < 100 ? value.toFixed(1) : value.toFixed(0));

/** The collector's work falls into few chunks: there the mean tells more than the median. */
function times({ median, least, mean }, isCollected) {
  return `${tidy(median)} (${tidy(least)})${isCollected ? `, mean ${tidy(mean)}` : ""}`;
}

function ratio(row, others, id) {
  const other = others.find((each) => each.metric === row.metric && each.id === id);
  return other === undefined ? "" : tidy(row.median / other.median);
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
    const cells = own.map((row) => [
      row.id.startsWith(OURS) ? `* ${row.title}` : `  ${row.title}`,
      times(row, isCollected),
      ratio(row, own, FLOOR),
      ratio(row, own, OURS),
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
