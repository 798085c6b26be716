import { CONTROL_OFF_GUARD } from "../../assembly/abi";
import { lockLeave, lockTryEnter } from "../../assembly/lock";
import { plane } from "./support";

describe("lock", () => {
  test("admits one holder and marks the plane as long as it is held", () => {
    const base = plane(4, 2, 1);
    expect<bool>(lockTryEnter(base)).toBe(true);
    expect<u32>(load<u32>(base, CONTROL_OFF_GUARD)).not.toBe(0);
    expect<bool>(lockTryEnter(base)).toBe(false);
    lockLeave(base);
    expect<u32>(load<u32>(base, CONTROL_OFF_GUARD)).toBe(0);
    expect<bool>(lockTryEnter(base)).toBe(true);
  });
});
