// Checks of what callers pass, shared by all public calls. Everything wrong is a MisuseError before
// anything changes.
import type { Clock } from "../clock.js";
import { canShareMemory } from "../core/linear-memory.js";
import { MisuseError } from "../errors.js";
import { CONTENT_PREFIX, ID_BYTES_MAX, NAMESPACE_BYTES_MAX, TENSOR_BYTES_MAX } from "../limits.js";
import type { ChainHints } from "../policy/eviction-policy.js";
import { checkBytes, checkKind, describe, type TensorKind } from "../types.js";
import type { PinAccess } from "./pin.js";

const ALIGNMENT_MAX = 65536;

/** Most that a unit of a string takes. */
const UTF8_BYTES_PER_UNIT = 3;
const utf8 = new TextEncoder();

/** @throws {MisuseError} `bad-id`. */
export function checkId(id: unknown): string {
  if (typeof id !== "string" || !id.isWellFormed()) {
    throw new MisuseError("bad-id", `${describe(id)} is not a well-formed string`);
  }
  const isSurelyShort = UTF8_BYTES_PER_UNIT * id.length <= ID_BYTES_MAX;
  if (!isSurelyShort && utf8.encode(id).byteLength > ID_BYTES_MAX) {
    throw new MisuseError("bad-id", `an id has at most ${ID_BYTES_MAX} UTF-8 bytes`);
  }
  if (id.startsWith(CONTENT_PREFIX)) {
    throw new MisuseError("bad-id", `ids that begin with ${CONTENT_PREFIX} name contents`);
  }
  return id;
}

/** @throws {MisuseError} `bad-alignment`. */
export function checkAlignment(alignment: unknown): number {
  const isPower =
    Number.isSafeInteger(alignment) &&
    (alignment as number) >= 1 &&
    (alignment as number) <= ALIGNMENT_MAX &&
    ((alignment as number) & ((alignment as number) - 1)) === 0;
  if (!isPower) {
    throw new MisuseError("bad-alignment", `alignment is a power of two up to ${ALIGNMENT_MAX}`);
  }
  return alignment as number;
}

/** @throws {MisuseError} `bad-option` — not an object, or with a member that means nothing. */
export function checkObject(
  value: unknown,
  name: string,
  known: readonly string[],
): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) {
    throw new MisuseError("bad-option", `${name}: options are an object`);
  }
  for (const key in value) {
    if (!known.includes(key) && Object.hasOwn(value, key)) {
      throw new MisuseError("bad-option", `${name}: unknown option ${describe(key)}`);
    }
  }
  return value as Record<string, unknown>;
}

/** What `reserve` is asked for. @throws {MisuseError} `bad-*`. */
export function checkReservation(request: unknown): {
  readonly kind: TensorKind;
  readonly bytes: number;
  readonly alignment: number;
  readonly count: number;
  readonly signal: AbortSignal | undefined;
} {
  const known = ["kind", "bytes", "count", "alignment", "signal"];
  const { kind, bytes, count, alignment, signal } = checkObject(request, "reserve", known);
  return {
    kind: checkKind(kind),
    bytes: checkBytes(bytes, "bytes", TENSOR_BYTES_MAX),
    count: checkBytes(count ?? 1, "count"),
    alignment: checkAlignment(alignment ?? 1),
    signal: checkSignal(signal),
  };
}

/** @throws {MisuseError} `bad-option` — neither undefined nor a boolean. */
export function checkFlag(flag: unknown, name: string): boolean {
  if (flag !== undefined && typeof flag !== "boolean") {
    throw new MisuseError("bad-option", `${name} is a boolean`);
  }
  return flag === true;
}

/** What a tier comes from, and its budget. @throws {MisuseError} `bad-option`. */
export function checkFactory(name: string, factory: unknown, budget: unknown): void {
  if (factory !== undefined && typeof factory !== "function") {
    throw new MisuseError("bad-option", `${name} is what the function of its tier returns`);
  }
  if (factory === undefined && budget !== undefined) {
    throw new MisuseError("bad-option", `budgets.${name} needs ${name}`);
  }
}

/** @throws {MisuseError} `bad-option` — neither undefined nor text. */
export function checkText(text: unknown, name: string): string {
  if (text !== undefined && typeof text !== "string") {
    throw new MisuseError("bad-option", `${name} is a string`);
  }
  return text ?? "";
}

/** @throws {MisuseError} `bad-option` — neither undefined nor an AbortSignal. */
export function checkSignal(signal: unknown): AbortSignal | undefined {
  if (signal === undefined) return undefined;
  const given = signal as Partial<AbortSignal> | null;
  if (typeof given?.aborted !== "boolean" || typeof given.addEventListener !== "function") {
    throw new MisuseError("bad-option", "signal is an AbortSignal");
  }
  return given as AbortSignal;
}

/** @throws {MisuseError} `bad-option` — not an array; `bad-id`. */
export function checkIds(ids: unknown): readonly string[] {
  if (!Array.isArray(ids)) throw new MisuseError("bad-option", "ids are an array");
  return ids.map(checkId);
}

/** Options of the calls that pin, checked. */
export interface CheckedPinOptions {
  readonly access: PinAccess;
  readonly stream: string;
  readonly signal: AbortSignal | undefined;
}

const PIN_DEFAULTS: CheckedPinOptions = { access: "write", stream: "", signal: undefined };

/** @throws {MisuseError} `bad-option`. */
export function checkPinOptions(
  options: unknown,
  name: string,
  known: readonly string[],
): CheckedPinOptions {
  if (options === undefined) return PIN_DEFAULTS;
  const { access = "write", stream, signal } = checkObject(options, name, known);
  if (access !== "read" && access !== "write") {
    throw new MisuseError("bad-option", 'access is "read" or "write"');
  }
  return { access, stream: checkText(stream, "stream"), signal: checkSignal(signal) };
}

/** @throws {MisuseError} `bad-option`; `unsupported` — memory cannot be shared here. */
export function checkShared(value: unknown): boolean {
  if (value === "auto") return canShareMemory();
  const isShared = checkFlag(value, "shared");
  if (isShared && !canShareMemory()) {
    const advice = "serve the page cross-origin isolated (COOP and COEP headers)";
    throw new MisuseError("unsupported", `memory cannot be shared here: ${advice}`);
  }
  return isShared;
}

function checkCount(value: unknown, name: string, least: number): number | undefined {
  if (value === undefined || (Number.isSafeInteger(value) && (value as number) >= least)) {
    return value as number | undefined;
  }
  throw new MisuseError("bad-option", `${name} is an integer, ${least} or more`);
}

/** @throws {MisuseError} `bad-option` — not a number of milliseconds from 0 on. */
export function checkMs(value: unknown, name: string): number {
  if (typeof value === "number" && value >= 0) return value;
  throw new MisuseError("bad-option", `${name} is a number of milliseconds, at least 0`);
}

/** @throws {MisuseError} `bad-option`. */
export function checkHints(value: unknown): ChainHints {
  const known = ["stopReason", "outputTokens", "turn", "newBlocks"];
  const { stopReason, outputTokens, turn, newBlocks } = checkObject(value, "hints", known);
  if (stopReason !== undefined && stopReason !== "tool" && stopReason !== "end") {
    throw new MisuseError("bad-option", 'stopReason is "tool" or "end"');
  }
  return {
    stopReason,
    outputTokens: checkCount(outputTokens, "outputTokens", 0),
    turn: checkCount(turn, "turn", 1),
    newBlocks: checkCount(newBlocks, "newBlocks", 0),
  };
}

/** A thousand years. */
const TTL_MS_MAX = 1000 * 366 * 24 * 3_600_000;

/** What a record that is saved is to be. @throws {MisuseError} `bad-option`, `bad-size`. */
export function checkSaveOptions(
  options: unknown,
  isDurable: boolean,
  clock: Clock,
): { readonly durable: boolean; readonly expiresMs: number } {
  const given = checkObject(options, "save", ["mode", "ttlMs"]);
  const { mode = isDurable ? "durable" : "cache", ttlMs } = given;
  if (mode !== "cache" && mode !== "durable") {
    throw new MisuseError("bad-option", 'mode is "cache" or "durable"');
  }
  const expiresMs =
    ttlMs === undefined ? 0 : Math.ceil(clock.wallMs()) + checkBytes(ttlMs, "ttlMs", TTL_MS_MAX);
  return { durable: mode === "durable", expiresMs };
}

/** @throws {MisuseError} `bad-option`. */
export function checkNamespacePart(text: unknown, name: string): string {
  if (
    typeof text !== "string" ||
    !text.isWellFormed() ||
    utf8.encode(text).byteLength > NAMESPACE_BYTES_MAX
  ) {
    throw new MisuseError("bad-option", `namespace.${name} is a well-formed string`);
  }
  return text;
}

/** Limits of a call of `compact`: Infinity for none. @throws {MisuseError} `bad-option`, `bad-size`. */
export function checkCompactionLimits(options: {
  readonly bytesMovedMax?: number;
  readonly durationMsMax?: number;
}): { readonly bytesMovedMax: number; readonly durationMsMax: number } {
  checkObject(options, "compact", ["bytesMovedMax", "durationMsMax"]);
  const limitOf = (name: "bytesMovedMax" | "durationMsMax") =>
    options[name] === undefined ? Number.POSITIVE_INFINITY : checkBytes(options[name], name);
  return { bytesMovedMax: limitOf("bytesMovedMax"), durationMsMax: limitOf("durationMsMax") };
}
