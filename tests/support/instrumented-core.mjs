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
const COUNTDOWN = "countdown";

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

function instrument(module, expression, how) {
  const { isBroken, isCounted } = how;
  const id = binaryen.getExpressionId(expression);
  if (id === binaryen.BlockId) {
    const count = binaryen.Block.getNumChildren(expression);
    for (let index = 0; index < count; index++) {
      const child = binaryen.Block.getChildAt(expression, index);
      binaryen.Block.setChildAt(expression, index, instrument(module, child, how));
    }
    return expression;
  }
  if (id === binaryen.IfId) {
    binaryen.If.setIfTrue(expression, instrument(module, binaryen.If.getIfTrue(expression), how));
    const otherwise = binaryen.If.getIfFalse(expression);
    if (otherwise) binaryen.If.setIfFalse(expression, instrument(module, otherwise, how));
    return expression;
  }
  if (id === binaryen.LoopId) {
    binaryen.Loop.setBody(expression, instrument(module, binaryen.Loop.getBody(expression), how));
    return expression;
  }
  const kind = kindOf(expression);
  if (kind === null) return expression;
  const call = () => touchCall(module, kind, isCounted);
  const value = binaryen.getExpressionId(expression) === binaryen.LocalSetId;
  const set = value ? binaryen.LocalSet.getValue(expression) : 0;
  if (isBroken && set !== 0 && binaryen.getExpressionId(set) === binaryen.AtomicCmpxchgId) {
    return module.block(null, breakApart(module, expression, set, call));
  }
  return module.block(null, [call(), expression]);
}

/** The call before an access; of plain ones only when the countdown has come to its end. */
function touchCall(module, kind, isCounted) {
  const call = module.call(TOUCH, [module.i32.const(kind)], binaryen.none);
  if (!isCounted || kind === TOUCH_ATOMIC) return call;
  const left = () => module.global.get(COUNTDOWN, binaryen.i32);
  return module.block(null, [
    module.global.set(COUNTDOWN, module.i32.sub(left(), module.i32.const(1))),
    module.if(module.i32.eqz(left()), call),
  ]);
}

/** A compare and exchange as a load and a store: what a lock may not be made of. */
function breakApart(module, expression, set, call) {
  const info = binaryen.AtomicCmpxchg;
  const copy = (part) => module.copyExpression(part);
  const index = binaryen.LocalSet.getIndex(expression);
  const seen = () => module.local.get(index, binaryen.i32);
  const offset = info.getOffset(set);
  const load = module.i32.load(offset, 4, copy(info.getPtr(set)));
  const store = module.i32.store(offset, 4, copy(info.getPtr(set)), copy(info.getReplacement(set)));
  const isExpected = module.i32.eq(seen(), copy(info.getExpected(set)));
  return [call(), module.local.set(index, load), call(), module.if(isExpected, store)];
}

/**
 * @param options.isResumable The module can be left in `env.touch` and entered again later (asyncify).
 *   Before accesses that are not atomic it then calls only when its global `countdown` reaches 0.
 * @param options.isBroken Its compare and exchange is none: a planted fault.
 * @returns A module that imports `env.touch(kind)` besides what it imported before.
 */
export function instrumentCore(bytes, { isResumable = false, isBroken = false } = {}) {
  const module = binaryen.readBinary(bytes);
  module.setFeatures(binaryen.Features.All);
  module.runPasses(["flatten"]);
  module.addFunctionImport(TOUCH, "env", TOUCH, binaryen.i32, binaryen.none);
  if (isResumable) {
    module.addGlobal(COUNTDOWN, binaryen.i32, true, module.i32.const(0));
    module.addGlobalExport(COUNTDOWN, COUNTDOWN);
  }
  const how = { isBroken, isCounted: isResumable };
  for (let index = 0; index < module.getNumFunctions(); index++) {
    const func = module.getFunctionByIndex(index);
    const { base } = binaryen.getFunctionInfo(func);
    if (base !== "") continue;
    binaryen.Function.setBody(func, instrument(module, binaryen.Function.getBody(func), how));
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
