// What callers may ask for, and its validation. Everything wrong is a MisuseError before anything
// changes.
import type { WasmSource } from "../core/module-instance.js";
import { MisuseError } from "../errors.js";
import type { GpuDevice } from "../gpu/gpu-device.js";
import type { HardwareProfile } from "../hardware/hardware-profile.js";
import { TENSOR_BYTES_MAX } from "../limits.js";
import type { DeviceTierFactory } from "../tier/device-tier.js";
import type { TierFactory } from "../tier/tier.js";
import {
  type ByteSize,
  checkBytes,
  checkKind,
  checkLayout,
  type Dtype,
  dtypeTraits,
  type Layout,
  parseByteSize,
  RANK_MAX,
  type Shape,
  shapeBytes,
  TENSOR_KINDS,
  type TensorErrorBudget,
  type TensorKind,
} from "../types.js";
import {
  type CompactionOptions,
  type CompactionPolicy,
  checkCompaction,
} from "./auto-compaction.js";
import { type BrowserStoreOptions, checkBrowserStore } from "./browser-store-options.js";
import {
  checkAlignment,
  checkFactory,
  checkFlag,
  checkId,
  checkMs,
  checkNamespacePart,
  checkObject,
  checkSignal,
} from "./checks.js";
import {
  type CodecOptions,
  type CodecRules,
  checkCodecOptions,
  checkErrorBudget,
} from "./codec-options.js";
import type { FeatureOptions } from "./feature-options.js";
import { checkSeams, type Seams } from "./seams.js";
import { checkWatermarks } from "./watermarks.js";

/** The size of a tensor: its shape, or a plain number of bytes. */
export type TensorExtent<D extends Dtype> =
  | {
      /** 1 to 8 lengths of at least 1, outermost first. */
      readonly shape: Shape;
      readonly dtype: D;
      readonly byteLength?: undefined;
    }
  | {
      /** 1 to 2^32 − 1; the tensor is then `u8` of shape `[byteLength]`. */
      readonly byteLength: number;
      readonly shape?: undefined;
      readonly dtype?: undefined;
    };

export type TensorOptions<D extends Dtype = Dtype> = TensorExtent<D> & {
  readonly kind: TensorKind;
  /**
   * Any well-formed string of at most 49,152 UTF-8 bytes, unused in this memory, that does not begin
   * with `tierheap/content/`. Default: none; the tensor is then anonymous and stays resident until it
   * is freed.
   */
  readonly id?: string | undefined;
  /** Default: `"row-major"`. A label that travels with the tensor. */
  readonly layout?: Layout | undefined;
  /** A power of two up to 65,536. Default: the element's size. */
  readonly alignment?: number | undefined;
  /** Default: false. Fresh bytes are otherwise whatever their last owner left. */
  readonly zero?: boolean | undefined;
  /**
   * Whether pressure may drop it instead of writing it to a colder tier: for what its owner can make
   * again, such as the KV of a prompt. `acquire` then gives null. Once it was saved it is not dropped
   * any more. Needs an id. Default: false.
   */
  readonly disposable?: boolean | undefined;
  /**
   * What computing it again would take, in milliseconds, at least 0. What costs little to have back
   * leaves sooner. Default: unknown; `acquire` may tell it later.
   */
  readonly recomputeMs?: number | undefined;
  /** A label for leak reports, statistics and `codecs.tags`. Default: empty. */
  readonly tag?: string | undefined;
  /**
   * What the place of this call is called: what it allocates is expected to live as long as what it
   * allocated before. A tensor with an id and a site, or a told lifetime, is registered for collection
   * (see `lifetimes`). Default: the tag; within a scope that is its name, unless another tag is given.
   */
  readonly site?: string | undefined;
  /**
   * How long it is expected to be needed, in milliseconds, above 0. Counts until its site has a history
   * of its own. Needs an id. Default: unknown.
   */
  readonly lifetimeMs?: number | undefined;
  /**
   * How much its values may change when it leaves RAM, also by `save`; `"exact"`: not at all, whatever
   * `codecs` says. Each time it was written in RAM, it may change anew. Default: what `codecs` says.
   */
  readonly budget?: TensorErrorBudget | undefined;
};

export interface TensorMemoryOptions {
  /** A profile, the name of a preset, or `"auto"`. Default: `"auto"`. */
  readonly profile?: HardwareProfile | string | undefined;
  /**
   * With the profile `"auto"` and `budgets.ssd`: what was measured of this machine and kept beside the store is
   * used in any case. `true`: where nothing valid is kept, it is measured now, in at most 300 ms; with a WebGPU
   * device of the caller's, that too. `npx tierheap doctor` does the same. Default: false.
   */
  readonly calibrate?: boolean | { readonly gpu: GpuDevice } | undefined;
  readonly budgets?:
    | {
        /** Default: an eighth of the machine's memory. At least 4 MiB. */
        readonly ram?: ByteSize | "auto" | undefined;
        /** Default: off. Physical bytes on the SSD tier. */
        readonly ssd?: ByteSize | undefined;
        /** Default: off. Bytes of RAM, inside `ram`, for objects that have left the arenas. */
        readonly warm?: ByteSize | undefined;
        /** Default: off. Physical bytes in `hdd.directory`. Node only. */
        readonly hdd?: ByteSize | undefined;
        /** Default: no limit, if `remote` is given. */
        readonly remote?: ByteSize | undefined;
        /** Default: 256 MiB, if `gpu` is given. Bytes of all its buffers, free ones included. */
        readonly gpu?: ByteSize | "auto" | undefined;
      }
    | undefined;
  /**
   * In how many bytes tensors are written when they leave RAM, and how much they may change by that.
   * Default: lossless, where that is measured to be faster, or the tier is nearly full. With
   * `budgets.ram` below 16 MiB everything is written as it is.
   */
  readonly codecs?: CodecOptions | undefined;
  /** Budgets per kind, inside `budgets.ram`. Default: all kinds share it. */
  readonly pools?: Partial<Record<TensorKind, { readonly budget: ByteSize }>> | undefined;
  readonly ssd?:
    | {
        /** Where the records lie. Default: `".tierheap"`. In browsers in the private file system. */
        readonly directory?: string | undefined;
        /** Browsers only. */
        readonly browser?: BrowserStoreOptions | undefined;
        /**
         * `"cache"`: demotions are not synced to the device; a power cut may lose them, never a
         * crash of the process. `"durable"`: they are. Default: `"cache"`.
         */
        readonly mode?: "cache" | "durable" | undefined;
      }
    | undefined;
  /**
   * Shares of `budgets.ram`, 0 to 1: above `high` the background copies to the colder tier, if there is one,
   * until all that is above `low` could leave without a write. The tensors stay in RAM; requests that need
   * their room do not wait. Default: 0.8, and 0.1 less than `high`. At a `high` of 1 nothing is copied.
   */
  readonly watermarks?:
    | { readonly high?: number | undefined; readonly low?: number | undefined }
    | undefined;
  readonly limits?:
    | {
        /**
         * Resident memory of the whole process above which, from the high watermark of it on, tensors are
         * demoted and emptied arenas are dropped. Default: no limit. Not in browsers, which do not tell.
         */
        readonly rss?: ByteSize | undefined;
      }
    | undefined;
  readonly hdd?:
    | {
        /** Where the records lie that the SSD has no room for. Default: `".tierheap-hdd"`. */
        readonly directory?: string | undefined;
      }
    | undefined;
  /** The lowest tier, on another machine: what `redisTier()` of `tierheap/tiers/redis` returns. Default: off. */
  readonly remote?: TierFactory | undefined;
  /** The GPU above RAM: what `webgpuTier()` of `tierheap/tiers/webgpu` returns. Default: off. */
  readonly gpu?: DeviceTierFactory | undefined;
  /** Whose records these are. Nothing is shared between namespaces. Default: empty. */
  readonly namespace?:
    | { readonly tenant?: string | undefined; readonly fingerprint?: string | undefined }
    | undefined;
  /**
   * Canary bytes behind every tensor, freed bytes overwritten and kept from use for a while, and call
   * sites in what is told about a tensor: a write past an end or after a free becomes a `GuardError`
   * and an event, and `verify` lists it. Default: false. Slow.
   */
  readonly debug?: boolean | undefined;
  /**
   * Whether workers can be given tensors and room for their own: `memory.share()`. Default: false.
   * Views then lie on shared memory, which native ONNX Runtime and some platform APIs refuse: give
   * them copies. In browsers it needs a cross-origin isolated page; `"auto"` is true in those and in Node, and
   * false elsewhere.
   */
  readonly shared?: boolean | "auto" | undefined;
  /**
   * When blocks are moved together, and out of arenas that their kind can do without. `"auto"`: in short
   * steps in the background, once the free space of a kind is in too many pieces, and under pressure.
   * `"on-demand"`: under pressure and by `compact` and `trim` alone. An object: `"auto"` with other limits.
   * Default: `"auto"`.
   */
  readonly compaction?: "auto" | "on-demand" | CompactionOptions | undefined;
  /**
   * Optimisations by themselves: `"auto"`, on, and off for a while whenever one costs more than it gives; `true`,
   * on whatever it costs; `false`, off. Default: `"auto"` for each.
   */
  readonly features?: FeatureOptions | undefined;
  /**
   * `"full"`: `stats()` also has latency histograms and samples over time. `"counters"`: it has counters alone.
   * Default: `"full"`.
   */
  readonly statistics?: "full" | "counters" | undefined;
  /**
   * Which registered tensors leave RAM before the others because they seem to be over: from the low
   * watermark on, the more often the fuller. What somebody uses again all the same costs a restore; only
   * disposable tensors may be dropped. Default: learnt. `false`: none.
   */
  readonly lifetimes?: LifetimeOptions | false | undefined;
  /** Aborts the opening. */
  readonly signal?: AbortSignal | undefined;
  /** Where the modules come from, for pages whose policy forbids the inline ones. */
  readonly wasm?:
    | { readonly core?: WasmSource | undefined; readonly kernels?: WasmSource | undefined }
    | undefined;
  /** Replaceable parts; each has a documented seam. For tests and for experiments. */
  readonly seams?: Partial<Seams> | undefined;
}

/** How lifetimes are predicted; see `tierheap/policies` for predictors to inject as a seam. */
export interface LifetimeOptions {
  /**
   * `"learnt"`: per kind and site, from how long earlier tensors lived and were idle. `"told"`: a tensor
   * is over at the end of its `lifetimeMs`, or when it was idle for 80 % of that. Default: `"learnt"`.
   */
  readonly rule?: "learnt" | "told" | undefined;
  /** Most of the learnt rule's choices that may be used again, above 0 and at most 0.5. Default: 0.01. */
  readonly regretShare?: number | undefined;
}

/** A tensor's options, checked. */
export interface CheckedTensor {
  readonly kind: TensorKind;
  readonly id: string | null;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly layout: Layout;
  readonly byteLength: number;
  readonly alignment: number;
  readonly isZeroed: boolean;
  readonly isDisposable: boolean;
  readonly tag: string;
  readonly errorBudget: TensorErrorBudget | null;
  readonly recomputeMs: number | null;
  /** Empty: not given. */
  readonly site: string;
  /** Infinity: not told. */
  readonly lifetimeMs: number;
}

/** @throws {MisuseError} `bad-*` — whatever is wrong first. */
export function checkTensorOptions(options: TensorOptions): CheckedTensor {
  const given = checkObject(options, "allocate", TENSOR_OPTION_NAMES);
  const kind = checkKind(given["kind"]);
  let dtype: Dtype = "u8";
  let shape: readonly number[];
  let byteLength: number;
  if (given["byteLength"] !== undefined) {
    if (given["shape"] !== undefined || given["dtype"] !== undefined) {
      throw new MisuseError("bad-option", "give either byteLength, or shape and dtype");
    }
    byteLength = checkBytes(given["byteLength"], "byteLength", TENSOR_BYTES_MAX);
    shape = [byteLength];
  } else {
    dtype = given["dtype"] as Dtype;
    ({ shape, byteLength } = checkShape(given["shape"], dtype));
  }
  const { elementBytes } = dtypeTraits(dtype);
  const alignment = Math.max(checkAlignment(given["alignment"] ?? 1), elementBytes);
  const tag = given["tag"] ?? "";
  if (typeof tag !== "string") throw new MisuseError("bad-option", "tag is a string");
  const id = given["id"] === undefined ? null : checkId(given["id"]);
  const isDisposable = checkFlag(given["disposable"], "disposable");
  if (isDisposable && id === null) {
    throw new MisuseError("bad-option", "a disposable tensor needs an id");
  }
  const { site = tag, lifetimeMs = Number.POSITIVE_INFINITY } = given;
  if (typeof site !== "string") throw new MisuseError("bad-option", "site is a string");
  const isTold = given["lifetimeMs"] !== undefined;
  if (isTold && (id === null || !(checkMs(lifetimeMs, "lifetimeMs") > 0))) {
    throw new MisuseError("bad-option", "lifetimeMs is above 0, and needs an id");
  }
  return {
    kind,
    id,
    dtype,
    shape,
    site,
    lifetimeMs: lifetimeMs as number,
    layout: checkLayout(given["layout"] ?? "row-major"),
    byteLength,
    alignment,
    isZeroed: checkFlag(given["zero"], "zero"),
    isDisposable,
    tag,
    errorBudget: checkErrorBudget(given["budget"]),
    recomputeMs:
      given["recomputeMs"] === undefined ? null : checkMs(given["recomputeMs"], "recomputeMs"),
  };
}

export const TENSOR_OPTION_NAMES = [
  "kind",
  "id",
  "shape",
  "dtype",
  "byteLength",
  "layout",
  "alignment",
  "zero",
  "disposable",
  "tag",
  "budget",
  "recomputeMs",
  "site",
  "lifetimeMs",
];

/** A shape that was checked, and the bytes of a dense tensor of it. Frozen, so that all may share it. */
export interface CheckedShape {
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly elementBytes: number;
}

/** Shapes that were checked lately, by a digest of their lengths: a step asks for the same again. */
const RECENT_SHAPES = 256;
const recentShapes: (CheckedShape | undefined)[] = new Array(RECENT_SHAPES).fill(undefined);

/**
 * What is checked is a copy, because a caller's array may change, or answer differently.
 *
 * @throws {MisuseError} `bad-dtype`, `bad-shape`, `bad-size`.
 */
export function checkShape(shape: unknown, dtype: unknown): CheckedShape {
  const { elementBytes } = dtypeTraits(dtype);
  const lengths: number[] = [];
  let digest = elementBytes;
  const rank = Array.isArray(shape) ? shape.length : 0;
  for (let index = 0; index < rank && rank <= RANK_MAX; index++) {
    const length: unknown = (shape as unknown[])[index];
    lengths[index] = length as number;
    digest = Math.imul(digest, 31) + (typeof length === "number" ? length : 0);
  }
  const place = digest & (RECENT_SHAPES - 1);
  const recent = recentShapes[place];
  if (recent?.elementBytes === elementBytes && isEqual(recent.shape, lengths)) return recent;
  const byteLength = checkBytes(shapeBytes(lengths, elementBytes), "the tensor", TENSOR_BYTES_MAX);
  const checked = { shape: Object.freeze(lengths), byteLength, elementBytes };
  recentShapes[place] = checked;
  return checked;
}

function isEqual(left: readonly number[], right: readonly number[]): boolean {
  if (left.length !== right.length) return false;
  for (let index = 0; index < left.length; index++) if (left[index] !== right[index]) return false;
  return true;
}

/** The memory's options, checked; sizes in bytes. */
export interface CheckedOptions {
  /** null: from the profile. */
  readonly ramBytes: number | null;
  /** 0: off. */
  readonly ssdBytes: number;
  readonly browserStore: BrowserStoreOptions;
  /** 0: off. */
  readonly warmBytes: number;
  /** 0: off. */
  readonly hddBytes: number;
  /** Infinity: no limit. */
  readonly remoteBytes: number;
  readonly gpuBytes: number;
  readonly hddDirectory: string;
  readonly poolBytes: ReadonlyMap<TensorKind, number>;
  readonly codecRules: CodecRules;
  readonly directory: string;
  readonly isDurable: boolean;
  readonly watermarks: { readonly high: number; readonly low: number };
  /** Infinity: no limit. */
  readonly rssLimitBytes: number;
  readonly tenant: string;
  readonly fingerprint: string;
  /** null: on demand. */
  readonly compaction: CompactionPolicy | null;
}

/** @throws {MisuseError} `bad-option`, `bad-size`, `bad-kind`, `unsupported`. */
export function checkMemoryOptions(options: TensorMemoryOptions): CheckedOptions {
  checkObject(options, "createTensorMemory", [
    "profile",
    "calibrate",
    "budgets",
    "codecs",
    "pools",
    "ssd",
    "namespace",
    "watermarks",
    "limits",
    "debug",
    "shared",
    "compaction",
    "signal",
    "wasm",
    "seams",
    "hdd",
    "remote",
    "features",
    "statistics",
    "gpu",
    "lifetimes",
  ]);
  checkFlag(options.debug, "debug");
  if (!["full", "counters", undefined].includes(options.statistics)) {
    throw new MisuseError("bad-option", "statistics is full or counters");
  }
  checkSignal(options.signal);
  checkObject(options.wasm ?? {}, "wasm", ["core", "kernels"]);
  checkSeams(options.seams ?? {});
  const budgets = checkObject(options.budgets ?? {}, "budgets", [
    "ram",
    "ssd",
    "gpu",
    "warm",
    "hdd",
    "remote",
  ]);
  const gpu = budgets["gpu"] === "auto" ? undefined : budgets["gpu"];
  checkFactory("remote", options.remote, budgets["remote"]);
  checkFactory("gpu", options.gpu, gpu);
  const bytesOf = (name: string, absent: number) =>
    budgets[name] === undefined ? absent : parseByteSize(budgets[name], `budgets.${name}`);
  const warmBytes = bytesOf("warm", 0);
  const ram = budgets["ram"];
  const poolBytes = new Map<TensorKind, number>();
  const pools = checkObject(options.pools ?? {}, "pools", TENSOR_KINDS);
  for (const [kind, pool] of Object.entries(pools)) {
    const { budget } = checkObject(pool, `pools.${kind}`, ["budget"]);
    poolBytes.set(checkKind(kind), parseByteSize(budget, `pools.${kind}.budget`));
  }
  const ssd = checkObject(options.ssd ?? {}, "ssd", ["directory", "mode", "browser"]);
  const directory = checkDirectory(ssd["directory"] ?? ".tierheap", "ssd");
  const hdd = checkObject(options.hdd ?? {}, "hdd", ["directory"]);
  const hddDirectory = checkDirectory(hdd["directory"] ?? ".tierheap-hdd", "hdd");
  const mode = ssd["mode"] ?? "cache";
  if (mode !== "cache" && mode !== "durable") {
    throw new MisuseError("bad-option", 'ssd.mode is "cache" or "durable"');
  }
  const limits = checkObject(options.limits ?? {}, "limits", ["rss"]);
  const namespace = checkObject(options.namespace ?? {}, "namespace", ["tenant", "fingerprint"]);
  return {
    ramBytes: ram === undefined || ram === "auto" ? null : parseByteSize(ram, "budgets.ram"),
    ssdBytes: bytesOf("ssd", 0),
    browserStore: checkBrowserStore(ssd["browser"] ?? {}),
    warmBytes,
    hddBytes: bytesOf("hdd", 0),
    remoteBytes: bytesOf("remote", Number.POSITIVE_INFINITY),
    gpuBytes: gpu === undefined ? GPU_BYTES : parseByteSize(gpu, "budgets.gpu"),
    hddDirectory,
    poolBytes,
    codecRules: checkCodecOptions(options.codecs, warmBytes > 0),
    directory,
    isDurable: mode === "durable",
    watermarks: checkWatermarks(options.watermarks),
    rssLimitBytes:
      limits["rss"] === undefined
        ? Number.POSITIVE_INFINITY
        : parseByteSize(limits["rss"], "limits.rss"),
    tenant: checkNamespacePart(namespace["tenant"] ?? "", "tenant"),
    fingerprint: checkNamespacePart(namespace["fingerprint"] ?? "", "fingerprint"),
    compaction: checkCompaction(options.compaction),
  };
}

/** What every device can be expected to have. */
const GPU_BYTES = 256 * 2 ** 20;

function checkDirectory(path: unknown, tier: string): string {
  if (typeof path !== "string" || path === "" || path.includes("\0")) {
    throw new MisuseError("bad-option", `${tier}.directory is a path`);
  }
  return path;
}
