// Spreads the jobs of a proof over threads.
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";

/**
 * Runs jobs, each on the first thread that is free, until all are done or one has failed.
 *
 * @param jobs Each with a `kind` that worker.mjs knows, and its options.
 * @returns The counts of each job, in their order. @throws {Error} Of the first job that failed.
 */
export async function runJobs(jobs) {
  const results = [];
  let next = 0;
  let failure;
  const work = async () => {
    const worker = new Worker(new URL("worker.mjs", import.meta.url));
    let answered = () => {};
    worker.on("message", (answer) => answered(answer));
    worker.on("error", (error) => answered({ failure: String(error.stack) }));
    worker.on("exit", (code) => answered({ failure: `a thread ended with ${code}` }));
    try {
      while (next < jobs.length && failure === undefined) {
        const index = next++;
        const answer = await new Promise((resolve) => {
          answered = resolve;
          worker.postMessage(jobs[index]);
        });
        failure ??= answer.failure;
        results[index] = answer.counts;
      }
    } finally {
      await worker.terminate();
    }
  };
  const threadCount = Math.min(jobs.length, availableParallelism());
  await Promise.all(Array.from({ length: threadCount }, work));
  if (failure !== undefined) throw new Error(failure);
  return results;
}

/** Adds counts up, name by name. */
export function sumOf(results) {
  const sums = {};
  for (const counts of results) {
    for (const [name, count] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + count;
  }
  return sums;
}
