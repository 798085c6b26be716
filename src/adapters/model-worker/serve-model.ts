// The far side of a model worker: runs the caller's model, tells how long its heap has become, and gives
// the KV of chats out and in.
import { watchMemories } from "../../core/watch-memories.js";
import { buffersOf, type KvState, type ModelReply, type NumberedRequest } from "./messages.js";

/** A model, as it lives in a worker. Its methods are called one after the other. */
export interface WorkerModel {
  /**
   * One turn of a chat. Where {@link resume} was not called for it, or with an older state, the model computes what is missing:
   * after a worker has ended by itself, the state is that of the last suspension.
   *
   * @returns What the page gets; structured-cloned.
   */
  run(chat: string, input: unknown): Promise<unknown>;
  /** Gives the KV of a chat up. @returns null when it has none. */
  suspend(chat: string): Promise<KvState | null>;
  /** Takes the KV of a chat that is not here. */
  resume(chat: string, state: KvState): Promise<void>;
  /** Drops a chat. */
  forget(chat: string): Promise<void>;
}

/** lib.dom describes a page; this is the part of a worker's scope that is used. */
interface WorkerScope {
  postMessage(message: ModelReply, transfer: ArrayBuffer[]): void;
  addEventListener(
    type: "message",
    listener: (event: { readonly data: NumberedRequest }) => void,
  ): void;
}

/**
 * Makes this worker one that `openModelWorker` can start. Called once, at the top of the worker's module and before a
 * runtime is loaded: memories that exist by then are not counted.
 *
 * @param create Makes the model, from what `openModelWorker` was given as `init`. Called at every start.
 */
export function serveModel(create: (init: unknown) => Promise<WorkerModel>): void {
  const heapBytes = watchMemories();
  const scope = globalThis as unknown as WorkerScope;
  let model: WorkerModel | null = null;
  const answer = async (request: NumberedRequest): Promise<unknown> => {
    if (request.type === "start") {
      model = await create(request.init);
      return null;
    }
    if (model === null) throw new Error("the model was not started");
    const { chat } = request;
    if (request.type === "suspend") return model.suspend(chat);
    if (request.type === "forget") return model.forget(chat);
    if (request.state !== null) await model.resume(chat, request.state);
    return model.run(chat, request.input);
  };
  const reply = async (request: NumberedRequest): Promise<void> => {
    const { id, type } = request;
    try {
      const value = await answer(request);
      const transfer = type === "suspend" ? buffersOf(value as KvState | null) : [];
      scope.postMessage({ id, value, heapBytes: heapBytes() }, transfer);
    } catch (error) {
      scope.postMessage({ id, message: String(error) }, []);
    }
  };
  let queue = Promise.resolve();
  scope.addEventListener("message", ({ data }) => {
    // It never rejects: what fails is its own reply.
    queue = queue.then(() => reply(data));
  });
}
