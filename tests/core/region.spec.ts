import * as abi from "../../assembly/abi";
import { formatBytes, formatInit } from "../../assembly/format";
import { FreeExtent, regionClaim, regionRelease } from "../../assembly/region";
import { Random, garbage } from "./support";

const REGION_BYTES: u32 = 64 * 64;

function create(regionBytes: u32): u32 {
  const bytes = formatBytes(2, 2, regionBytes);
  const base = garbage(bytes);
  formatInit(base, bytes, 2, 2);
  return base;
}

/** Whether the free list is one extent over the whole region. */
function isWhole(base: u32): bool {
  const head = load<u32>(base, abi.CONTROL_OFF_REGION_FREE_HEAD);
  if (head != load<u32>(base, abi.CONTROL_OFF_REGION)) return false;
  const extent = changetype<FreeExtent>(base + head);
  return extent.bytes == REGION_BYTES && extent.nextOffset == 0;
}

describe("region", () => {
  test("claims first fit, rounds up and refuses when nothing is long enough", () => {
    const base = create(REGION_BYTES);
    const region = load<u32>(base, abi.CONTROL_OFF_REGION);
    expect<u32>(regionClaim(base, 1)).toBe(region);
    expect<u32>(regionClaim(base, 65)).toBe(region + 64);
    expect<u32>(regionClaim(base, REGION_BYTES - 128)).toBe(0);
    expect<u32>(regionClaim(base, REGION_BYTES - 192)).toBe(region + 192);
    expect<u32>(regionClaim(base, 1)).toBe(0);
    regionRelease(base, region + 64, 65);
    expect<u32>(regionClaim(base, 64)).toBe(region + 64);
  });

  test("joins with the extent below, above and both", () => {
    const base = create(REGION_BYTES);
    const a = regionClaim(base, 64);
    const b = regionClaim(base, 64);
    const c = regionClaim(base, 64);
    regionRelease(base, b, 64);
    regionRelease(base, a, 64);
    expect<u32>(changetype<FreeExtent>(base + a).bytes).toBe(128);
    regionRelease(base, c, 64);
    expect<bool>(isWhole(base)).toBe(true);
  });

  test("works without any region", () => {
    expect<u32>(regionClaim(create(0), 64)).toBe(0);
  });

  test("equals a map of lines over 20,000 steps, seed 0x9e3779b9", () => {
    const base = create(REGION_BYTES);
    const region = load<u32>(base, abi.CONTROL_OFF_REGION);
    const owner = new StaticArray<u32>(64);
    const random = new Random(0x9e3779b9);
    for (let step: u32 = 1; step <= 20000; step++) {
      const line = random.below(64);
      if (owner[line] != 0) {
        let first = line;
        while (first > 0 && owner[first - 1] == owner[line]) first -= 1;
        let end = line + 1;
        while (end < 64 && owner[end] == owner[line]) end += 1;
        regionRelease(base, region + first * 64, (end - first) * 64);
        for (let i = first; i < end; i++) owner[i] = 0;
        continue;
      }
      const lines = 1 + random.below(9);
      let wanted: u32 = 64;
      let run: u32 = 0;
      for (let i: u32 = 0; i < 64 && wanted == 64; i++) {
        run = owner[i] == 0 ? run + 1 : 0;
        if (run == lines) wanted = i + 1 - lines;
      }
      const offset = regionClaim(base, lines * 64);
      const expected = wanted == 64 ? 0 : region + wanted * 64;
      if (offset != expected) expect<u32>(offset).toBe(expected);
      if (offset != 0) for (let i = wanted; i < wanted + lines; i++) owner[i] = step;
    }
    for (let i: u32 = 0; i < 64; i++) {
      if (owner[i] == 0) continue;
      const step = owner[i];
      let end = i;
      while (end < 64 && owner[end] == step) owner[end++] = 0;
      regionRelease(base, region + i * 64, (end - i) * 64);
    }
    expect<bool>(isWhole(base)).toBe(true);
  });
});
