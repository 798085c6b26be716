// A runtime works on tensors of the heap in buffers of the GPU that both share: weights that do not fit there
// together, and results that it writes where the heap wants them.
import { createTensorMemory } from "tierheap/browser";
import { type GpuLease, webgpuTier } from "tierheap/tiers/webgpu";
import { OnnxGraph } from "../../../examples/chat/model/onnx-writer.js";
import { seededRandom } from "../../../src/random.js";
import { loadRuntime, OPTIONS, openDevice } from "./gpu.js";

const WIDTH = 64;
const LAYER_COUNT = 12;

function buildLayer(): Uint8Array<ArrayBuffer> {
  const graph = new OnnxGraph();
  graph.input("x", "float32", [1, WIDTH]);
  graph.input("w", "float32", [WIDTH, WIDTH]);
  graph.node("MatMul", ["x", "w"], "y");
  graph.output("y", "float32", [1, WIDTH]);
  return graph.toModel();
}

function values(count: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  return Float32Array.from({ length: count }, () => (random.uint32() / 2 ** 32 - 0.5) / 4);
}

/** Through all layers, by tensors of the CPU and by leases; with what the heap did for it. */
export async function runOnHeapBuffers() {
  const { device } = await openDevice();
  const ort = await loadRuntime();
  const executionProviders = [{ name: "webgpu", device: device as unknown as GPUDevice }] as const;
  const session = await ort.InferenceSession.create(buildLayer(), {
    ...OPTIONS,
    executionProviders,
  });
  const layers = Array.from({ length: LAYER_COUNT }, (_, index) => values(WIDTH ** 2, index));
  let x = values(WIDTH, 99);
  for (const layer of layers) {
    const { y } = await session.run({
      x: new ort.Tensor("float32", x, [1, WIDTH]),
      w: new ort.Tensor("float32", layer, [WIDTH, WIDTH]),
    });
    x = (await y?.getData()) as Float32Array;
  }
  const expected = [...x];

  // Room for five of the twelve.
  const memory = await createTensorMemory({
    budgets: { ram: "16MiB", gpu: 5 * 4 * WIDTH ** 2 + 1024 },
    gpu: webgpuTier({ device }),
  });
  const put = (id: string, shape: readonly number[], elements: Float32Array) => {
    using pin = memory.allocate({ kind: "PARAMETERS", id, shape, dtype: "f32" }).pin();
    pin.view.set(elements);
  };
  for (const [index, layer] of layers.entries()) put(`w${index}`, [WIDTH, WIDTH], layer);
  const acquire = async (id: string, access: "read" | "overwrite") => {
    const lease = await memory.gpu?.acquire(id, { access });
    if (lease == null) throw new Error(`${id} is not there`);
    return lease;
  };
  const seen = ({ buffer, shape }: GpuLease) =>
    ort.Tensor.fromGpuBuffer(buffer as never, { dataType: "float32", dims: shape });
  const answers: number[][] = [];
  for (let pass = 0; pass < 3; pass++) {
    put("0", [1, WIDTH], values(WIDTH, 99));
    for (let index = 0; index < LAYER_COUNT; index++) {
      put(`${index + 1}`, [1, WIDTH], new Float32Array(WIDTH));
      using weights = await acquire(`w${index}`, "read");
      using result = await acquire(`${index + 1}`, "overwrite");
      using input = await acquire(`${index}`, "read");
      // The next layer's weights come up while this one is computed.
      const next = memory.gpu?.prefetch([`w${(index + 1) % LAYER_COUNT}`]);
      await session.run({ x: seen(input), w: seen(weights) }, { y: seen(result) });
      await next;
    }
    using lease = await memory.acquire<"f32">(`${LAYER_COUNT}`, { access: "read" });
    answers.push([...(lease?.view ?? [])]);
    for (let index = 0; index < LAYER_COUNT; index++) memory.free(`${index}`);
    lease?.[Symbol.dispose]();
    memory.free(`${LAYER_COUNT}`);
  }
  const stats = memory.gpu?.stats();
  const { problems } = memory.verify();
  await memory.close();
  await session.release();
  return { expected, answers, stats, problems };
}
