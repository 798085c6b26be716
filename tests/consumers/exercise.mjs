// What every consumer of the packed package does, in whatever way it got the package.

const TENSOR_COUNT = 48;
const TENSOR_BYTES = 2 ** 20;

function fill(view, seed) {
  for (let index = 0; index < view.length; index++) view[index] = (index * 31 + seed) % 251;
}

function isFilled(view, seed) {
  return view.every((value, index) => value === (index * 31 + seed) % 251);
}

/**
 * Holds three times the RAM budget, reads all of it back, and finds what was saved in a second memory.
 *
 * @param tierheap The package's exports.
 * @param options What the place adds to the memory's options.
 * @returns How many tensors were compared, and what was found wrong.
 */
export async function exercise(tierheap, options = {}) {
  const { createTensorMemory, BuddyAllocator, ViewAllocator, OutOfMemoryError } = tierheap;
  const wrong = [];
  let comparedCount = 0;
  const compare = (view, seed, what) => {
    comparedCount += 1;
    if (view === undefined || !isFilled(view, seed)) wrong.push(what);
  };
  const open = () => createTensorMemory({ budgets: { ram: "16MiB", ssd: "256MiB" }, ...options });

  const first = await open();
  for (let seed = 0; seed < TENSOR_COUNT; seed++) {
    await first.reserve({ kind: "KV_CACHE", bytes: TENSOR_BYTES });
    const id = `tensor/${seed}`;
    const tensor = first.allocate({ kind: "KV_CACHE", id, byteLength: TENSOR_BYTES });
    const pin = tensor.pin();
    fill(pin.view, seed);
    pin[Symbol.dispose]();
  }
  for (let seed = 0; seed < TENSOR_COUNT; seed++) {
    const lease = await first.acquire(`tensor/${seed}`, { access: "read" });
    compare(lease?.view, seed, `tensor/${seed} after pressure`);
    lease?.[Symbol.dispose]();
  }
  const { budget } = first.stats();
  if (budget.usedBytesPeak > budget.limitBytes) wrong.push("the RAM budget was exceeded");
  try {
    first.allocate({ kind: "KV_CACHE", byteLength: 2 ** 31 });
    wrong.push("2 GiB fitted into 16 MiB");
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) wrong.push(`not an OutOfMemoryError: ${error}`);
  }
  await first.save("tensor/7", { mode: "durable" });
  await first.close();

  const second = await open();
  const found = await second.acquire("tensor/7", { access: "read" });
  compare(found?.view, 7, "tensor/7 in a second memory");
  found?.[Symbol.dispose]();
  const { isSound, problems } = second.verify();
  if (!isSound) wrong.push(`the second memory is not sound: ${problems.join("; ")}`);
  await second.delete("tensor/7");
  await second.close();

  const views = await ViewAllocator.create({ totalBytes: 2 ** 20, dtype: "f32" });
  const block = views.tryAllocate(100);
  if (block?.view.length !== 100) wrong.push("ViewAllocator gave no view of 100 elements");
  block?.free();
  const buddy = await BuddyAllocator.create({ totalBytes: 2 ** 20 });
  buddy.free(buddy.tryAllocate(1000));
  if (buddy.verify() !== null) wrong.push(`BuddyAllocator: ${buddy.verify()}`);
  return { comparedCount, wrong };
}
