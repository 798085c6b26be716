// What callers ask a plan for, and its validation. Layer: plan.
import { MisuseError } from "../errors.js";
import { checkObject } from "../memory/checks.js";
import { type ByteSize, checkBytes, checkKind, parseByteSize, type TensorKind } from "../types.js";
import { KV_FORMS, type KvForm } from "./kv-bytes.js";
import { checkModel, type KvDtype, type ModelShape } from "./models.js";

/** Tiers below RAM, the warmest first. */
export const COLD_TIERS = ["warm", "ssd", "hdd", "remote"] as const;
export type ColdTier = (typeof COLD_TIERS)[number];

/** How fast a tier is read. */
export interface TierSpeed {
  /** Milliseconds before the first byte, 0 or more. Default: 0. */
  readonly latencyMs?: number;
  /** Of all transfers together, above 0. */
  readonly bytesPerSecond: number;
}

export interface PlanRequest {
  /** A published model's name (see `MODEL_SHAPES`), or a shape. */
  readonly model:
    | string
    | (Pick<ModelShape, "layers" | "kvHeads" | "headDim"> & Partial<ModelShape>);
  /** 1 or more. */
  readonly chats: number;
  /** Tokens in the KV of each chat, those of images included: one number for all, or one for each. */
  readonly tokens: number | readonly number[];
  /** First tokens that all chats have in common; their pages are there once. Default: 0. */
  readonly sharedTokens?: number;
  /** Images of each chat whose features are kept. Default: none. */
  readonly images?:
    | { readonly count: number /** Pixels. */; readonly width: number; readonly height: number }
    | undefined;
  /** Element type of KV and features. Default: the model's. */
  readonly dtype?: KvDtype | undefined;
  /** Default: `"exact"`. */
  readonly kv?: KvForm | undefined;
  /** Tokens of a KV page. Default: 64. */
  readonly pageTokens?: number | undefined;
  /** Bits of a weight, where the weights lie in the heap too. Default: they do not. */
  readonly weightBits?: number | undefined;
  /** What else lies there all the time. */
  readonly tensors?:
    | readonly {
        readonly kind: TensorKind;
        readonly count: number;
        /** Of each. */
        readonly bytes: ByteSize;
      }[]
    | undefined;
  /** As of `createTensorMemory`. Default: those of the memory that is asked. */
  readonly budgets?:
    | ({ readonly ram: ByteSize } & { readonly [tier in ColdTier]?: ByteSize | undefined })
    | undefined;
  /** Default: what the memory has measured, else a guess, which the plan says. */
  readonly speeds?: { readonly [tier in ColdTier]?: TierSpeed | undefined } | undefined;
  /** Bytes of a record for each byte of a tensor, above 0. Default: measured by the memory, else 1. */
  readonly storedRatio?: number | undefined;
}

/** A request, checked; sizes in bytes. */
export interface CheckedPlan {
  readonly model: ModelShape;
  /** One for each chat. */
  readonly tokens: readonly number[];
  readonly sharedTokens: number;
  readonly images: { readonly count: number; readonly tokens: number };
  readonly dtype: KvDtype;
  readonly form: KvForm;
  readonly pageTokens: number;
  /** 0: the weights lie elsewhere. */
  readonly weightBytes: number;
  readonly tensors: readonly { kind: TensorKind; count: number; bytes: number }[];
  /** null: those of the memory. */
  readonly budgets: PlanBudgets | null;
  readonly speeds: { readonly [tier in ColdTier]?: TierSpeed | undefined };
  readonly storedRatio: number | null;
}

/** In bytes; 0: the tier is off. */
export type PlanBudgets = { readonly [tier in "ram" | ColdTier]: number };

/** Enough for any machine, and few enough to plan at once. */
const CHATS_MAX = 100_000;
const TOKENS_MAX = 2 ** 30;
const PAGE_TOKENS = 64;

function refuse(message: string): never {
  throw new MisuseError("bad-option", `plan: ${message}`);
}

function checkCount(value: unknown, name: string, least: number, most: number): number {
  if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) {
    return value as number;
  }
  return refuse(`${name} is an integer from ${least} to ${most}`);
}

function checkTokens(given: unknown, chats: number): number[] {
  if (!Array.isArray(given)) {
    const tokens = checkCount(given, "tokens", 0, TOKENS_MAX);
    return Array.from({ length: chats }, () => tokens);
  }
  if (given.length !== chats) return refuse(`tokens are one number, or ${chats} for the chats`);
  return given.map((each) => checkCount(each, "tokens", 0, TOKENS_MAX));
}

function checkImages(given: PlanRequest["images"], model: ModelShape): CheckedPlan["images"] {
  if (given === undefined) return { count: 0, tokens: 0 };
  const { count, width, height } = checkObject(given, "plan", ["count", "width", "height"]);
  if (model.vision === undefined) return refuse(`${model.name} has no vision part`);
  const side = (pixels: unknown, name: string) =>
    Math.ceil(checkCount(pixels, name, 1, 2 ** 20) / (model.vision?.tokenPixels ?? 1));
  const tokens = side(width, "images.width") * side(height, "images.height");
  return { count: checkCount(count, "images.count", 0, 2 ** 16), tokens };
}

function checkBudgets(given: PlanRequest["budgets"]): PlanBudgets | null {
  if (given === undefined) return null;
  checkObject(given, "plan", ["ram", ...COLD_TIERS]);
  const bytesOf = (name: ColdTier) =>
    given[name] === undefined ? 0 : parseByteSize(given[name], `budgets.${name}`);
  const ram = parseByteSize(given.ram, "budgets.ram");
  const [warm, ssd, hdd, remote] = [
    bytesOf("warm"),
    bytesOf("ssd"),
    bytesOf("hdd"),
    bytesOf("remote"),
  ];
  if (warm >= ram) return refuse("budgets.warm is inside budgets.ram");
  return { ram, warm, ssd, hdd, remote };
}

function checkSpeeds(given: PlanRequest["speeds"]): CheckedPlan["speeds"] {
  checkObject(given ?? {}, "plan", COLD_TIERS);
  for (const [name, speed] of Object.entries(given ?? {})) {
    if (speed === undefined) continue;
    const { latencyMs = 0, bytesPerSecond } = checkObject(speed, "plan", [
      "latencyMs",
      "bytesPerSecond",
    ]) as Partial<TierSpeed>;
    const isSpeed = Number.isFinite(bytesPerSecond) && (bytesPerSecond as number) > 0;
    if (!isSpeed || !Number.isFinite(latencyMs) || latencyMs < 0) {
      return refuse(`speeds.${name} has bytesPerSecond above 0, and latencyMs from 0 on`);
    }
  }
  return given ?? {};
}

/** @throws {MisuseError} `bad-*` — whatever is wrong first. */
export function checkPlanRequest(request: PlanRequest): CheckedPlan {
  checkObject(request, "plan", [
    ...["model", "chats", "tokens", "sharedTokens", "images", "dtype", "kv", "pageTokens"],
    ...["weightBits", "tensors", "budgets", "speeds", "storedRatio"],
  ]);
  const model = checkModel(request.model);
  const chats = checkCount(request.chats, "chats", 1, CHATS_MAX);
  const tokens = checkTokens(request.tokens, chats);
  const sharedTokens = checkCount(request.sharedTokens ?? 0, "sharedTokens", 0, TOKENS_MAX);
  if (sharedTokens > Math.min(...tokens)) {
    return refuse("sharedTokens are at most those of the shortest chat");
  }
  const images = checkImages(request.images, model);
  if (images.count * images.tokens > Math.min(...tokens)) {
    return refuse(`tokens include those of images, ${images.tokens} of each`);
  }
  const { dtype = model.dtype, kv = "exact", weightBits, storedRatio } = request;
  if (dtype !== "f32" && dtype !== "f16" && dtype !== "bf16") {
    throw new MisuseError("bad-dtype", "KV is planned as f32, f16 or bf16");
  }
  if (!KV_FORMS.includes(kv)) return refuse(`kv is one of ${KV_FORMS.join(", ")}`);
  if (kv === "tensors" && sharedTokens > 0) return refuse("only pages are shared");
  if (weightBits !== undefined && model.parameterCount === undefined) {
    return refuse(`how many weights ${model.name} has is not known`);
  }
  const bits = weightBits === undefined ? 0 : checkCount(weightBits, "weightBits", 1, 64);
  if (storedRatio !== undefined && !(Number.isFinite(storedRatio) && storedRatio > 0)) {
    return refuse("storedRatio is a number above 0");
  }
  const { tensors = [] } = request;
  if (!Array.isArray(tensors)) return refuse("tensors are an array");
  return {
    ...{ model, tokens, sharedTokens, images, dtype, form: kv },
    pageTokens: checkCount(request.pageTokens ?? PAGE_TOKENS, "pageTokens", 1, 2 ** 16),
    weightBytes: Math.ceil(((model.parameterCount ?? 0) * bits) / 8),
    tensors: tensors.map((each) => {
      const { kind, count, bytes } = checkObject(each, "plan", ["kind", "count", "bytes"]);
      return {
        kind: checkKind(kind),
        count: checkBytes(count, "count"),
        bytes: parseByteSize(bytes, "bytes"),
      };
    }),
    budgets: checkBudgets(request.budgets),
    speeds: checkSpeeds(request.speeds),
    storedRatio: storedRatio ?? null,
  };
}
