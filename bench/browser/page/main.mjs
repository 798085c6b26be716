// Measures one round of one length: the same bytes through tierheap on both stores, and through plain
// calls. Runs in the page; run.mjs asks for the rounds. Each contestant first stores and reads a few others,
// which nobody times: its files are open by then, its code is compiled, and a codec that is no use is known. Then the system
// gets memory at hand (see run.mjs).
import { createTensorMemory } from "tierheap/browser";

const now = () => performance.now();
let roundCount = 0;

let messageCount = 0;
const { postMessage } = Worker.prototype;
Worker.prototype.postMessage = function (...given) {
  messageCount += 1;
  return postMessage.apply(this, given);
};

function plainStore() {
  const worker = new Worker(new URL("./plain-worker.mjs", import.meta.url), { type: "module" });
  const waiting = new Map();
  let lastId = 0;
  worker.onmessage = ({ data }) => {
    waiting.get(data.id)(data.value);
    waiting.delete(data.id);
  };
  const call = (name, parameters, transfer = []) =>
    new Promise((resolve) => {
      lastId += 1;
      waiting.set(lastId, resolve);
      worker.postMessage({ id: lastId, call: name, ...parameters }, transfer);
    });
  return { call, end: () => worker.terminate() };
}

/** Calls work for each index, so many at once. @returns Milliseconds. */
async function timed(count, callerCount, work) {
  let next = 0;
  const caller = async () => {
    while (next < count) {
      const index = next;
      next += 1;
      await work(index);
    }
  };
  const startMs = now();
  await Promise.all(Array.from({ length: callerCount }, caller));
  return now() - startMs;
}

/** Bytes that no codec makes shorter. */
function noise(byteLength) {
  const bytes = new Uint8Array(byteLength);
  for (let start = 0; start < byteLength; start += 65_536) {
    crypto.getRandomValues(bytes.subarray(start, start + 65_536));
  }
  return bytes;
}

async function plainRound({ byteLength, count, warmUpCount, callerCount }, isFileEach) {
  roundCount += 1;
  const name = `plain-${roundCount}`;
  const source = noise(byteLength);
  const target = new Uint8Array(byteLength).fill(1);
  const { call, end } = plainStore();
  await call("open", { name });
  const write = async (index) => {
    const bytes = source.slice();
    await call(isFileEach ? "writeFile" : "write", { index, bytes }, [bytes.buffer]);
  };
  const read = async (index) => {
    target.set(await call(isFileEach ? "readFile" : "read", { index, byteLength }));
  };
  await timed(warmUpCount, callerCount, write);
  await timed(warmUpCount, callerCount, read);
  await window.fetchMemory();
  const writeMs = await timed(count, callerCount, (index) => write(warmUpCount + index));
  const readMs = await timed(count, callerCount, (index) => read(warmUpCount + index));
  await call("close", { name });
  end();
  return { writeMs, readMs };
}

/** Tensors are saved, freed, and acquired again. */
async function tierheapRound({ byteLength, count, warmUpCount, callerCount }, store) {
  roundCount += 1;
  const source = noise(byteLength);
  const totalCount = warmUpCount + count;
  const ramBytes = Math.max(64 * 2 ** 20, 2.5 * byteLength * totalCount);
  const memory = await createTensorMemory({
    budgets: { ram: Math.ceil(ramBytes), ssd: 2 ** 32 },
    ssd: { directory: `${store}-${roundCount}`, browser: { store } },
  });
  for (let index = 0; index < totalCount; index++) {
    using pin = memory.allocate({ kind: "KV_CACHE", id: `${index}`, byteLength }).pin();
    pin.bytes.set(source);
  }
  const spill = async (index) => {
    const outcome = await memory.swapOut(`${index}`);
    if (outcome !== "stored") throw new Error(outcome);
  };
  const restore = async (index) => {
    using lease = await memory.acquire(`${index}`, { access: "read" });
    if (lease === null) throw new Error("a tensor is gone");
  };
  // One after the other: what is learnt from the first is known at the next.
  await timed(warmUpCount, 1, spill);
  await timed(warmUpCount, 1, restore);
  await window.fetchMemory();
  messageCount = 0;
  const writeMs = await timed(count, callerCount, (index) => spill(warmUpCount + index));
  const writeMessages = messageCount;
  messageCount = 0;
  const readMs = await timed(count, callerCount, (index) => restore(warmUpCount + index));
  const readMessages = messageCount;
  for (let index = 0; index < totalCount; index++) await memory.delete(`${index}`);
  await memory.close();
  return { writeMs, readMs, writeMessages, readMessages };
}

/** Contestants begin in turns: what one leaves to be written back is in the next one's way. */
window.round = async (length, turn) => {
  const contestants = Object.entries({
    plain: () => plainRound(length, false),
    opfs: () => tierheapRound(length, "opfs"),
    indexeddb: () => tierheapRound(length, "indexeddb"),
    ...(length.hasFileEach && { fileEach: () => plainRound(length, true) }),
  });
  const results = {};
  for (let index = 0; index < contestants.length; index++) {
    const [name, run] = contestants[(turn + index) % contestants.length];
    results[name] = await run();
  }
  return results;
};
