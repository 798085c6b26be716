import * as abi from "../../assembly/abi";
import { statsCharge, statsDischarge } from "../../assembly/stats";
import { plane, poolAddress } from "./support";

describe("stats", () => {
  test("counts current, peak and total of one pool and leaves the others alone", () => {
    const base = plane(4, 2, 1);
    statsCharge(base, 3, 100, 128);
    statsCharge(base, 3, 50, 64);
    statsDischarge(base, 3, 100, 128);
    statsCharge(base, 3, 10, 64);
    const row = poolAddress(base, 3);
    expect<u64>(load<u64>(row, abi.POOL_OFF_REQUESTED)).toBe(60);
    expect<u64>(load<u64>(row, abi.POOL_OFF_REQUESTED_PEAK)).toBe(150);
    expect<u64>(load<u64>(row, abi.POOL_OFF_REQUESTED_TOTAL)).toBe(160);
    expect<u64>(load<u64>(row, abi.POOL_OFF_GRANTED)).toBe(128);
    expect<u64>(load<u64>(row, abi.POOL_OFF_GRANTED_PEAK)).toBe(192);
    expect<u64>(load<u64>(row, abi.POOL_OFF_GRANTED_TOTAL)).toBe(256);
    expect<u64>(load<u64>(row, abi.POOL_OFF_ALLOCATIONS)).toBe(3);
    expect<u32>(load<u32>(row, abi.POOL_OFF_LIVE_COUNT)).toBe(2);
    expect<u32>(load<u32>(row, abi.POOL_OFF_LIVE_COUNT_PEAK)).toBe(2);
    for (let i: u32 = 0; i < 8; i++) {
      expect<u64>(load<u64>(poolAddress(base, 2) + 8 * i)).toBe(0);
      expect<u64>(load<u64>(poolAddress(base, 4) + 8 * i)).toBe(0);
    }
  });
});
