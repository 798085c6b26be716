// Runs one section in this process and sends what it found to run.mjs, which started it.
const [name, quick = ""] = process.argv.slice(2);
const { run } = await import(`./sections/${name}.mjs`);
process.send(await run({ isQuick: quick === "quick" }));
process.disconnect();
