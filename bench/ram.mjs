// RAM given back, and more of it than one memory can hold. Run by `npm run bench`, or alone:
//
//   node --expose-gc bench/ram.mjs [--json FILE]
//
// Allocates 1 GiB and touches it, frees it, trims and collects; then fills a pool of 6 GiB, touching
// one byte in 64 KiB. Reports resident memory as the system sees it.
import { createTensorMemory } from "tierheap";
import { printFeatures } from "./features.mjs";
import { report } from "./support.mjs";

const GIB = 2 ** 30;
const MIB = 2 ** 20;

const rss = () => process.memoryUsage.rss();

async function collect() {
  for (let round = 0; round < 5; round++) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function giveBack() {
  const memory = await createTensorMemory({ budgets: { ram: "1200MiB" } });
  await collect();
  const startBytes = rss();
  for (let index = 0; index < 64; index++) {
    const options = { kind: "ACTIVATIONS", id: `t${index}`, byteLength: 16 * MIB };
    const pin = memory.allocate(options).pin();
    pin.view.fill(index);
    pin[Symbol.dispose]();
  }
  const fullBytes = rss();
  for (let index = 0; index < 64; index++) memory.free(`t${index}`);
  const droppedBytes = memory.trim();
  await collect();
  const endBytes = rss();
  const { retired } = memory.stats().budget.byCategory;
  printFeatures(memory.stats());
  await memory.close();
  return { startBytes, fullBytes, endBytes, droppedBytes, retired };
}

async function fillPool() {
  const memory = await createTensorMemory({
    budgets: { ram: "7GiB" },
    pools: { PARAMETERS: { budget: "6400MiB" } },
  });
  let bytes = 0;
  let index = 0;
  while (bytes < 6 * GIB) {
    const id = `w${index++}`;
    const tensor = memory.allocate({ kind: "PARAMETERS", id, byteLength: 64 * MIB });
    const pin = tensor.pin();
    for (let offset = 0; offset < pin.view.length; offset += 65536) pin.view[offset] = index;
    pin[Symbol.dispose]();
    bytes += tensor.byteLength;
  }
  let wrong = 0;
  for (let check = 0; check < index; check++) {
    const pin = memory.tryAcquire(`w${check}`, { access: "read" });
    for (let offset = 0; offset < pin.view.length; offset += 65536) {
      if (pin.view[offset] !== (check + 1) % 256) wrong += 1;
    }
    pin[Symbol.dispose]();
  }
  const { isSound } = memory.verify();
  const [pool] = memory.stats().pools;
  printFeatures(memory.stats());
  await memory.close();
  return { bytes, wrong, isSound, arenaCount: pool.arenaCount, capacityBytes: pool.capacityBytes };
}

const back = await giveBack();
const pool = await fillPool();
const growth = back.endBytes / back.startBytes;
report("ram", [
  { id: "ram/rss-start", value: back.startBytes / MIB, unit: "MiB" },
  { id: "ram/rss-with-1-gib", value: back.fullBytes / MIB, unit: "MiB" },
  { id: "ram/rss-after-trim", value: back.endBytes / MIB, unit: "MiB" },
  { id: "ram/rss-after-over-start", value: growth, unit: "ratio", target: 1.1, met: growth <= 1.1 },
  {
    id: "ram/retired-after-trim",
    value: back.retired,
    unit: "bytes",
    target: 0,
    met: back.retired === 0,
  },
  {
    id: "ram/pool-live",
    value: pool.bytes / GIB,
    unit: "GiB",
    target: 6,
    met: pool.bytes >= 6 * GIB,
  },
  { id: "ram/pool-capacity-over-live", value: pool.capacityBytes / pool.bytes, unit: "ratio" },
  { id: "ram/pool-arenas", value: pool.arenaCount, unit: "arenas" },
  {
    id: "ram/pool-wrong-bytes",
    value: pool.wrong,
    unit: "bytes",
    target: 0,
    met: pool.wrong === 0 && pool.isSound,
  },
]);
