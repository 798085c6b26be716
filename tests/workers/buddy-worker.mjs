// A thread that hammers a shared allocator. It stamps what it owns, in memory that all threads see,
// and reports whoever wrote over it. Blocks go round: some of what it allocates it hands over.
import { parentPort, workerData } from "node:worker_threads";
import { BuddyAllocator, MisuseError, TierError } from "../../dist/src/node.js";

const { token, seed, operationCount, bytesMax, stamps, inbox, progress } = workerData;
/** `verifyShare`: of the calls, how many walk every invariant, which holds the guard for long. */
const { isEndless, verifyShare = 0 } = workerData;
const owners = new Int32Array(stamps);
const UNIT_BYTES = 64;

let state = seed | 1;
function random() {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) / 2 ** 32;
}

const buddy = await BuddyAllocator.attach(token);
const lane = buddy.lane;
const counts = { operations: 0, refused: 0, handed: 0, adopted: 0, busy: 0, doubleFrees: 0 };
const live = [];

function change(offset, bytes, before, after) {
  const end = Math.ceil((offset + bytes) / UNIT_BYTES);
  for (let unit = offset / UNIT_BYTES; unit < end; unit++) {
    const seen = Atomics.compareExchange(owners, unit, before, after);
    if (seen !== before) throw new Error(`unit ${unit}: ${seen} in place of ${before}`);
  }
}

function allocate() {
  const bytes = Math.ceil(bytesMax ** random());
  const handle = buddy.tryAllocate(bytes);
  if (handle === 0) {
    counts.refused += 1;
    return;
  }
  change(buddy.offsetOf(handle), bytes, 0, lane);
  live.push({ handle, bytes });
}

function free(index) {
  const { handle, bytes } = live[index];
  live[index] = live[live.length - 1];
  live.pop();
  change(buddy.offsetOf(handle), bytes, lane, 0);
  buddy.free(handle);
  if (random() < 0.02) {
    try {
      buddy.free(handle);
      throw new Error("a double free was accepted");
    } catch (error) {
      if (!(error instanceof MisuseError)) throw error;
      counts.doubleFrees += 1;
    }
  }
}

const meter = progress === undefined ? null : new Int32Array(progress);

/** A mailbox of one message that all threads share: the handle, in two words, and the length. */
const mail = inbox === undefined ? null : new Int32Array(inbox);
const EMPTY = 0;
const WRITING = 1;
const FULL = 2;

function handOver(index) {
  if (Atomics.compareExchange(mail, 0, EMPTY, WRITING) !== EMPTY) return;
  const { handle, bytes } = live[index];
  live[index] = live[live.length - 1];
  live.pop();
  change(buddy.offsetOf(handle), bytes, lane, -1);
  buddy.handOver(handle);
  mail[1] = handle % 2 ** 31;
  mail[2] = Math.floor(handle / 2 ** 31);
  mail[3] = bytes;
  Atomics.store(mail, 0, FULL);
  counts.handed += 1;
}

function receive() {
  if (Atomics.compareExchange(mail, 0, FULL, WRITING) !== FULL) return;
  const handle = mail[1] + mail[2] * 2 ** 31;
  const bytes = mail[3];
  Atomics.store(mail, 0, EMPTY);
  buddy.adopt(handle);
  change(buddy.offsetOf(handle), bytes, -1, lane);
  live.push({ handle, bytes });
  counts.adopted += 1;
}

function step() {
  if (random() < verifyShare && buddy.verify() !== null) throw new Error("damage");
  const draw = random();
  if (draw < 0.02 && mail !== null) receive();
  else if (draw < 0.04 && mail !== null && live.length > 0)
    handOver(Math.floor(random() * live.length));
  else if (live.length < 40 || (live.length < 400 && draw < 0.5)) allocate();
  else free(Math.floor(random() * live.length));
}

function run(count) {
  for (let left = count; left > 0; left--) {
    try {
      step();
    } catch (error) {
      if (!(error instanceof TierError)) throw error;
      counts.busy += 1;
    }
    counts.operations += 1;
    if (meter !== null) Atomics.add(meter, 0, 1);
  }
}

parentPort.postMessage({ ready: true });
if (isEndless) {
  for (;;) run(1000);
} else {
  run(operationCount);
  while (live.length > 0) free(live.length - 1);
  parentPort.postMessage({ counts });
}
