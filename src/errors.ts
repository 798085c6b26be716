// Every error that tierheap throws. Layer 0.
//
// Ordinary shortage is a return value (`null`, `"no-space"`); these classes are for the rest. Each
// has a stable `code`; messages may change. No error carries tensor bytes.

/** Base of all errors of this package. */
export class TierheapError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

export type MisuseCode =
  | "bad-size"
  | "bad-shape"
  | "bad-dtype"
  | "bad-kind"
  | "bad-layout"
  | "bad-alignment"
  | "bad-id"
  | "bad-option"
  | "duplicate-id"
  | "unknown-id"
  | "not-resident"
  | "stale-handle"
  | "foreign-handle"
  | "pinned"
  | "pin-limit"
  | "unpinned"
  | "not-owner"
  | "freed"
  | "plan-mismatch"
  | "foreign-cache"
  | "token-mismatch"
  | "overwritten"
  | "re-entrant"
  | "unsupported"
  | "closed";

/** The caller broke a rule. Thrown synchronously, before anything changed. */
export class MisuseError extends TierheapError {
  declare readonly code: MisuseCode;

  // Narrows the type of `code`.
  constructor(code: MisuseCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}

/** The numbers behind an {@link OutOfMemoryError}. */
export interface OutOfMemoryDetails {
  readonly requestedBytes: number;
  /** Free bytes in the pool's arenas. */
  readonly freeBytes: number;
  readonly largestFreeBlockBytes: number;
  /** Bytes in blocks that a pin keeps where they are. */
  readonly pinnedBytes: number;
  /** The budget that refused: the pool's own, else the one of RAM. */
  readonly budgetBytes: number;
  readonly remediesTried: readonly string[];
  /** One sentence that says what would help. */
  readonly advice: string;
}

/** Every remedy was tried and the request still does not fit. Nothing changed. */
export class OutOfMemoryError extends TierheapError implements OutOfMemoryDetails {
  readonly requestedBytes: number;
  readonly freeBytes: number;
  readonly largestFreeBlockBytes: number;
  readonly pinnedBytes: number;
  readonly budgetBytes: number;
  readonly remediesTried: readonly string[];
  readonly advice: string;

  constructor(details: OutOfMemoryDetails) {
    super(
      "out-of-memory",
      `${details.requestedBytes} bytes do not fit: ${details.freeBytes} free, ` +
        `largest block ${details.largestFreeBlockBytes}, budget ${details.budgetBytes}. ${details.advice}`,
    );
    this.requestedBytes = details.requestedBytes;
    this.freeBytes = details.freeBytes;
    this.largestFreeBlockBytes = details.largestFreeBlockBytes;
    this.pinnedBytes = details.pinnedBytes;
    this.budgetBytes = details.budgetBytes;
    this.remediesTried = details.remediesTried;
    this.advice = details.advice;
  }
}

export type TierErrorCode =
  | "io"
  | "closed"
  | "aborted"
  | "timeout"
  | "busy"
  | "incompatible"
  | "device-lost";

/** The environment of a tier failed. The tensor stays where it was. */
export class TierError extends TierheapError {
  declare readonly code: TierErrorCode;
  /** Name of the tier, for example `"ssd"`. */
  readonly tier: string;

  constructor(code: TierErrorCode, tier: string, message: string, options?: ErrorOptions) {
    super(code, message, options);
    this.tier = tier;
  }
}

/** The only copy of a tensor is damaged. Never reported as a miss. */
export class CorruptionError extends TierheapError {
  readonly tier: string;

  constructor(tier: string, message: string, options?: ErrorOptions) {
    super("corruption", message, options);
    this.tier = tier;
  }
}

export type GuardErrorCode = "overrun" | "write-after-free";

/** The tensor that debug mode found written where it may not be. */
export interface GuardDetails {
  readonly kind: string;
  readonly tag: string;
  readonly byteLength: number;
  /** Where it was allocated. */
  readonly callSite: string | null;
}

/** Debug mode found bytes written past a tensor's end, or after it was freed. */
export class GuardError extends TierheapError implements GuardDetails {
  declare readonly code: GuardErrorCode;
  readonly kind: string;
  readonly tag: string;
  readonly byteLength: number;
  readonly callSite: string | null;

  constructor(code: GuardErrorCode, message: string, details: GuardDetails) {
    super(code, message);
    this.kind = details.kind;
    this.tag = details.tag;
    this.byteLength = details.byteLength;
    this.callSite = details.callSite;
  }
}

/** The core was interrupted in mid-change. Verified data in colder tiers may still be read. */
export class PoisonedError extends TierheapError {
  constructor(message: string) {
    super("poisoned", message);
  }
}

/** @throws {TierError} `aborted` — with the signal's reason as cause, if it has been aborted. */
export function throwIfAborted(signal: AbortSignal | undefined, tier: string): void {
  if (signal?.aborted === true) {
    throw new TierError("aborted", tier, "the operation was aborted", { cause: signal.reason });
  }
}
