import { expose } from "./app.js";

// Nothing is bundled: the package's files are served as they are.
const dist = "./node_modules/tierheap/dist/src";

expose({
  createStore: () => new Worker(`${dist}/tier/opfs-worker.js`, { type: "module" }),
  createCodec: () => new Worker(`${dist}/codec/codec-worker-browser.js`, { type: "module" }),
});
