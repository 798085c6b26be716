import * as abi from "../../assembly/abi";
import { formatAttach, formatBytes, formatInit } from "../../assembly/format";
import { garbage, plane } from "./support";

describe("format", () => {
  test("computes 0 bytes for capacities out of range and for a sum beyond 32 bits", () => {
    expect<u32>(formatBytes(1, 2, 0)).toBe(0);
    expect<u32>(formatBytes(abi.SLOT_CAPACITY_MAX + 1, 2, 0)).toBe(0);
    expect<u32>(formatBytes(2, 1, 0)).toBe(0);
    expect<u32>(formatBytes(2, abi.ARENA_CAPACITY_MAX + 1, 0)).toBe(0);
    expect<u32>(formatBytes(2, 2, u32.MAX_VALUE)).toBe(0);
    expect<u32>(formatBytes(abi.SLOT_CAPACITY_MAX, abi.ARENA_CAPACITY_MAX, 0)).not.toBe(0);
    expect<u32>(formatBytes(2, 2, 64)).toBe(formatBytes(2, 2, 0) + 64);
  });

  test("STATUS_OK: formats garbage and writes row 0 of the slot tables only", () => {
    const bytes = formatBytes(100, 4, 1024);
    const base = garbage(bytes);
    expect<u32>(formatInit(base, bytes, 100, 4)).toBe(abi.STATUS_OK);
    expect<u32>(formatAttach(base)).toBe(abi.STATUS_OK);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_GUARD)).toBe(0);
    const hot = base + load<u32>(base, abi.CONTROL_OFF_HOT);
    const cold = base + load<u32>(base, abi.CONTROL_OFF_COLD);
    expect<u64>(load<u64>(hot)).toBe(0);
    for (let i: u32 = abi.HOT_BYTES; i < 100 * abi.HOT_BYTES; i++) {
      if (load<u8>(hot + i) != 0xa5) expect<u32>(i).toBe(0, "written");
    }
    for (let i: u32 = abi.COLD_BYTES; i < 100 * abi.COLD_BYTES; i++) {
      if (load<u8>(cold + i) != 0xa5) expect<u32>(i).toBe(0, "written");
    }
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_REGION_BYTES)).toBe(1024);
  });

  test("STATUS_BAD_ARGUMENT: refuses what does not fit, is unaligned or lies outside", () => {
    const bytes = formatBytes(100, 4, 0);
    const base = garbage(bytes);
    expect<u32>(formatInit(base, bytes - 1, 100, 4)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(formatInit(base + 16, bytes, 100, 4)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(formatInit(base, u32.MAX_VALUE, 100, 4)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(formatInit(base, bytes, 1, 4)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(formatInit(base, bytes, 100, 0)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(load<u32>(base)).toBe(0xa5a5a5a5, "a refusal writes nothing");
  });

  test("STATUS_BAD_MAGIC: refuses another magic, version, or layout", () => {
    const words: u32[] = [
      abi.CONTROL_OFF_MAGIC,
      abi.CONTROL_OFF_ABI_VERSION,
      abi.CONTROL_OFF_TOTAL_BYTES,
      abi.CONTROL_OFF_SLOT_CAPACITY,
      abi.CONTROL_OFF_HOT,
      abi.CONTROL_OFF_COLD,
      abi.CONTROL_OFF_ARENAS,
      abi.CONTROL_OFF_ARENA_CAPACITY,
      abi.CONTROL_OFF_POOLS,
      abi.CONTROL_OFF_REGION,
      abi.CONTROL_OFF_REGION_BYTES,
    ];
    const base = plane(100, 4, 64);
    for (let i = 0; i < words.length; i++) {
      const word = base + words[i];
      const before = load<u32>(word);
      store<u32>(word, before + 64);
      expect<u32>(formatAttach(base)).toBe(abi.STATUS_BAD_MAGIC);
      store<u32>(word, before);
    }
    expect<u32>(formatAttach(base)).toBe(abi.STATUS_OK);
    expect<u32>(formatAttach(base + 64)).toBe(abi.STATUS_BAD_MAGIC);
    expect<u32>(formatAttach(0xffffffc0)).toBe(abi.STATUS_BAD_MAGIC);
  });
});
