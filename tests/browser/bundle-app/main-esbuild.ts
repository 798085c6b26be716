import { expose } from "./app.js";

// They are entries of the build, beside this one.
expose({
  createStore: () => new Worker("./store-worker.js", { type: "module" }),
  createCodec: () => new Worker("./codec-worker.js", { type: "module" }),
});
