import { PANIC_ADDRESS } from "../../assembly/abi";
import { onAbort } from "../../assembly/panic";

describe("panic", () => {
  test("leaves line and column in the panic record and traps", () => {
    expect(() => {
      onAbort(0, 0, 123, 45);
    }).toThrow();
    expect<u32>(load<u32>(PANIC_ADDRESS)).toBe(123);
    expect<u32>(load<u32>(PANIC_ADDRESS, 4)).toBe(45);
  });
});
