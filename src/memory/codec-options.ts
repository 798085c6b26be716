// What callers may say about codecs, and its validation.
import type { ByteTargets } from "../codec/codec.js";
import { MisuseError } from "../errors.js";
import {
  checkKind,
  describe,
  type ErrorLimit,
  TENSOR_KINDS,
  type TensorErrorBudget,
  type TensorKind,
} from "../types.js";
import { checkObject } from "./checks.js";

/**
 * How tensors are written when they leave RAM: `"raw"`, as they are; `"lossless"`, in fewer bytes wherever
 * that is possible; `"auto"`, lossless where it is measured to be faster, or where the tier is nearly
 * full; `"when-full"`, only there; or within an error budget.
 */
export type CodecRule = "auto" | "raw" | "lossless" | "when-full" | ErrorLimit;

export interface CodecOptions {
  /**
   * Default: `"auto"`, or what the hardware profile says; `"lossless"` with `budgets.warm`, because its room
   * is RAM.
   */
  readonly default?: "auto" | "raw" | "lossless" | "when-full" | undefined;
  /** For all tensors of a kind. */
  readonly kinds?: Partial<Record<TensorKind, CodecRule>> | undefined;
  /** For all tensors with a tag, a layer's for example; before the kind's. */
  readonly tags?: Readonly<Record<string, CodecRule>> | undefined;
  /** Byte budgets for whole kinds: what `byteTargets` of `tierheap/codecs` makes. Default: none. */
  readonly targets?: ByteTargets | undefined;
  /**
   * With several tiers below RAM. `"smaller"`: what goes to the warm tier, whose room is RAM and whose use is soon, is
   * written in fast codecs with a quarter of its error budget; on its way to a colder tier it is coded anew,
   * with what is left of the budget, where the bytes saved are worth the time. `"as-is"`: records move as they were
   * written. Default: `"as-is"`.
   */
  readonly colder?: "as-is" | "smaller" | undefined;
  /**
   * Workers that encode and decode what moves between RAM and the tiers, 0 to 16, so that the caller's thread is not
   * held up: each takes under 3 MiB of `budgets.ram` from the start, and is started when a tensor of at least
   * 256 KiB is first coded. `"auto"`: one less than the machine has cores, at most 4; none with `budgets.ram`
   * below 64 MiB. A named profile says how many itself. Default: `"auto"`.
   */
  readonly workers?: number | "auto" | undefined;
}

/** The rules, checked. */
export interface CodecRules {
  readonly otherwise: CodecRule;
  readonly kinds: ReadonlyMap<TensorKind, CodecRule>;
  readonly tags: ReadonlyMap<string, CodecRule>;
  readonly workers: number | "auto";
  /** null: none. */
  readonly targets: ByteTargets | null;
  /** Records are coded anew on their way down. */
  readonly isColderSmaller: boolean;
  /** What is swapped out goes to a warm tier first, and down from there. */
  readonly hasWarm: boolean;
  /** Nothing is coded, whatever the rules allow. Default: false. */
  readonly isOff?: boolean;
}

/** @throws {MisuseError} `bad-option`, `bad-kind`. */
export function checkCodecOptions(options: unknown, hasWarm: boolean): CodecRules {
  const given = checkObject(options ?? {}, "codecs", [
    "default",
    "kinds",
    "tags",
    "workers",
    "colder",
    "targets",
  ]);
  const otherwise = checkRule(
    given["default"] ?? (hasWarm ? "lossless" : "auto"),
    "codecs.default",
  );
  if (typeof otherwise === "object") {
    throw new MisuseError("bad-option", "codecs.default is auto, raw, lossless or when-full");
  }
  const kinds = new Map<TensorKind, CodecRule>();
  for (const [kind, rule] of Object.entries(
    checkObject(given["kinds"] ?? {}, "codecs.kinds", TENSOR_KINDS),
  )) {
    if (rule !== undefined) kinds.set(checkKind(kind), checkRule(rule, `codecs.kinds.${kind}`));
  }
  const tags = new Map<string, CodecRule>();
  const givenTags = given["tags"] ?? {};
  for (const [tag, rule] of Object.entries(
    checkObject(givenTags, "codecs.tags", Object.keys(givenTags)),
  )) {
    tags.set(tag, checkRule(rule, `codecs.tags.${tag}`));
  }
  const colder = given["colder"] ?? "as-is";
  if (colder !== "as-is" && colder !== "smaller") {
    throw new MisuseError("bad-option", "codecs.colder is as-is or smaller");
  }
  const isColderSmaller = colder === "smaller";
  const targets = checkTargets(given["targets"]);
  return {
    otherwise,
    kinds,
    tags,
    targets,
    isColderSmaller,
    hasWarm,
    workers: checkWorkers(given["workers"] ?? "auto"),
  };
}

function checkTargets(targets: unknown): ByteTargets | null {
  if (targets === undefined) return null;
  if (typeof (targets as ByteTargets | null)?.choose === "function") return targets as ByteTargets;
  throw new MisuseError("bad-option", "codecs.targets is what byteTargets() returns");
}

function checkWorkers(count: unknown): number | "auto" {
  const isCount = Number.isInteger(count) && (count as number) >= 0 && (count as number) <= 16;
  if (count === "auto" || isCount) return count as number | "auto";
  throw new MisuseError("bad-option", `codecs.workers ${describe(count)} is not from 0 to 16`);
}

/** A tensor's own error budget, or null if it has none. @throws {MisuseError} `bad-option`. */
export function checkErrorBudget(budget: unknown): TensorErrorBudget | null {
  if (budget === undefined) return null;
  return budget === "exact" ? budget : checkLimit(budget, "budget");
}

/** Whether this is a rule that has a name. */
export function isCodecName(rule: unknown): rule is Exclude<CodecRule, ErrorLimit> {
  return rule === "auto" || rule === "raw" || rule === "lossless" || rule === "when-full";
}

function checkRule(rule: unknown, name: string): CodecRule {
  if (isCodecName(rule)) return rule;
  return checkLimit(rule, name);
}

/** A copy, because a caller's object may change. */
function checkLimit(limit: unknown, name: string): ErrorLimit {
  const { metric, epsilon } = checkObject(limit, name, ["metric", "epsilon"]);
  if (metric !== "relative" && metric !== "max") {
    throw new MisuseError("bad-option", `${name}.metric is relative or max`);
  }
  if (typeof epsilon !== "number" || !(epsilon >= 0 && epsilon <= 1)) {
    throw new MisuseError("bad-option", `${name}.epsilon ${describe(epsilon)} is not from 0 to 1`);
  }
  return Object.freeze({ metric, epsilon });
}
