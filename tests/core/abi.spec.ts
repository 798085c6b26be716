import * as abi from "../../assembly/abi";

describe("abi", () => {
  test("the highest order is one block of the largest arena", () => {
    expect<u32>(1 << (abi.ORDER_COUNT_MAX - 1)).toBe(abi.ARENA_GRANULES_MAX);
  });

  test("the levels reach over the largest arena, and no order is taken for ORDER_WHOLE", () => {
    expect<bool>((<u64>1) << (6 * abi.LEVEL_COUNT_MAX) >= <u64>abi.ARENA_GRANULES_MAX).toBe(true);
    expect<i32>(abi.ORDER_WHOLE).toBeGreaterThan(abi.ORDER_COUNT_MAX);
  });

  test("statuses lie below all invariant codes", () => {
    expect<i32>(abi.STATUS_BAD_MAGIC).toBeLessThan(abi.INV_TREE_1);
  });
});
