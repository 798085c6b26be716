// Decoding with onnxruntime-web inside a page, put on `window` for the tests.
import { runWasm } from "./wasm.js";

const api = { runWasm };

declare global {
  interface Window {
    ortWeb: typeof api;
  }
}

window.ortWeb = api;
