// The package as browsers see it.
// biome-ignore assist/source/organizeImports: the symbols must exist before any class is defined.
import "./util/dispose-symbols.js";
export * from "./index.js";
export { createTensorMemory } from "./presets/browser.js";
