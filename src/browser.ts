// The package as browsers see it.
export * from "./index.js";
export { createTensorMemory } from "./presets/browser.js";
