import { CONTROL_OFF_STATUS, STATUS_NO_ROOM } from "../../assembly/abi";
import { controlAt, controlRefuse } from "../../assembly/control";
import { plane } from "./support";

describe("control", () => {
  test("a refusal returns 0 and leaves its status in the header", () => {
    const base = plane(4, 2, 1);
    expect<u32>(controlRefuse(base, STATUS_NO_ROOM)).toBe(0);
    expect<u32>(load<u32>(base, CONTROL_OFF_STATUS)).toBe(STATUS_NO_ROOM);
    expect<u32>(controlAt(base).status).toBe(STATUS_NO_ROOM);
  });
});
