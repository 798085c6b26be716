import { expose } from "./app.js";

expose({
  createStore: () => new Worker(new URL("./store-worker.ts", import.meta.url), { type: "module" }),
  createCodec: () => new Worker(new URL("./codec-worker.ts", import.meta.url), { type: "module" }),
});
