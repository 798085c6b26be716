// One thread of a proof: runs the jobs that it is sent, one after the other.
import { parentPort } from "node:worker_threads";
import { runMisuse } from "./misuse-run.mjs";
import { runModel } from "./model-run.mjs";

/** The model on a module whose bytes came with the job. */
async function runMutant({ bytes, ...options }) {
  return runModel({ ...options, wasm: await WebAssembly.compile(bytes) });
}

const RUNS = { model: runModel, misuse: runMisuse, mutant: runMutant };

// A stack costs more than the refusal that it is about, and a job's error has its seed.
Error.stackTraceLimit = 0;

parentPort.on("message", ({ kind, ...options }) => {
  RUNS[kind](options).then(
    (counts) => parentPort.postMessage({ counts }),
    (error) => parentPort.postMessage({ failure: String(error?.message ?? error) }),
  );
});
