// What comes again and again: a scope that is freed in one call beside single frees, and one forward
// pass replayed from a plan beside one allocation per tensor.
import { createTensorMemory } from "../../../dist/src/node.js";
import { printFeatures } from "../../features.mjs";
import { median } from "../../support.mjs";
import { forwardPass } from "../llm-trace.mjs";
import { timed } from "../timing.mjs";

const SCOPE_TENSORS = 10_000;
const TENSOR_BYTES = 4096;
/** A scope ends with one call, so it takes many of them until that call is compiled. */
const SCOPE_WARM_UP = 30;
const ROUND_COUNT = 15;
const PASS_ROWS = [1, 64, 127];
const REPLAYS_PER_CHUNK = 20;

const tidy = (value) => Number(value.toPrecision(4));

function timeScope(memory, isTogether) {
  const scope = memory.scope("bench");
  const tensors = [];
  for (let index = 0; index < SCOPE_TENSORS; index++) {
    tensors.push(scope.allocate({ kind: "ACTIVATIONS", byteLength: TENSOR_BYTES }));
  }
  return timed(() => {
    if (isTogether) scope[Symbol.dispose]();
    else for (const tensor of tensors) tensor.free();
  });
}

async function scopeTable(roundCount) {
  const memory = await createTensorMemory({ budgets: { ram: "128MiB" } });
  const times = { together: [], singly: [] };
  for (let round = -SCOPE_WARM_UP; round < roundCount; round++) {
    for (const [name, samples] of Object.entries(times)) {
      const milliseconds = timeScope(memory, name === "together");
      if (round >= 0) samples.push((milliseconds * 1e6) / SCOPE_TENSORS);
    }
  }
  printFeatures(memory.stats());
  await memory.close();
  return { together: median(times.together), singly: median(times.singly) };
}

/** Allocates the tensors of one pass and frees each when it is no longer needed. */
function runPass({ places, sizes }, allocate, free) {
  const tensors = [];
  for (const [index, place] of places.entries()) {
    if (sizes[index] !== 0) tensors[place] = allocate(sizes[index] / 4);
    else free(tensors[place]);
  }
}

async function planRow(rows, roundCount) {
  const memory = await createTensorMemory({ budgets: { ram: "256MiB" } });
  const operations = forwardPass(rows);
  const shapes = [...operations.sizes].filter((bytes) => bytes !== 0).map((bytes) => [bytes / 4]);
  const recorder = memory.recordPlan({ kind: "ACTIVATIONS" });
  runPass(
    operations,
    (elements) => recorder.allocate({ shape: [elements], dtype: "f32" }),
    (tensor) => tensor.free(),
  );
  const plan = recorder.finish();
  const replay = () => {
    plan.begin();
    let sum = 0;
    for (const shape of shapes) sum += plan.next(shape, "f32").length;
    plan.end();
    return sum;
  };
  const ordinary = () => {
    const allocate = (elements) => {
      const tensor = memory.allocate({ kind: "ACTIVATIONS", shape: [elements], dtype: "f32" });
      tensor.pin()[Symbol.dispose]();
      return tensor;
    };
    runPass(operations, allocate, (tensor) => tensor.free());
  };
  const samples = { replay: [], ordinary: [] };
  for (let round = -2; round < roundCount; round++) {
    for (const [name, work] of [
      ["replay", replay],
      ["ordinary", ordinary],
    ]) {
      const count = name === "replay" ? REPLAYS_PER_CHUNK : 1;
      const milliseconds = timed(() => {
        for (let index = 0; index < count; index++) work();
      });
      if (round >= 0) samples[name].push((milliseconds * 1e6) / (count * shapes.length));
    }
  }
  plan[Symbol.dispose]();
  printFeatures(memory.stats());
  await memory.close();
  return {
    rows,
    tensors: plan.tensorCount,
    bytes: plan.byteLength,
    ratio: plan.byteLength / plan.lowerBoundBytes,
    sumRatio: shapes.reduce((sum, [elements]) => sum + 4 * elements, 0) / plan.lowerBoundBytes,
    replay: median(samples.replay),
    ordinary: median(samples.ordinary),
  };
}

export async function run({ isQuick }) {
  const roundCount = isQuick ? 5 : ROUND_COUNT;
  const scope = await scopeTable(roundCount);
  const plans = [];
  for (const rows of PASS_ROWS) plans.push(await planRow(rows, roundCount));
  const scopeRows = {
    "one call": { "ns per tensor": tidy(scope.together) },
    "single frees": { "ns per tensor": tidy(scope.singly) },
  };
  const planRows = {};
  for (const plan of plans) {
    planRows[`T = ${plan.rows}`] = {
      tensors: plan.tensors,
      bytes: plan.bytes,
      "÷ lower bound": tidy(plan.ratio),
      "sum of tensors ÷ lower bound": tidy(plan.sumRatio),
      "replay, ns per tensor": tidy(plan.replay),
      "allocate, pin, free": tidy(plan.ordinary),
    };
  }
  const worst = Math.max(...plans.map(({ ratio }) => ratio));
  const figures = [
    {
      id: "core/scope-free-10000",
      value: tidy(scope.together),
      unit: "ns",
      beside: `per tensor, in one call; single frees ${tidy(scope.singly)} ns`,
    },
    {
      id: "core/plan-over-lower-bound",
      value: tidy(worst),
      unit: "ratio",
      target: 1,
      met: worst <= 1,
      beside: `the worst of T = ${PASS_ROWS.join(", ")}; ${plans[0].tensors} tensors`,
    },
    {
      id: "core/plan-replay",
      value: tidy(plans[1].replay),
      unit: "ns",
      beside: `per tensor, T = ${plans[1].rows}; allocate, pin, free ${tidy(plans[1].ordinary)} ns`,
    },
  ];
  return { tables: [scopeRows, planRows], tabledFigures: [], figures };
}
