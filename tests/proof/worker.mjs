// One thread of a proof: runs the jobs that it is sent, one after the other.
import { parentPort } from "node:worker_threads";
import { runMisuse } from "./misuse-run.mjs";
import { runModel } from "./model-run.mjs";

const RUNS = { model: runModel, misuse: runMisuse };

// A stack costs more than the refusal that it is about, and a job's error has its seed.
Error.stackTraceLimit = 0;

parentPort.on("message", ({ kind, ...options }) => {
  RUNS[kind](options).then(
    (counts) => parentPort.postMessage({ counts }),
    (error) => parentPort.postMessage({ failure: String(error?.message ?? error) }),
  );
});
