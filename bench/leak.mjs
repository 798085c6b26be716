// A leaked tensor, as its owner learns of it. Run by `npm run bench`, or alone:
//
//   node --expose-gc bench/leak.mjs [--json FILE]
//
// Allocates tensors that nobody frees and nobody can reach, collects, and prints what is reported.
import { createTensorMemory } from "tierheap";
import { printFeatures } from "./features.mjs";
import { report } from "./support.mjs";

const LEAKED_COUNT = 3;

const memory = await createTensorMemory({ budgets: { ram: "64MiB" }, debug: true });
const events = memory.events();

function forgetTensors() {
  for (let index = 0; index < LEAKED_COUNT; index++) {
    memory.allocate({ kind: "ACTIVATIONS", shape: [576, 4], dtype: "f32", tag: `layer ${index}` });
  }
}

forgetTensors();
const leaks = [];
while (leaks.length < LEAKED_COUNT) {
  globalThis.gc();
  await new Promise((resolve) => setTimeout(resolve, 10));
  for (let seen = memory.stats().leaks.leakedCount; leaks.length < seen; ) {
    const { value } = await events.next();
    if (value.type === "leak") leaks.push(value);
  }
}
for (const { tag, kind, bytes, callSite } of leaks) {
  console.log(`leaked: ${bytes} bytes of ${kind}, tag "${tag}"\n  ${callSite.split("\n")[0]}`);
}
const isNamed = leaks.every(({ callSite }) => callSite.startsWith("at forgetTensors"));
const { leakedBytes } = memory.stats().leaks;
// What debug mode keeps in quarantine belongs to no tensor any more.
memory.trim();
const { liveCount } = memory.stats().pools.find(({ kind }) => kind === "ACTIVATIONS");
printFeatures(memory.stats());
await memory.close();
report("leak", [
  {
    id: "leak/reported",
    value: leaks.length,
    unit: "tensors",
    target: LEAKED_COUNT,
    met: leaks.length === LEAKED_COUNT,
  },
  {
    id: "leak/bytes",
    value: leakedBytes,
    unit: "bytes",
    target: LEAKED_COUNT * 9216,
    met: leakedBytes === LEAKED_COUNT * 9216,
  },
  {
    id: "leak/with-call-site",
    value: isNamed ? leaks.length : 0,
    unit: "tensors",
    target: LEAKED_COUNT,
    met: isNamed,
  },
  { id: "leak/still-held", value: liveCount, unit: "blocks", target: 0, met: liveCount === 0 },
]);
