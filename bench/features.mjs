// The balance of each optimisation, as a bench that has used a memory prints it at its end.
import { featureRows, formatTable } from "../dist/src/node.js";

/** Prints a table of what did something; nothing when nothing did. */
export function printFeatures(stats, title = "features") {
  const rows = featureRows(stats.features);
  if (rows.length > 0) console.log(`\n${title}\n${formatTable(rows)}`);
}
