// Decoding with onnxruntime-web inside a page, put on `window` for the tests.
import { hasAdapter, runGpu } from "./gpu.js";
import {
  countCreated,
  crowd,
  goOnAfterLoss,
  loseDevice,
  misuses,
  poolRefusals,
  suspendBetweenTurns,
} from "./gpu-scenarios.js";
import { runOnHeapBuffers } from "./heap-buffers.js";
import { closeModel, openModel, putAway, speak, speakBare, statsOfModel } from "./model-owner.js";
import { runWasm } from "./wasm.js";

const api = {
  runWasm,
  hasAdapter,
  runGpu,
  countCreated,
  suspendBetweenTurns,
  crowd,
  poolRefusals,
  misuses,
  loseDevice,
  goOnAfterLoss,
  runOnHeapBuffers,
  openModel,
  speak,
  speakBare,
  putAway,
  statsOfModel,
  closeModel,
};

declare global {
  interface Window {
    ortWeb: typeof api;
  }
}

window.ortWeb = api;
