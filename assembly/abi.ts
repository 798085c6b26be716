// ABI: the one shared truth of offsets, limits, statuses and invariant codes of the core. Layer 0.
// This file compiles under AssemblyScript and under TypeScript, so it holds nothing but plain
// integer constants. Byte offsets are relative to the struct named in the prefix; the structs pin
// them at compile time. A change of any value here is a change of ABI_VERSION.

export const ABI_VERSION = 1;

// --- Limits -------------------------------------------------------------------------------------

/** Slots are 21 bits wide in a handle; slot 0 means none. */
export const SLOT_CAPACITY_MAX = 0x1fffff;
/** Orders 0 to 26: a 4 GiB arena of 64-byte granules. */
export const ORDER_COUNT_MAX = 27;
/** Order of a slot that owns its whole arena, however long that arena is. */
export const ORDER_WHOLE = 255;
/** Bitmap levels of one order: 64^5 exceeds the largest block count. */
export const LEVEL_COUNT_MAX = 5;
/** Granules of 16 bytes to 1 MiB, given as log2 of their bytes. */
export const GRANULE_SHIFT_MIN = 4;
export const GRANULE_SHIFT_MAX = 20;
/** Granules of the largest arena: one block of the highest order. */
export const ARENA_GRANULES_MAX = 0x4000000;
export const POOL_COUNT = 8;
export const ARENA_CAPACITY_MAX = 4096;
/** A slot refuses more pins than this. */
export const PIN_COUNT_MAX = 65535;
/** A generation at this value is never handed out: the slot is retired instead of wrapping. */
export const GENERATION_MAX = -1; // 0xffffffff as i32 bits
/** Bytes 0 to 4095 of the control memory are not the heap's: the panic record lives there. */
export const PANIC_ADDRESS = 16;

// --- Statuses -----------------------------------------------------------------------------------

export const STATUS_OK = 0;
/** No free block is large enough. Ordinary: the caller decides. */
export const STATUS_NO_ROOM = 1;
/** The slot table has no unused row left. */
export const STATUS_NO_SLOT = 2;
/** The arena table or the metadata region is full. */
export const STATUS_NO_METADATA = 3;
/** The handle's generation is not the slot's, or the slot is not live. */
export const STATUS_STALE = 4;
/** The slot number is outside the table or was never handed out. */
export const STATUS_FOREIGN = 5;
/** The block is pinned. */
export const STATUS_PINNED = 6;
/** Unpin without a pin. */
export const STATUS_NOT_PINNED = 7;
/** The pin count is at PIN_COUNT_MAX. */
export const STATUS_PIN_LIMIT = 8;
/** No such arena, or it is closed. */
export const STATUS_NO_ARENA = 9;
/** The arena still has live blocks. */
export const STATUS_NOT_EMPTY = 10;
/** A size, alignment, granule or table length is outside its range. */
export const STATUS_BAD_ARGUMENT = 11;
/** Somebody else holds the guard, or the core was interrupted while it was held. */
export const STATUS_BUSY = 12;
/** No compaction plan, or no pending move. */
export const STATUS_NO_PLAN = 13;
/** The memory does not start with a control plane of this ABI version. */
export const STATUS_BAD_MAGIC = 14;

// --- Control header (at `base`) -----------------------------------------------------------------

export const CONTROL_MAGIC = 0x50434854; // "THCP"
export const CONTROL_HEADER_BYTES = 192;
export const CONTROL_OFF_MAGIC = 0;
export const CONTROL_OFF_ABI_VERSION = 4;
/** 0 when idle; the holder's non-zero id while a mutation runs. */
export const CONTROL_OFF_GUARD = 8;
/**
 * STATUS_* of the last refusal that returned 0 in place of a slot, an arena or an epoch. STATUS_OK
 * after compactBegin, and after compactNext has returned 0 at the end of a plan.
 */
export const CONTROL_OFF_STATUS = 12;
export const CONTROL_OFF_TOTAL_BYTES = 16;
/** Rows of the slot table, row 0 included: slots are 1 to this minus 1. So for arenas. */
export const CONTROL_OFF_SLOT_CAPACITY = 20;
/** Lowest slot never handed out; starts at 1. */
export const CONTROL_OFF_SLOT_FRESH = 24;
export const CONTROL_OFF_SLOT_FREE_HEAD = 28;
export const CONTROL_OFF_SLOT_FREE_COUNT = 32;
export const CONTROL_OFF_SLOT_LIVE_COUNT = 36;
export const CONTROL_OFF_SLOT_RETIRED_COUNT = 40;
/** Offsets from `base`. */
export const CONTROL_OFF_HOT = 44;
export const CONTROL_OFF_COLD = 48;
export const CONTROL_OFF_ARENAS = 52;
export const CONTROL_OFF_ARENA_CAPACITY = 56;
export const CONTROL_OFF_POOLS = 60;
/** The region that holds the arenas' order trees. */
export const CONTROL_OFF_REGION = 64;
export const CONTROL_OFF_REGION_BYTES = 68;
export const CONTROL_OFF_REGION_FREE_HEAD = 72;
/**
 * The compaction plan: arena (0 = none), candidates, cursor, slot of the pending move (0 = none).
 */
export const CONTROL_OFF_PLAN_ARENA = 76;
export const CONTROL_OFF_PLAN_COUNT = 80;
export const CONTROL_OFF_PLAN_CURSOR = 84;
export const CONTROL_OFF_PLAN_SLOT = 88;
/** The pending move, in granules of its arena. */
export const CONTROL_OFF_PLAN_SOURCE = 92;
export const CONTROL_OFF_PLAN_TARGET = 96;
export const CONTROL_OFF_PLAN_GRANULES = 100;
/** Generation of the pending slot when its move was planned; 0 once it was pinned since. */
export const CONTROL_OFF_PLAN_GENERATION = 104;

// --- Slot rows: 16 hot bytes and 16 cold bytes per slot, in two tables ---------------------------

export const HOT_BYTES = 16;
/** Block start in granules from the arena base. */
export const HOT_OFF_OFFSET = 0;
export const HOT_OFF_GENERATION = 4;
export const HOT_OFF_REQUESTED = 8;
export const HOT_OFF_ORDER = 12;
export const HOT_OFF_STATE = 13;
export const HOT_OFF_PINS = 14;

export const COLD_BYTES = 16;
export const COLD_OFF_ARENA = 0;
/** Next in the free list; valid only if free. */
export const COLD_OFF_NEXT = 4;
/** Starts at 1 and changes whenever the slot is bound to another block. Never 0. */
export const COLD_OFF_EPOCH = 8;
/** Entry of the sorted candidate array during compaction and check; not this slot's own field. */
export const COLD_OFF_SCRATCH = 12;

export const SLOT_STATE_FREE = 0;
export const SLOT_STATE_LIVE = 1;
export const SLOT_STATE_RETIRED = 2;

// --- Arena rows ---------------------------------------------------------------------------------

export const ARENA_BYTES = 64;
export const ARENA_OFF_STATE = 0;
export const ARENA_OFF_POOL = 4;
export const ARENA_OFF_GRANULE_SHIFT = 8;
export const ARENA_OFF_CAPACITY = 12; // granules
export const ARENA_OFF_TREE = 16; // offset from `base`
export const ARENA_OFF_TREE_BYTES = 20;
export const ARENA_OFF_LIVE_COUNT = 24;
export const ARENA_OFF_PINNED_COUNT = 28;
export const ARENA_OFF_GRANTED = 32; // u64, bytes
export const ARENA_OFF_REQUESTED = 40; // u64, bytes
/** Slot that owns the whole arena, 0 if none. */
export const ARENA_OFF_WHOLE_SLOT = 48;

export const ARENA_STATE_CLOSED = 0;
export const ARENA_STATE_OPEN = 1;

// --- Order tree: header, then one row per order, then the bitmap words ---------------------------

export const TREE_HEADER_BYTES = 16;
/** Bit k is 1 exactly when order k has a free block. */
export const TREE_OFF_MASK = 0;
export const TREE_OFF_ORDER_MAX = 4;
export const TREE_OFF_CAPACITY = 8; // granules
export const TREE_OFF_FREE = 12; // granules

export const ORDER_BYTES = 32;
export const ORDER_OFF_LEVELS = 0; // LEVEL_COUNT_MAX x u32: offsets from the tree
export const ORDER_OFF_LEVEL_COUNT = 20;
export const ORDER_OFF_BLOCK_COUNT = 24;
export const ORDER_OFF_FREE_COUNT = 28;

// --- Pool rows: counters of one tensor kind, u64 each --------------------------------------------

export const POOL_BYTES = 64;
export const POOL_OFF_REQUESTED = 0;
export const POOL_OFF_REQUESTED_PEAK = 8;
export const POOL_OFF_REQUESTED_TOTAL = 16;
export const POOL_OFF_GRANTED = 24;
export const POOL_OFF_GRANTED_PEAK = 32;
export const POOL_OFF_GRANTED_TOTAL = 40;
/** Allocations ever made; frees ever made = this minus the live count. */
export const POOL_OFF_ALLOCATIONS = 48;
export const POOL_OFF_LIVE_COUNT = 56; // u32
export const POOL_OFF_LIVE_COUNT_PEAK = 60; // u32

// --- Invariants: `check` returns one of these, or 0. The number is <module><n>. ------------------

export const INV_TREE_1 = 101;
export const INV_TREE_2 = 102;
export const INV_TREE_3 = 103;
export const INV_TREE_4 = 104;
export const INV_SLOT_1 = 201;
export const INV_SLOT_2 = 202;
export const INV_SLOT_3 = 203;
export const INV_ARENA_1 = 301;
export const INV_ARENA_2 = 302;
export const INV_ARENA_3 = 303;
export const INV_ARENA_4 = 304;
export const INV_POOL_1 = 401;
export const INV_REGION_1 = 501;
