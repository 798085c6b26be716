// Orders and widths of elements by themselves: `tierheap/layout`. Nothing here needs a tensor memory.
export {
  type Elements,
  type FloatDtype,
  type HeadShape,
  type ImageShape,
  type LayoutKernels,
  type LayoutKernelsOptions,
  openLayoutKernels,
  type PagedShape,
  type SwapShape,
} from "./codec/layout-kernels.js";
