// Runs operations on the Redis tier behind a proxy that does to connections what networks do, and worse,
// on a real server: so many operations for each fault, half of them while it is there. Needs `redis-server`, and
// the package built.
//
//   node scripts/remote-faults.mjs [--operations 1000] [--seed N] [--json FILE]
//
// Fails on wrong bytes, on an object that is said to be missing although it was acknowledged, on anything that
// comes back after its deletion, and where too little failed.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { seededRandom } from "tierheap/testing";
import { redisTier } from "tierheap/tiers/redis";
import { runnerImport } from "vite";
import { writeFigures } from "../bench/support.mjs";
import { root } from "./steps.mjs";

const { values } = parseArgs({
  options: { operations: { type: "string" }, seed: { type: "string" }, json: { type: "string" } },
});
/** A module of the tests, which are not built. */
async function support(name) {
  const path = join(root, "tests", "support", name);
  return (await runnerImport(path, { configFile: false, logLevel: "error" })).module;
}
const { startProxy } = await support("faulty-proxy.ts");
const { NO_REDIS, startRedis } = await support("redis-server.ts");
const operationCount = Number(values.operations ?? 1000);
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
if (NO_REDIS !== undefined) {
  console.log(NO_REDIS);
  process.exit(0);
}

const TIMEOUT_MS = 150;
const KEY_COUNT = 8;
const BYTES = 9000;
/** The last two are the server's own, the others the network's. */
const FAULTS = [
  ...["none", "refuse", "hang", "reset", "partial", "flip"],
  ...["flip-long", "swap", "slow", "late", "full", "paused"],
];
const HINTS = { kind: "KV_CACHE", isDurable: false, isSaved: false, expiresMs: 0 };

const keyOf = (index) => index.toString(16).padStart(64, "0");
const bytesOf = (key, version) =>
  new Uint8Array(BYTES).map((_, at) =>
    at < 4 ? version >>> (8 * at) : key * 31 + version * 7 + at * 13,
  );

async function put(tier, key, version) {
  const writer = await tier.begin(keyOf(key), BYTES, HINTS);
  if (writer === "no-space") return writer;
  try {
    if ((await writer.write(bytesOf(key, version))) === "no-space") return "no-space";
    return await writer.commit({ durable: false });
  } finally {
    await writer.abort();
  }
}

/** The version that is there; 0: nothing, -1: wrong bytes. */
async function get(tier, key) {
  const reader = await tier.openRead(keyOf(key));
  if (reader === null) return 0;
  const bytes = new Uint8Array(reader.byteLength);
  const count = await reader.read(0, bytes);
  await reader.close();
  const version = new DataView(bytes.buffer).getUint32(0, true);
  const expected = bytesOf(key, version);
  return count === BYTES && bytes.every((byte, at) => byte === expected[at]) ? version : -1;
}

const server = await startRedis();
const proxy = await startProxy(server.port, 3 * TIMEOUT_MS);
const clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  defer: (ms, work) => {
    const timer = setTimeout(() => work(), ms);
    return () => clearTimeout(timer);
  },
};

async function setFault(fault, isOn) {
  const isServers = fault === "full" || fault === "paused";
  proxy.fault = isOn && !isServers ? fault : "none";
  if (fault === "full") await server.ask("CONFIG", "SET", "maxmemory", isOn ? "1" : "0");
  if (fault === "paused" && isOn) await server.ask("CLIENT", "PAUSE", "60000", "WRITE");
  if (fault === "paused" && !isOn) await server.ask("CLIENT", "UNPAUSE");
}

async function runFault(fault, index) {
  const { uint32 } = seededRandom(seed + index);
  const prefix = `faults-${index}`;
  const options = {
    url: `redis://127.0.0.1:${proxy.port}`,
    prefix,
    timeoutMs: TIMEOUT_MS,
    chunkBytes: 2048,
  };
  const tier = redisTier(options)({ capacityBytes: 2 ** 30, clock, random: { uint32 } });
  // The client library is loaded with the first one.
  await tier.open().catch(() => tier.open());
  /** Versions that a key may have. */
  const possible = Array.from({ length: KEY_COUNT }, () => new Set([0]));
  const counts = { wrongCount: 0, failedCount: 0, faultyCount: 0 };
  for (let step = 1; step <= operationCount; step++) {
    const isOn = (step >> 2) % 2 === 1;
    if (step % 4 === 0) await setFault(fault, isOn);
    const key = uint32() % KEY_COUNT;
    const choice = uint32() % 10;
    const own = possible[key];
    if (isOn) counts.faultyCount += 1;
    try {
      if (choice < 4) {
        if ((await put(tier, key, step)) === "stored") possible[key] = new Set([step]);
        else counts.failedCount += 1;
      } else if (choice < 9) {
        const found = await get(tier, key);
        if (!own.has(found)) counts.wrongCount += 1;
        possible[key] = new Set([found]);
      } else {
        await tier.delete(keyOf(key));
        possible[key] = new Set([0]);
      }
    } catch (error) {
      if (!["io", "timeout", "busy"].includes(error.code)) throw error;
      counts.failedCount += 1;
      if (choice < 4) own.add(step);
      // A failed deletion is as good as done.
      else if (choice === 9) possible[key] = new Set([0]);
    }
  }
  await setFault(fault, false);
  await clock.sleep(6 * TIMEOUT_MS);
  for (let key = 0; key < KEY_COUNT; key++) {
    if (!possible[key].has(await get(tier, key))) counts.wrongCount += 1;
  }
  await tier.close();
  return counts;
}

console.log(`seed ${seed}`);
const figures = [];
/** @param miss How a target that is not met is marked. */
const add = (id, value, unit, target, met, miss = "FAIL") => {
  figures.push({ id, value, unit, target, met });
  console.log(`${met ? "ok  " : miss}  ${id}  ${value} ${unit} (target ${target})`);
};
let wrongCount = 0;
const quiet = [];
for (const [index, fault] of FAULTS.entries()) {
  const found = await runFault(fault, index);
  const { failedCount, faultyCount } = found;
  console.log(
    `${fault}: ${operationCount} operations, ${failedCount} failed, ${found.wrongCount} wrong`,
  );
  wrongCount += found.wrongCount;
  if (fault !== "none" && failedCount < faultyCount / 20) quiet.push(fault);
}
await proxy.stop();
await server.stop();
add(
  "remote/operations",
  operationCount * FAULTS.length,
  "operations",
  12_000,
  operationCount >= 1000,
  "part",
);
add("remote/wrong", wrongCount, "answers", 0, wrongCount === 0);
for (const fault of quiet) console.log(`too little failed: ${fault}`);
add("remote/quiet-faults", quiet.length, "faults", 0, quiet.length === 0);
if (values.json !== undefined) writeFigures(values.json, figures, seed);
// A shorter run than asked of it by the target is sound, but proves less.
process.exitCode = wrongCount + quiet.length === 0 ? 0 : 1;
