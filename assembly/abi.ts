// ABI: the one shared truth of offsets, limits, statuses and invariant codes of the core. Layer 0.
// This file compiles under AssemblyScript and under TypeScript, so it holds nothing but plain
// integer constants. Byte offsets are relative to the struct named in the prefix; the structs pin
// them at compile time. A change of any value here is a change of ABI_VERSION.

export const ABI_VERSION = 4;

// --- Limits -------------------------------------------------------------------------------------

/** Slots are 21 bits wide in a handle; slot 0 means none. */
export const SLOT_CAPACITY_MAX = 0x1fffff;
/** Orders 0 to 26: a 4 GiB arena of 64-byte granules. */
export const ORDER_COUNT_MAX = 27;
/** Sizing of a slot that owns its whole arena, however long that arena is. */
export const ORDER_WHOLE = 255;
/** Sizing of a run that is as long as its requested bytes ask and belongs to no size class. */
export const SIZING_EXACT = 254;
/** Sizing of a run whose start and length are multiples of ALIGNED_GRANULES. */
export const SIZING_ALIGNED = 253;
/** Sizing of a run that took the place of a page, and may become one again. */
export const SIZING_SHORT = 252;
/** Size classes that a sizing can name; the largest class is 30 MiB. */
export const SIZE_CLASS_COUNT = 252;
/** Size classes count in units of 64 bytes, given as log2. */
export const UNIT_SHIFT = 6;
/** Classes below this one, up to 32 KiB, live in slabs. */
export const SLAB_CLASS_COUNT = 96;
/** Arenas of 64-byte granules from this length on are divided into slabs and runs. */
export const SLAB_ARENA_UNITS_MIN = 0x4000;
/** In arenas of fewer superblocks than this all classes share their slabs from the start. */
export const CLASS_SLABS_FROM = 32;
/** log2 of the bytes of a slab arena's granule. */
export const SLAB_GRANULE_SHIFT = 12;
/** A superblock is a block of this order of a slab arena's tree: 256 KiB. */
export const SUPERBLOCK_ORDER = 6;
/** Units of a superblock, and so its most pages. */
export const SUPERBLOCK_UNITS = 4096;
/** Granules of 64 KiB, the largest alignment that a block of a slab arena can have. */
export const ALIGNED_GRANULES = 16;
/** Units of 256 bytes, the largest alignment that every block of a slab arena may be asked for. */
export const ALIGNED_UNITS = 4;
/**
 * Budget of class caches, in parts of the arena given as log2: a class takes a share at a time, and
 * blocks longer than a share are not cached; all classes together hold up to the total.
 */
export const CACHE_SHARE_SHIFT = 7;
export const CACHE_TOTAL_SHIFT = 5;
/** The same in parts of what the tree has free: the larger number counts. */
export const CACHE_FREE_SHARE_SHIFT = 3;
export const CACHE_FREE_TOTAL_SHIFT = 2;
/** An arena is ample, and both parts of what is free double, while its pool needs at most this part. */
export const CACHE_AMPLE_SHIFT = 2;
/** A share is at most this many blocks, and at least one. */
export const CACHE_SHARE_BLOCKS = 32;
/** In an ample arena the first share is at most this many; each further one doubles the budget. */
export const CACHE_FIRST_BLOCKS = 4;
/** A request that finds its cache empty claims at most this many pages at once. */
export const CACHE_REFILL_PAGES = 16;
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
/** Lanes of a shared plane are 1 to this; a plain plane has LANE_FIRST alone. */
export const LANE_COUNT_MAX = 15;
/** The lane of who made the plane. */
export const LANE_FIRST = 1;
/** Bit of the guard: somebody sleeps until it changes. The other bits say who holds it. */
export const GUARD_WAITING = -0x80000000;
/** Holder of the guard of a plane that could not be recovered. */
export const GUARD_POISONED = 0xffff;

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
/** The block belongs to another lane, or to none because it was handed over. */
export const STATUS_NOT_OWNER = 15;

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
/** Slots bound to a block: live ones and cached ones. */
export const CONTROL_OFF_SLOT_BOUND_COUNT = 36;
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
/** The pending move, in the units of its arena's slots; the length is that of the target. */
export const CONTROL_OFF_PLAN_SOURCE = 92;
export const CONTROL_OFF_PLAN_TARGET = 96;
export const CONTROL_OFF_PLAN_UNITS = 100;
/** Generation of the pending slot when its move was planned; 0 once it was pinned since. */
export const CONTROL_OFF_PLAN_GENERATION = 104;
/** Sizing and requested bytes of the pending block, by which its target is given back. */
export const CONTROL_OFF_PLAN_SIZING = 108;
export const CONTROL_OFF_PLAN_REQUESTED = 112;
/** What the round of the plan is about, one of GOAL_*, and how many rounds there were before. */
export const CONTROL_OFF_PLAN_GOAL = 116;
export const CONTROL_OFF_PLAN_ROUND = 120;
/** Moves of this round that were committed. */
export const CONTROL_OFF_PLAN_MOVED = 124;
/** Granules that the plan is to make free in a row, 0 for as many as can be. */
export const CONTROL_OFF_PLAN_NEED = 128;
/**
 * GOAL_WINDOW: granules that are to become free. GOAL_SLIDE: granules within which runs slide.
 * GOAL_PACK: rank below which a slab is emptied.
 */
export const CONTROL_OFF_PLAN_LOW = 132;
export const CONTROL_OFF_PLAN_HIGH = 136;
/** 1 if moves may overlap their own source. */
export const CONTROL_OFF_PLAN_MAY_SLIDE = 140;
/** Sizing that the pending block will have: another one if a page becomes a run. */
export const CONTROL_OFF_PLAN_TARGET_SIZING = 144;
/** Arena that the blocks move into: that of the plan itself, but for GOAL_EVACUATE. */
export const CONTROL_OFF_PLAN_INTO = 148;
/** 1 while a move is committed: recovery ends it. */
export const CONTROL_OFF_PLAN_IS_COPIED = 152;

/** Every block goes to the lowest place below its own. */
export const GOAL_LOWER = 0;
/** Mixed slabs with little in them are emptied into others. */
export const GOAL_PACK = 1;
/** What lies in a window goes to places outside. */
export const GOAL_WINDOW = 2;
/** Runs move up to the next block, also onto part of where they were. */
export const GOAL_SLIDE = 3;
/** Every block goes into another arena, long ones first. */
export const GOAL_EVACUATE = 4;

/** How often the guard was entered, entered after a look at it held, and not had. Shared only. */
export const CONTROL_OFF_LOCK_ENTERED = 168;
export const CONTROL_OFF_LOCK_CONTENDED = 172;
export const CONTROL_OFF_LOCK_REFUSED = 176;
/** The lane rows of a shared plane, from `base`; 0 in a plain one. */
export const CONTROL_OFF_LANES = 180;

// --- Lane rows, of a shared plane: row 0 stands for blocks that nobody owns -----------------------

export const LANE_BYTES = 64;
export const LANE_OFF_STATE = 0;
/** Not 0: the lane is to give back what it has cached. Written by others. */
export const LANE_OFF_REQUEST = 4;
/** As CONTROL_OFF_STATUS, for the calls of this lane. */
export const LANE_OFF_STATUS = 8;
/** Live blocks that were freed because their lane died; in row 0 alone. */
export const LANE_OFF_ORPHANED = 12;

/** Rows of what each lane has cached of each arena, behind the lane rows. */
export const LANE_CACHE_BYTES = 544;
export const LANE_CACHE_OFF_DRIFT = 0; // i64
export const LANE_CACHE_OFF_SETTLED = 8;
export const LANE_CACHE_OFF_TAKEN = 16;
export const LANE_CACHE_OFF_CACHED = 24;
export const LANE_CACHE_OFF_HEADS = 32; // LANE_CLASS_COUNT x u32
/** Classes below this one, up to 128 KiB, are cached by lanes. */
export const LANE_CLASS_COUNT = 128;
/** A lane caches at most this part of an arena, given as log2. */
export const LANE_CACHE_SHIFT = 7;

export const LANE_STATE_FREE = 0;
/** A token for the lane was made; nobody has attached with it yet. */
export const LANE_STATE_RESERVED = 1;
export const LANE_STATE_ATTACHED = 2;
export const LANE_STATE_DEAD = 3;

// --- Slot rows: 16 hot bytes and 12 cold bytes per slot, in two tables ---------------------------

export const HOT_BYTES = 16;
/** Block start in the arena's slot units. */
export const HOT_OFF_OFFSET = 0;
/** Live: requested bytes. Free or cached: the next slot of its list, 0 if this is the last. */
export const HOT_OFF_REQUESTED = 4;
/** With the three fields after it the tenure: one aligned word that says who the slot is now. */
export const HOT_OFF_GENERATION = 8;
/** How long the block is: an order in a plain arena, else a size class, or SIZING_EXACT. */
export const HOT_OFF_SIZING = 12;
export const HOT_OFF_STATE = 13;
export const HOT_OFF_ARENA = 14; // u16

export const COLD_BYTES = 12;
/** Starts at 1 and changes whenever the slot is bound to another block. Never 0. */
export const COLD_OFF_EPOCH = 0;
export const COLD_OFF_PINS = 4; // u16
/** Lane that owns the block, 0 if it was handed over and nobody has adopted it. */
export const COLD_OFF_LANE = 6; // u16
/** Entry of the sorted candidate array during compaction and check; not this slot's own field. */
export const COLD_OFF_SCRATCH = 8;

export const SLOT_STATE_FREE = 0;
export const SLOT_STATE_LIVE = 1;
export const SLOT_STATE_RETIRED = 2;
/** Freed by its owner, but still bound to its block, which waits in a class cache. */
export const SLOT_STATE_CACHED = 3;
/** Live, and pinned at least once. */
export const SLOT_STATE_PINNED = 4;

// --- Arena rows ---------------------------------------------------------------------------------

export const ARENA_BYTES = 128;
/** The arena table, from `base`: it follows the pool rows. */
export const ARENAS_OFFSET = 704;
export const ARENA_OFF_STATE = 0;
export const ARENA_OFF_POOL = 4;
export const ARENA_OFF_GRANULE_SHIFT = 8;
export const ARENA_OFF_CAPACITY = 12; // granules
export const ARENA_OFF_TREE = 16; // offset from `base`
export const ARENA_OFF_METADATA_BYTES = 20; // of the tree and all that follows it
/** u64: the number of live blocks, shifted by USAGE_COUNT_SHIFT, plus their requested bytes. */
export const ARENA_OFF_USAGE = 24;
export const USAGE_COUNT_SHIFT = 40;
/** Granted bytes of live and cached blocks, u64. */
export const ARENA_OFF_CLAIMED = 32;
export const ARENA_OFF_PINNED_COUNT = 40;
/** Bytes of the budgets of all class caches. */
export const ARENA_OFF_CACHE_BUDGET = 44;
/** Slot that owns the whole arena, 0 if none. */
export const ARENA_OFF_WHOLE_SLOT = 48;
/** Offsets from `base`: cache rows, partial sets, superblock rows, page maps; 0 in a plain arena. */
export const ARENA_OFF_CACHES = 52;
/** Classes below this one have a cache. 0 in a plain arena and in a closed one. */
export const ARENA_OFF_CACHE_CLASS_COUNT = 56;
/** log2 of the bytes in which slot offsets count. */
export const ARENA_OFF_UNIT_SHIFT = 60;
export const ARENA_OFF_PARTIALS = 64;
export const ARENA_OFF_SUPERBLOCKS = 68;
export const ARENA_OFF_PAGE_MAPS = 72;
export const ARENA_OFF_SUPERBLOCK_COUNT = 76;
export const ARENA_OFF_SLAB_COUNT = 80;
/** 1 while its class caches may hold more than in others. */
export const ARENA_OFF_IS_AMPLE = 84;

export const ARENA_STATE_CLOSED = 0;
export const ARENA_STATE_OPEN = 1;

// --- Class caches: one row per class ------------------------------------------------------------

export const CACHE_BYTES = 16;
export const CACHE_OFF_HEAD = 0;
/** Blocks for which the class holds cache budget. */
export const CACHE_OFF_LIMIT = 4;
/**
 * u64: the blocks ever taken, shifted by TALLY_TAKEN_SHIFT, plus the credit: blocks that may still
 * be added. `limit` minus the credit are inside.
 */
export const CACHE_OFF_TALLY = 8;
export const TALLY_TAKEN_SHIFT = 24;

// --- Batches: handles to free in one call, outside of the control plane --------------------------

export const BATCH_ENTRY_BYTES = 8;
export const BATCH_OFF_SLOT = 0;
/** Before the call the generation, after it the STATUS_* of the free. */
export const BATCH_OFF_GENERATION = 4;

// --- Superblock rows, and one page map of SUPERBLOCK_UNITS bits per superblock --------------------

export const SUPERBLOCK_BYTES = 16;
export const SUPERBLOCK_OFF_SIZE_CLASS = 0; // u16
export const SUPERBLOCK_OFF_PAGE_COUNT = 2; // u16
export const SUPERBLOCK_OFF_FREE_COUNT = 4; // u16
/** No word of the page map below this one has a free page. */
export const SUPERBLOCK_OFF_LOWEST_WORD = 6; // u16
export const SUPERBLOCK_OFF_PAGE_UNITS = 8;
/** Mixed slab: no stretch of free units is longer than this. */
export const SUPERBLOCK_OFF_ROOM = 12; // u16
/** Size class of a superblock that is no slab. */
export const SIZE_CLASS_NONE = 0xffff;
/** Size class of a slab that holds blocks of many classes. */
export const SIZE_CLASS_MIXED = 0xfffe;
export const PAGE_MAP_BYTES = 512;

// --- Order tree: header, then one row per order, then the bitmap words ---------------------------

export const TREE_HEADER_BYTES = 24;
/** Bit k is 1 exactly when order k has a free block. */
export const TREE_OFF_MASK = 0;
export const TREE_OFF_ORDER_MAX = 4;
export const TREE_OFF_CAPACITY = 8; // granules
export const TREE_OFF_FREE = 12; // granules
/** Offset of the short map from the tree, 0 in a tree without runs. */
export const TREE_OFF_SHORT_MAP = 16;

export const ORDER_BYTES = 32;
export const ORDER_OFF_LEVELS = 0; // LEVEL_COUNT_MAX x u32: offsets from the tree
export const ORDER_OFF_LEVEL_COUNT = 20;
export const ORDER_OFF_BLOCK_COUNT = 24;
export const ORDER_OFF_FREE_COUNT = 28;

// --- Pool rows: counters of one tensor kind, u64 each --------------------------------------------

export const POOL_BYTES = 64;
/** The pool rows, from `base`: they follow the header. */
export const POOLS_OFFSET = 192;
/** Requested bytes below their peak: the current ones are the peak minus this. */
export const POOL_OFF_HEADROOM = 0;
export const POOL_OFF_REQUESTED_PEAK = 8;
/** Granted bytes of live and cached blocks. */
export const POOL_OFF_CLAIMED = 16;
export const POOL_OFF_CLAIMED_PEAK = 24;
/** Allocations ever made that no open arena's class cache counts. */
export const POOL_OFF_ALLOCATIONS = 32;

// --- Invariants: `check` returns one of these, or 0. The number is <module><n>. ------------------

export const INV_TREE_1 = 101;
export const INV_TREE_2 = 102;
export const INV_TREE_3 = 103;
export const INV_TREE_4 = 104;
export const INV_TREE_5 = 105;
export const INV_SLOT_1 = 201;
export const INV_SLOT_2 = 202;
export const INV_SLOT_3 = 203;
export const INV_ARENA_1 = 301;
export const INV_ARENA_2 = 302;
export const INV_ARENA_3 = 303;
export const INV_ARENA_4 = 304;
export const INV_POOL_1 = 401;
export const INV_REGION_1 = 501;
export const INV_SLAB_1 = 601;
export const INV_SLAB_2 = 602;
export const INV_SLAB_3 = 603;
export const INV_SLAB_4 = 604;
export const INV_CACHE_1 = 701;
export const INV_CACHE_2 = 702;
