// Every code of the core is reached in every build: each status by a call, each invariant by damage.
// Damage is done word by word to a control plane in use, so this knows no layout; the specs of
// assembly/check.ts show which word each invariant is about.
import { describe, expect, it } from "vitest";
import * as abi from "../../assembly/abi.js";
import type { ControlPlane } from "../../src/core/control-plane.js";
import { type CoreExports, instantiateCore } from "../../src/core/wasm-modules.js";
import { BUILDS, moduleOf, openPlane, statusWordOf } from "../proof/builds.mjs";

const CODES: Readonly<Record<string, unknown>> = { ...abi };
const namesOf = (prefix: string) => Object.keys(CODES).filter((name) => name.startsWith(prefix));

interface Opened {
  readonly core: CoreExports;
  readonly base: number;
  readonly plane: ControlPlane;
  readonly words: Int32Array;
}

async function open(build: string, slotCount = 40): Promise<Opened> {
  const arenas = [
    { capacityBytes: 2 ** 22, granuleShift: 6 },
    { capacityBytes: 2 ** 13, granuleShift: 6 },
    { capacityBytes: 2 ** 12, granuleShift: 6 },
  ];
  const { plane, memory } = await openPlane({ build, arenas, slotCount });
  const core = await instantiateCore(memory, await moduleOf(build));
  const base = core.controlHeapBase();
  return { core, base, plane, words: new Int32Array(memory.buffer) };
}

// --- Invariants ------------------------------------------------------------------------------------

/** A slab arena, one slab of it mixed, and a plain one, with live, pinned, cached and freed blocks and a gap in the region. */
function populate(plane: ControlPlane): void {
  const slabs = plane.openArena(1, 2 ** 22, 6);
  const gap = plane.openArena(0, 2 ** 12, 6);
  const plain = plane.openArena(2, 2 ** 13, 6);
  plane.closeArena(gap);
  const slots: number[] = [plane.allocate(slabs, 8192, 1)];
  plane.beginCompaction(slabs);
  while (plane.nextMove() !== null) plane.vetoMove();
  for (const bytes of [64, 64, 64, 300, 300, 8192, 20_000, 40_000, 40_000, 300_000]) {
    slots.push(plane.allocate(slabs, bytes, 1));
  }
  for (const bytes of [64, 100, 64, 512, 64, 64, 1024]) {
    slots.push(plane.allocate(plain, bytes, 1));
  }
  slots.forEach((slot, index) => {
    const generation = plane.generationOf(slot);
    if (index % 3 === 1) plane.free(slot, generation);
    else if (index % 5 === 0) plane.pin(slot, generation);
  });
}

const DAMAGE: readonly ((word: number) => number)[] = [
  (word) => word + 1,
  (word) => word - 1,
  (word) => word ^ 0x100,
  (word) => word ^ 0x1_0000,
  (word) => word ^ 0x0100_0000,
  (word) => ~word,
  () => 0,
];

/** Codes that `check` gives for one damaged word after another, with their numbers. */
async function codesOfDamage(build: string): Promise<Map<number, number>> {
  const { core, base, plane, words } = await open(build);
  populate(plane);
  expect(core.check(base)).toBe(0);
  const counts = new Map<number, number>();
  const end = Math.min(words.length, base / 4 + 12_000);
  for (let at = base / 4; at < end; at++) {
    const word = words[at] as number;
    for (const damage of DAMAGE) {
      words[at] = damage(word);
      const code = core.check(base) >>> 0;
      counts.set(code, (counts.get(code) ?? 0) + 1);
    }
    words[at] = word;
  }
  expect(core.check(base)).toBe(0);
  return counts;
}

describe.each(BUILDS)("check of %s", (build) => {
  let counts: Promise<Map<number, number>> | undefined;

  it.each(namesOf("INV_"))("gives %s for some damaged word", async (name) => {
    counts ??= codesOfDamage(build);
    expect((await counts).get(CODES[name] as number) ?? 0).toBeGreaterThan(0);
  });

  it("gives nothing but codes", async () => {
    counts ??= codesOfDamage(build);
    const known = new Set([...namesOf("INV_"), ...namesOf("STATUS_")].map((name) => CODES[name]));
    expect([...(await counts).keys()].filter((code) => !known.has(code))).toEqual([]);
  });
});

// --- Statuses --------------------------------------------------------------------------------------

/** Calls that end in each status. A call that answers 0 for a refusal leaves it in the header. */
const STATUS_CALLS: Readonly<Record<string, (opened: Opened) => number>> = {
  STATUS_OK: ({ core, base, plane }) => core.slotFree(base, ...block(plane)),
  STATUS_NO_ROOM: (opened) => refusal(opened, () => allocate(opened, 2 ** 30)),
  STATUS_NO_SLOT: (opened) => {
    while (allocate(opened, 64) !== 0);
    return refusal(opened, () => allocate(opened, 64));
  },
  STATUS_NO_METADATA: (opened) => {
    const { core, base } = opened;
    while (core.arenaOpen(base, 0, 16, 6) !== 0);
    return refusal(opened, () => core.arenaOpen(base, 0, 16, 6));
  },
  STATUS_STALE: ({ core, base, plane }) => {
    const handle = block(plane);
    plane.free(...handle);
    return core.slotFree(base, ...handle);
  },
  STATUS_FOREIGN: ({ core, base }) => core.slotFree(base, 0, 1),
  STATUS_PINNED: ({ core, base, plane }) => {
    const handle = block(plane);
    plane.pin(...handle);
    return core.slotFree(base, ...handle);
  },
  STATUS_NOT_PINNED: ({ core, base, plane }) => core.slotUnpin(base, ...block(plane)),
  STATUS_PIN_LIMIT: (opened) => {
    const { core, base, plane } = opened;
    const handle = block(plane);
    for (let count = 0; count < abi.PIN_COUNT_MAX; count++) plane.pin(...handle);
    return refusal(opened, () => core.slotPin(base, ...handle));
  },
  STATUS_NO_ARENA: ({ core, base }) => core.arenaClose(base, 3),
  STATUS_NOT_EMPTY: ({ core, base, plane }) => {
    block(plane);
    return core.arenaClose(base, 1);
  },
  STATUS_BAD_ARGUMENT: (opened) => refusal(opened, () => allocate(opened, 0)),
  STATUS_BUSY: ({ core, base, plane, words }) => {
    const handle = block(plane);
    words[(base + abi.CONTROL_OFF_GUARD) / 4] = 1;
    return core.slotUnpin(base, ...handle);
  },
  STATUS_NO_PLAN: ({ core, base }) => core.compactCommit(base),
  STATUS_NOT_OWNER: ({ core, base, plane }) => core.slotAdopt(base, ...block(plane)),
  STATUS_BAD_MAGIC: ({ core, base, words }) => {
    words[(base + abi.CONTROL_OFF_MAGIC) / 4] = 0;
    return core.check(base);
  },
};

/** Slot and generation of a new block of arena 1. */
function block(plane: ControlPlane): [slot: number, generation: number] {
  const slot = plane.allocate(1, 64, 1);
  return [slot, plane.generationOf(slot)];
}

const allocate = ({ core, base }: Opened, bytes: number) => core.arenaAllocate(base, 1, bytes, 1);

function refusal({ base, words }: Opened, call: () => number): number {
  expect(call()).toBe(0);
  return words[statusWordOf(words, base)] as number;
}

describe.each(BUILDS)("%s", (build) => {
  it.each(namesOf("STATUS_"))("answers %s", async (name) => {
    const opened = await open(build);
    opened.plane.openArena(0, 2 ** 22, 6);
    expect(STATUS_CALLS[name]?.(opened)).toBe(CODES[name]);
  });
});
