// The built core with a call before every access to its memory, so that a test can cut a change off
// at any store, or take turns between two instances at any access. It is the release module itself,
// flattened and instrumented, not a model of it. Not TypeScript, because the types of binaryen lack
// most of what is used here.
import binaryen from "binaryen";

/** What the module is about to do. */
export const TOUCH_LOAD = 0;
export const TOUCH_STORE = 1;
export const TOUCH_ATOMIC = 2;

const TOUCH = "touch";

/** Kind of the access that a flattened statement makes, or null if it makes none. */
function kindOf(expression) {
  const id = binaryen.getExpressionId(expression);
  if (id === binaryen.LocalSetId) {
    const value = binaryen.LocalSet.getValue(expression);
    const valueId = binaryen.getExpressionId(value);
    if (valueId === binaryen.LoadId)
      return binaryen.Load.isAtomic(value) ? TOUCH_ATOMIC : TOUCH_LOAD;
    const isAtomic = valueId === binaryen.AtomicRMWId || valueId === binaryen.AtomicCmpxchgId;
    return isAtomic ? TOUCH_ATOMIC : null;
  }
  if (id === binaryen.StoreId) {
    return binaryen.Store.isAtomic(expression) ? TOUCH_ATOMIC : TOUCH_STORE;
  }
  return id === binaryen.MemoryFillId || id === binaryen.MemoryCopyId ? TOUCH_STORE : null;
}

function instrument(module, expression) {
  const id = binaryen.getExpressionId(expression);
  if (id === binaryen.BlockId) {
    const count = binaryen.Block.getNumChildren(expression);
    for (let index = 0; index < count; index++) {
      const child = binaryen.Block.getChildAt(expression, index);
      binaryen.Block.setChildAt(expression, index, instrument(module, child));
    }
    return expression;
  }
  if (id === binaryen.IfId) {
    binaryen.If.setIfTrue(expression, instrument(module, binaryen.If.getIfTrue(expression)));
    const otherwise = binaryen.If.getIfFalse(expression);
    if (otherwise) binaryen.If.setIfFalse(expression, instrument(module, otherwise));
    return expression;
  }
  if (id === binaryen.LoopId) {
    binaryen.Loop.setBody(expression, instrument(module, binaryen.Loop.getBody(expression)));
    return expression;
  }
  const kind = kindOf(expression);
  if (kind === null) return expression;
  const call = module.call(TOUCH, [module.i32.const(kind)], binaryen.none);
  return module.block(null, [call, expression]);
}

/**
 * @param options.isResumable The module can be left in `env.touch` and entered again later (asyncify).
 * @returns A module that imports `env.touch(kind)` besides what it imported before.
 */
export function instrumentCore(bytes, { isResumable = false } = {}) {
  const module = binaryen.readBinary(bytes);
  module.setFeatures(binaryen.Features.All);
  module.runPasses(["flatten"]);
  module.addFunctionImport(TOUCH, "env", TOUCH, binaryen.i32, binaryen.none);
  for (let index = 0; index < module.getNumFunctions(); index++) {
    const func = module.getFunctionByIndex(index);
    const { base } = binaryen.getFunctionInfo(func);
    if (base !== "") continue;
    binaryen.Function.setBody(func, instrument(module, binaryen.Function.getBody(func)));
  }
  module.runPasses(["simplify-locals", "coalesce-locals", "vacuum"]);
  if (isResumable) {
    binaryen.setPassArgument("asyncify-imports", `env.${TOUCH}`);
    module.runPasses(["asyncify"]);
  }
  module.optimize();
  if (!module.validate()) throw new Error("the instrumented module is not valid");
  const binary = module.emitBinary();
  module.dispose();
  return new WebAssembly.Module(binary);
}
