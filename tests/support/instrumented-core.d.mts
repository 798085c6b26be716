export const TOUCH_LOAD: 0;
export const TOUCH_STORE: 1;
export const TOUCH_ATOMIC: 2;
export function instrumentCore(
  bytes: Uint8Array,
  options?: { readonly isResumable?: boolean; readonly isBroken?: boolean },
): WebAssembly.Module;
