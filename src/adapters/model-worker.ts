// Subpath tierheap/adapters/model-worker: a model in a worker that can be ended and started again without its chats losing
// their KV. The page uses `openModelWorker`, the worker's module `serveModel`.
export type { KvState } from "./model-worker/messages.js";
export {
  ModelWorker,
  type ModelWorkerOptions,
  type ModelWorkerStats,
  openModelWorker,
} from "./model-worker/model-worker.js";
export { serveModel, type WorkerModel } from "./model-worker/serve-model.js";
