// What a GPU is opened with, and wrong arguments.
import type { DeviceTierFactory } from "../../src/webgpu.js";
import { webgpuTier } from "../../src/webgpu.js";
import {
  addOnGpu,
  allocate,
  codeOf,
  type GpuEnvironment,
  isEqual,
  KIB,
  words,
} from "./gpu-environment.js";

/** A device is made from an adapter that the caller chose. */
export async function fromAdapter(environment: GpuEnvironment) {
  const found: Record<string, unknown> = {};
  const adapter = await environment.openAdapter();
  const open = (gpu: DeviceTierFactory) =>
    environment.openMemory({ budgets: { ram: "16MiB", gpu: "1MiB" }, gpu });
  const own = await open(webgpuTier({ adapter }));
  allocate(own, "t", 1000, 1);
  await addOnGpu(own, "t", 1);
  found["equal"] = await isEqual(own, "t", words(1000, 1, 1));
  const device = own.gpu?.device as unknown as GPUDevice;
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  found["the adapter's limits"] =
    device.limits.maxBufferSize === maxBufferSize &&
    device.limits.maxStorageBufferBindingSize === maxStorageBufferBindingSize;
  await environment.closeMemory(own);
  found["after the close"] = (await device.lost).reason;
  let isThere = true;
  let asked = 0;
  const ask = async () => {
    asked += 1;
    return isThere ? environment.openAdapter() : null;
  };
  const memory = await open(webgpuTier({ adapter: ask }));
  allocate(memory, "t", 1000, 2);
  (await memory.gpu?.acquire("t"))?.[Symbol.dispose]();
  const lose = async () => {
    const last = memory.gpu?.device as unknown as GPUDevice;
    last.destroy();
    await last.lost;
    await environment.settle();
  };
  await lose();
  await addOnGpu(memory, "t", 3);
  found["after a loss"] = await isEqual(memory, "t", words(1000, 2, 3));
  await memory.gpu?.demote("t");
  await lose();
  isThere = false;
  found["without an adapter"] = await codeOf(() => memory.gpu?.acquire("t"));
  isThere = true;
  found["with one again"] = await codeOf(() => memory.gpu?.acquire("t"));
  found["asked"] = asked;
  await environment.closeMemory(memory);
  found["misuse"] = [
    await codeOf(() => webgpuTier({})),
    await codeOf(() => webgpuTier({ adapter, device })),
  ];
  return found;
}

/** What is refused, by its code. */
export async function misuses(environment: GpuEnvironment) {
  const device = await environment.openDevice();
  const memory = await environment.openMemory({
    budgets: { ram: "16MiB", gpu: "64KiB" },
    gpu: webgpuTier({ device }),
  });
  const gpu = memory.gpu;
  if (gpu === null) throw new Error("there is no GPU");
  allocate(memory, "a", 10 * KIB, 1);
  allocate(memory, "b", 10 * KIB, 2);
  allocate(memory, "long", 20 * KIB, 3);
  const rows: Record<string, string> = {};
  const row = async (name: string, work: () => unknown) => {
    rows[name] = await codeOf(work);
  };
  const reading = await gpu.acquire("a");
  await row("write what is read", () => gpu.acquire("a", { access: "write" }));
  await row("overwrite what is read", () => gpu.acquire("a", { access: "overwrite" }));
  await row("free what is leased", () => memory.free("a"));
  await row("demote what is leased", () => gpu.demote("a"));
  await row("no room beside what is leased", () => gpu.acquire("b"));
  await row("longer than the budget", () => gpu.acquire("long"));
  reading?.[Symbol.dispose]();
  reading?.[Symbol.dispose]();
  await row("use what was disposed", () => reading?.buffer);
  const writing = await gpu.acquire("a", { access: "write" });
  await row("acquire what is written", () => memory.acquire("a"));
  await row("read what is written", () => gpu.acquire("a"));
  await row("pin what is written", () => memory.tensor("a")?.pin());
  await row("save what is written", () => memory.save("a"));
  await row("swap out what is written", () => memory.swapOut("a"));
  writing?.[Symbol.dispose]();
  {
    using _pin = await memory.acquire("b", { access: "write" });
    await row("upload what is written in RAM", () => gpu.acquire("b"));
  }
  {
    using _lease = await gpu.acquire("b");
    using _pin = memory.tensor("b")?.pin({ access: "read" });
    _lease?.[Symbol.dispose]();
    await row("write what is pinned", () => gpu.acquire("b", { access: "write" }));
    await row("overwrite what is pinned", () => gpu.acquire("b", { access: "overwrite" }));
  }
  await row("no id", () => gpu.acquire(7 as never));
  await row("an unknown option", () => gpu.acquire("a", { on: "gpu" } as never));
  await row("an unknown access", () => gpu.acquire("a", { access: "both" } as never));
  await row("an arena of nothing", () => gpu.arena({ bytes: 0 }));
  const aborted = AbortSignal.abort();
  await row("aborted", () => gpu.acquire("b", { signal: aborted }));
  const isBack = await isEqual(memory, "b", words(10 * KIB, 2));
  await environment.closeMemory(memory);
  await row("closed", () => gpu.acquire("a"));
  device.destroy();
  return { rows, isBack };
}
