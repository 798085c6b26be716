// The script of a coding worker in browsers.
import { serveCodec } from "./worker-messages.js";

/** lib.dom describes a page; this is the part of a worker's scope that is used. */
interface WorkerScope {
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
  addEventListener(type: "message", listener: (event: { readonly data: unknown }) => void): void;
}

const scope = globalThis as unknown as WorkerScope;
const take = serveCodec((answer, transfer) => scope.postMessage(answer, transfer));
scope.addEventListener("message", ({ data }) => void take(data));
