// One thread of an exploration.
import { parentPort, workerData } from "node:worker_threads";
import { compileModules, explore } from "./explorer.mjs";

const { isBroken, scheduleCount, seed } = workerData;
const modules = await compileModules({ isBroken });
parentPort.postMessage(explore(modules, { scheduleCount, seed }));
