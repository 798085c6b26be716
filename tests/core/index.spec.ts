import * as abi from "../../assembly/abi";
import {
  arenaAllocate,
  arenaAllocateWhole,
  arenaClose,
  arenaMetadataBytes,
  arenaOpen,
  check,
  compactBegin,
  compactCommit,
  compactNext,
  compactVeto,
  controlAttach,
  controlBytes,
  controlHeapBase,
  controlInit,
  slotFree,
  slotPin,
  slotResolve,
  slotUnpin,
} from "../../assembly/index";
import { GRANULE_SHIFT, garbage, planeWithArena, status } from "./support";

describe("control plane", () => {
  test("STATUS_OK: formats, attaches, allocates, pins, frees and closes", () => {
    expect<u32>(controlHeapBase() % 64).toBe(0);
    const bytes = controlBytes(4, 2, arenaMetadataBytes(16, GRANULE_SHIFT));
    const base = garbage(bytes);
    expect<u32>(controlInit(base, bytes, 4, 2)).toBe(abi.STATUS_OK);
    expect<u32>(controlAttach(base)).toBe(abi.STATUS_OK);
    expect<u32>(arenaOpen(base, 0, 16, GRANULE_SHIFT)).toBe(1);
    expect<u32>(arenaAllocate(base, 1, 100, 1)).toBe(1);
    expect<u32>(slotPin(base, 1, 1)).toBe(1);
    expect<u32>(slotUnpin(base, 1, 1)).toBe(abi.STATUS_OK);
    expect<u32>(slotResolve(base, 1, 1)).toBe(abi.STATUS_OK);
    expect<u32>(slotFree(base, 1, 1)).toBe(abi.STATUS_OK);
    expect<u32>(arenaClose(base, 1)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_BAD_MAGIC: attach and check refuse memory without a control plane", () => {
    const base = garbage(4096);
    expect<u32>(controlAttach(base)).toBe(abi.STATUS_BAD_MAGIC);
    expect<u32>(check(base)).toBe(abi.STATUS_BAD_MAGIC);
  });

  test("STATUS_BUSY: every export that changes something refuses while the guard is held", () => {
    const base = planeWithArena(8, 16);
    const slot = arenaAllocate(base, 1, 1, 1);
    store<u32>(base, 1, abi.CONTROL_OFF_GUARD);
    expect<u32>(arenaOpen(base, 0, 1, GRANULE_SHIFT)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_BUSY);
    expect<u32>(arenaAllocate(base, 1, 1, 1)).toBe(0);
    expect<u32>(arenaAllocateWhole(base, 1, 1)).toBe(0);
    expect<u32>(slotPin(base, slot, 1)).toBe(0);
    expect<u32>(compactBegin(base, 1, 0, false)).toBe(0);
    expect<u32>(compactNext(base)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_BUSY);
    expect<u32>(arenaClose(base, 1)).toBe(abi.STATUS_BUSY);
    expect<u32>(slotFree(base, slot, 1)).toBe(abi.STATUS_BUSY);
    expect<u32>(slotUnpin(base, slot, 1)).toBe(abi.STATUS_BUSY);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_BUSY);
    expect<u32>(compactVeto(base)).toBe(abi.STATUS_BUSY);
    expect<u32>(check(base)).toBe(abi.STATUS_BUSY);
    expect<u32>(slotResolve(base, slot, 1)).toBe(abi.STATUS_OK, "reading needs no guard");
    store<u32>(base, 0, abi.CONTROL_OFF_GUARD);
    expect<u32>(check(base)).toBe(0, "nothing was changed");
  });

  test("every export leaves the guard behind, also when it refuses", () => {
    const base = planeWithArena(8, 16);
    arenaOpen(base, 99, 1, 1);
    arenaClose(base, 9);
    arenaAllocate(base, 9, 1, 1);
    arenaAllocateWhole(base, 9, 1);
    slotFree(base, 9, 1);
    slotPin(base, 9, 1);
    slotUnpin(base, 9, 1);
    compactBegin(base, 9, 0, false);
    compactNext(base);
    compactCommit(base);
    compactVeto(base);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_GUARD)).toBe(0);
    expect<u32>(check(base)).toBe(0);
  });
});
