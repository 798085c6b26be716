// A CommonJS program: engines from Node 20.19 on load modules by `require`.
const { createTensorMemory } = require("tierheap");

async function main() {
  const memory = await createTensorMemory({ budgets: { ram: "8MiB" } });
  const tensor = memory.allocate({ kind: "KV_CACHE", shape: [4, 4], dtype: "f32" });
  const wrong = tensor.byteLength === 64 ? [] : [`byteLength is ${tensor.byteLength}`];
  await memory.close();
  console.log(JSON.stringify({ comparedCount: 1, wrong }));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
