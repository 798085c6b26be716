// Runs one section in this process and sends what it found to run.mjs, which started it. A section
// gives, each of them if it has any:
//
//   rows            times: a metric, a contestant and its samples
//   tables          for the console only, as `console.table` takes them
//   tabledFigures   figures that those tables show
//   figures         the other figures
//   absent          contestants without a figure, and why
const [name, group = "", quick = ""] = process.argv.slice(2);
const { run } = await import(`./sections/${name}.mjs`);
const { rows = [], ...found } = await run({ group, isQuick: quick === "quick" });
process.send({
  tables: [],
  tabledFigures: [],
  figures: [],
  absent: [],
  ...found,
  rows: rows.map(({ metric, contestant, samples }) => ({
    metric,
    id: contestant.id,
    title: contestant.title,
    median: samples.median,
    least: samples.least,
    mean: samples.mean,
  })),
});
process.disconnect();
