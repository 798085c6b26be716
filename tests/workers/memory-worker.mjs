// A thread with tensors of its own: doubles what it is given and gives it back.
import { parentPort, workerData } from "node:worker_threads";
import { attachTensorMemory } from "../../dist/src/node.js";

const memory = await attachTensorMemory(workerData.token);
const own = Array.from({ length: 5 }, (_, index) => memory.allocate({ byteLength: 1000 + index }));

parentPort.on("message", (message) => {
  const tensor = memory.adopt(message);
  const pin = tensor.pin();
  for (let index = 0; index < pin.view.length; index++) pin.view[index] *= 2;
  pin[Symbol.dispose]();
  parentPort.postMessage(tensor.handOver());
  if (own.length !== 5) throw new Error("unreachable");
});
