import * as abi from "../../assembly/abi";
import { statsCharge, statsClaim, statsDischarge, statsRelease } from "../../assembly/stats";
import { plane, poolAddress } from "./support";

describe("stats", () => {
  test("counts current bytes and peaks of one pool and leaves the others alone", () => {
    const base = plane(4, 2, 1);
    statsCharge(base, 3, 100);
    statsCharge(base, 3, 50);
    statsDischarge(base, 3, 100);
    statsCharge(base, 3, 10);
    statsClaim(base, 3, 192);
    statsRelease(base, 3, 128);
    statsClaim(base, 3, 64);
    const row = poolAddress(base, 3);
    expect<u64>(load<u64>(row, abi.POOL_OFF_REQUESTED_PEAK)).toBe(150);
    expect<u64>(load<u64>(row, abi.POOL_OFF_HEADROOM)).toBe(90, "60 are requested");
    expect<u64>(load<u64>(row, abi.POOL_OFF_CLAIMED)).toBe(128);
    expect<u64>(load<u64>(row, abi.POOL_OFF_CLAIMED_PEAK)).toBe(192);
    statsCharge(base, 3, 91);
    expect<u64>(load<u64>(row, abi.POOL_OFF_REQUESTED_PEAK)).toBe(151);
    expect<u64>(load<u64>(row, abi.POOL_OFF_HEADROOM)).toBe(0);
    for (let i: u32 = 0; i < 8; i++) {
      expect<u64>(load<u64>(poolAddress(base, 2) + 8 * i)).toBe(0);
      expect<u64>(load<u64>(poolAddress(base, 4) + 8 * i)).toBe(0);
    }
  });
});
