// Starts a coding worker in Node.
import { Worker } from "node:worker_threads";

/** @throws What the platform throws where it allows none. */
export function startCodecWorker(): Worker {
  // What this process was started with need not suit a worker.
  return new Worker(new URL("./codec-worker-node.js", import.meta.url), { execArgv: [] });
}
