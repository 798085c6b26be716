// The package as Node sees it.
export * from "./index.js";
export { createTensorMemory } from "./presets/node.js";
export { featureRows } from "./stats/report.js";
