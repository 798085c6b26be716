// Spreads the jobs of a proof over threads.
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";

/** A thread that answers one job at a time. */
class Thread {
  #worker = new Worker(new URL("worker.mjs", import.meta.url));
  #answered = () => {};

  constructor() {
    this.#worker.on("message", (answer) => this.#answered(answer));
    this.#worker.on("error", (error) => this.#answered({ failure: String(error.stack) }));
    this.#worker.on("exit", (code) => this.#answered({ failure: `a thread ended with ${code}` }));
  }

  /** @returns `counts` or `failure`; a job that takes longer than `limitMs` ends its thread. */
  run(job, limitMs) {
    return new Promise((resolve) => {
      const isLimited = Number.isFinite(limitMs);
      const end = () => {
        this.#answered({ failure: `no answer in ${limitMs} ms` });
        this.end().catch(this.#answered);
      };
      const timer = isLimited ? setTimeout(end, limitMs) : undefined;
      this.#answered = (answer) => {
        clearTimeout(timer);
        resolve(answer);
      };
      this.#worker.postMessage(job);
    });
  }

  async end() {
    await this.#worker.terminate();
  }
}

/**
 * Runs jobs, each on the first thread that is free.
 *
 * @param jobs Each with a `kind` that worker.mjs knows, and its options.
 * @param options.limitMs A job that takes longer has failed. Default: none.
 * @param options.stopsAtFailure Whether the first failure ends the rest. Default: false.
 * @returns Of each job `counts` or `failure`, in their order; nothing for jobs that did not run.
 */
export async function attemptJobs(jobs, { limitMs = Infinity, stopsAtFailure = false } = {}) {
  const answers = new Array(jobs.length);
  let next = 0;
  let isStopped = false;
  const work = async () => {
    let thread = new Thread();
    while (next < jobs.length && !isStopped) {
      const index = next++;
      answers[index] = await thread.run(jobs[index], limitMs);
      if (answers[index].failure === undefined) continue;
      isStopped = stopsAtFailure;
      await thread.end();
      thread = new Thread();
    }
    await thread.end();
  };
  const threadCount = Math.min(jobs.length, availableParallelism());
  await Promise.all(Array.from({ length: threadCount }, work));
  return answers;
}

/** Runs jobs until all are done. @returns Their counts. @throws {Error} Of the first that failed. */
export async function runJobs(jobs) {
  const answers = await attemptJobs(jobs, { stopsAtFailure: true });
  const failed = answers.find((answer) => answer?.failure !== undefined);
  if (failed !== undefined) throw new Error(failed.failure);
  return answers.map(({ counts }) => counts);
}

/** Adds counts up, name by name. */
export function sumOf(results) {
  const sums = {};
  for (const counts of results) {
    for (const [name, count] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + count;
  }
  return sums;
}
