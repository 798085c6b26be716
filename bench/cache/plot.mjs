// The plot is the one of `npx tierheap replay`.
export { linePlot } from "../../dist/src/cli/line-plot.js";
