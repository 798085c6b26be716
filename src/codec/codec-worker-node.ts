// The script of a coding worker in Node.
import { parentPort } from "node:worker_threads";
import { serveCodec } from "./worker-messages.js";

if (parentPort !== null) {
  const port = parentPort;
  const take = serveCodec((answer, transfer) => port.postMessage(answer, transfer));
  port.on("message", (message) => void take(message));
}
