// What callers may ask for, and its validation. Everything wrong is a MisuseError before anything
// changes.
import type { Clock } from "../clock.js";
import type { MemoryFactory } from "../core/linear-memory.js";
import type { WasmSource } from "../core/wasm-modules.js";
import { MisuseError } from "../errors.js";
import type { HardwareProfile } from "../hardware/hardware-profile.js";
import type { LifetimePredictor } from "../lifetime/lifetime-predictor.js";
import type { AdmissionPolicy } from "../policy/admission-policy.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import type { Predictor } from "../predictor/predictor.js";
import type { Random } from "../random.js";
import { ID_BYTES_MAX, NAMESPACE_BYTES_MAX } from "../record/record.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { FileSystem } from "../tier/file-system.js";
import type { Tier } from "../tier/tier.js";
import {
  type ByteSize,
  checkBytes,
  checkKind,
  checkLayout,
  type Dtype,
  describe,
  dtypeTraits,
  type Layout,
  parseByteSize,
  type Shape,
  shapeBytes,
  TENSOR_KINDS,
  type TensorKind,
} from "../types.js";

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
   * Any well-formed string of at most 49,152 UTF-8 bytes, unused in this memory. Default: none; the
   * tensor is then anonymous and stays resident until it is freed.
   */
  readonly id?: string | undefined;
  /** Default: `"row-major"`. A label that travels with the tensor. */
  readonly layout?: Layout | undefined;
  /** A power of two up to 65,536. Default: the element's size. */
  readonly alignment?: number | undefined;
  /** Default: false. Fresh bytes are otherwise whatever their last owner left. */
  readonly zero?: boolean | undefined;
  /** A label for leak reports and statistics. Default: empty. */
  readonly tag?: string | undefined;
};

export interface TensorMemoryOptions {
  /** A profile, the name of a preset, or `"auto"`. Default: `"auto"`. */
  readonly profile?: HardwareProfile | string | undefined;
  readonly budgets?:
    | {
        /** Default: an eighth of the machine's memory. At least 4 MiB. */
        readonly ram?: ByteSize | "auto" | undefined;
        /** Default: off. Physical bytes on the SSD tier. */
        readonly ssd?: ByteSize | undefined;
        /** Not built yet: only `"auto"`, which means off. */
        readonly gpu?: "auto" | undefined;
      }
    | undefined;
  /** Budgets per kind, inside `budgets.ram`. Default: all kinds share it. */
  readonly pools?: Partial<Record<TensorKind, { readonly budget: ByteSize }>> | undefined;
  readonly ssd?:
    | {
        /** Node: where the records lie. Default: `".tierheap"`. Browsers: the database's name. */
        readonly directory?: string | undefined;
        /**
         * `"cache"`: demotions are not synced to the device; a power cut may lose them, never a
         * crash of the process. `"durable"`: they are. Default: `"cache"`.
         */
        readonly mode?: "cache" | "durable" | undefined;
      }
    | undefined;
  /** Whose records these are. Nothing is shared between namespaces. Default: empty. */
  readonly namespace?:
    | { readonly tenant?: string | undefined; readonly fingerprint?: string | undefined }
    | undefined;
  /** Call sites in leak reports, and freed bytes overwritten. Default: false. Slow. */
  readonly debug?: boolean | undefined;
  /** Aborts the opening. */
  readonly signal?: AbortSignal | undefined;
  /** Where the modules come from, for pages whose policy forbids the inline ones. */
  readonly wasm?:
    | { readonly core?: WasmSource | undefined; readonly kernels?: WasmSource | undefined }
    | undefined;
  /** Replaceable parts; each has a documented seam. For tests and for experiments. */
  readonly seams?: Partial<Seams> | undefined;
}

/** Everything that is injected. */
export interface Seams {
  readonly clock: Clock;
  readonly random: Random;
  readonly createMemory: MemoryFactory;
  readonly fileSystem: FileSystem;
  /** Stands in for the platform's SSD tier; opened and closed by the memory. */
  readonly tier: Tier;
  readonly evictionPolicy: EvictionPolicy;
  readonly admissionPolicy: AdmissionPolicy;
  readonly predictor: Predictor;
  readonly lifetimePredictor: LifetimePredictor;
  readonly statsSink: StatsSink;
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
  readonly tag: string;
}

/** A block's length is 32 bits wide in the core. */
export const TENSOR_BYTES_MAX = 2 ** 32 - 1;
const ALIGNMENT_MAX = 65536;

const utf8 = new TextEncoder();

/** @throws {MisuseError} `bad-id`. */
export function checkId(id: unknown): string {
  if (typeof id !== "string" || !id.isWellFormed()) {
    throw new MisuseError("bad-id", `${describe(id)} is not a well-formed string`);
  }
  if (id.length > ID_BYTES_MAX || utf8.encode(id).byteLength > ID_BYTES_MAX) {
    throw new MisuseError("bad-id", `an id has at most ${ID_BYTES_MAX} UTF-8 bytes`);
  }
  return id;
}

/** @throws {MisuseError} `bad-alignment`. */
export function checkAlignment(alignment: unknown): number {
  const isPower =
    Number.isSafeInteger(alignment) &&
    (alignment as number) >= 1 &&
    (alignment as number) <= ALIGNMENT_MAX &&
    Math.log2(alignment as number) % 1 === 0;
  if (!isPower) {
    throw new MisuseError("bad-alignment", `alignment is a power of two up to ${ALIGNMENT_MAX}`);
  }
  return alignment as number;
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
    const { elementBytes } = dtypeTraits(given["dtype"]);
    dtype = given["dtype"] as Dtype;
    byteLength = checkBytes(
      shapeBytes(given["shape"], elementBytes),
      "the tensor",
      TENSOR_BYTES_MAX,
    );
    shape = Object.freeze([...(given["shape"] as number[])]);
  }
  const { elementBytes } = dtypeTraits(dtype);
  const alignment = Math.max(checkAlignment(given["alignment"] ?? 1), elementBytes);
  const tag = given["tag"] ?? "";
  if (typeof tag !== "string") throw new MisuseError("bad-option", "tag is a string");
  return {
    kind,
    id: given["id"] === undefined ? null : checkId(given["id"]),
    dtype,
    shape,
    layout: checkLayout(given["layout"] ?? "row-major"),
    byteLength,
    alignment,
    isZeroed: given["zero"] === true,
    tag,
  };
}

const TENSOR_OPTION_NAMES = [
  "kind",
  "id",
  "shape",
  "dtype",
  "byteLength",
  "layout",
  "alignment",
  "zero",
  "tag",
];

/** @throws {MisuseError} `bad-option` — not an object, or with a member that means nothing. */
export function checkObject(
  value: unknown,
  name: string,
  known: readonly string[],
): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) {
    throw new MisuseError("bad-option", `${name}: options are an object`);
  }
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) {
      throw new MisuseError("bad-option", `${name}: unknown option ${describe(key)}`);
    }
  }
  return value as Record<string, unknown>;
}

/** The memory's options, checked; sizes in bytes. */
export interface CheckedOptions {
  /** null: from the profile. */
  readonly ramBytes: number | null;
  /** 0: off. */
  readonly ssdBytes: number;
  readonly poolBytes: ReadonlyMap<TensorKind, number>;
  readonly directory: string;
  readonly isDurable: boolean;
  readonly tenant: string;
  readonly fingerprint: string;
}

/** @throws {MisuseError} `bad-option`, `bad-size`, `bad-kind`, `unsupported`. */
export function checkMemoryOptions(options: TensorMemoryOptions): CheckedOptions {
  checkObject(options, "createTensorMemory", [
    "profile",
    "budgets",
    "pools",
    "ssd",
    "namespace",
    "debug",
    "signal",
    "wasm",
    "seams",
    "remote",
  ]);
  const budgets = checkObject(options.budgets ?? {}, "budgets", [
    "ram",
    "ssd",
    "gpu",
    "warm",
    "hdd",
    "remote",
  ]);
  for (const tier of ["gpu", "warm", "hdd", "remote"]) {
    const budget =
      budgets[tier] ?? (tier === "remote" ? (options as { remote?: unknown }).remote : undefined);
    if (budget !== undefined && budget !== "auto") {
      throw new MisuseError("unsupported", `the ${tier} tier is not built yet`);
    }
  }
  const ram = budgets["ram"];
  const poolBytes = new Map<TensorKind, number>();
  const pools = checkObject(options.pools ?? {}, "pools", TENSOR_KINDS);
  for (const [kind, pool] of Object.entries(pools)) {
    const { budget } = checkObject(pool, `pools.${kind}`, ["budget"]);
    poolBytes.set(checkKind(kind), parseByteSize(budget, `pools.${kind}.budget`));
  }
  const ssd = checkObject(options.ssd ?? {}, "ssd", ["directory", "mode"]);
  const directory = ssd["directory"] ?? ".tierheap";
  if (typeof directory !== "string" || directory === "" || directory.includes("\0")) {
    throw new MisuseError("bad-option", "ssd.directory is a path");
  }
  const mode = ssd["mode"] ?? "cache";
  if (mode !== "cache" && mode !== "durable") {
    throw new MisuseError("bad-option", 'ssd.mode is "cache" or "durable"');
  }
  const namespace = checkObject(options.namespace ?? {}, "namespace", ["tenant", "fingerprint"]);
  return {
    ramBytes: ram === undefined || ram === "auto" ? null : parseByteSize(ram, "budgets.ram"),
    ssdBytes: budgets["ssd"] === undefined ? 0 : parseByteSize(budgets["ssd"], "budgets.ssd"),
    poolBytes,
    directory,
    isDurable: mode === "durable",
    tenant: checkNamespacePart(namespace["tenant"] ?? "", "tenant"),
    fingerprint: checkNamespacePart(namespace["fingerprint"] ?? "", "fingerprint"),
  };
}

function checkNamespacePart(text: unknown, name: string): string {
  if (
    typeof text !== "string" ||
    !text.isWellFormed() ||
    utf8.encode(text).byteLength > NAMESPACE_BYTES_MAX
  ) {
    throw new MisuseError("bad-option", `namespace.${name} is a well-formed string`);
  }
  return text;
}
