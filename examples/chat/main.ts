/**
 * The main job: many chats on one model inside one memory budget, cold chats on disk, and every
 * token equal to a run without limits. `--help` lists the options.
 */
import { OutOfMemoryError, TierheapError } from "tierheap";
import { parseOptions, USAGE, UsageError } from "./options.js";
import { formatRun, jsonOf } from "./report.js";
import { runChats } from "./run.js";
import { DiskFullError } from "./run-records.js";
import { RuntimeError } from "./runtime.js";

const EXIT_INTERRUPTED = 130;

/** Errors that their message explains; everything else keeps its stack. */
function isExpected(error: unknown): error is Error {
  return (
    error instanceof UsageError ||
    error instanceof RuntimeError ||
    error instanceof DiskFullError ||
    error instanceof TierheapError
  );
}

function adviceOf(error: Error): string {
  if (error instanceof OutOfMemoryError)
    return `${error.message} (--ram and --ssd set the budgets)`;
  return error.message;
}

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  if (options.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const controller = new AbortController();
  const stop = () => {
    // The second one does not wait for the turn to end.
    if (controller.signal.aborted) process.exit(EXIT_INTERRUPTED);
    process.stderr.write("\nstopping after this turn …\n");
    controller.abort();
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  try {
    const result = await runChats(options, controller.signal, process.stderr);
    process.stdout.write(`${options.json ? jsonOf(result) : `\n${formatRun(result)}`}\n`);
    if (result.isInterrupted) return EXIT_INTERRUPTED;
    return result.turnsWrong === 0 ? 0 : 1;
  } catch (error) {
    if (controller.signal.aborted && error === controller.signal.reason) return EXIT_INTERRUPTED;
    throw error;
  } finally {
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(isExpected(error) ? `${adviceOf(error)}\n` : `${(error as Error).stack}\n`);
  process.exitCode = 1;
}
