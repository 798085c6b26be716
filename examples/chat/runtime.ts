/**
 * Runs a decoder-only ONNX model one step at a time, over KV memory that the caller owns. It loads
 * onnxruntime-node, or onnxruntime-web where the native library cannot load, and finds the KV
 * inputs by the names that common exporters give them. It keeps no KV between steps, samples
 * greedily, and knows nothing about where the past comes from.
 *
 * Sources:
 *   1. ONNX Runtime, JavaScript API reference — sessions, tensors, input and output metadata.
 *   2. Hugging Face Optimum, ONNX export of decoders — `past_key_values.N.key`, `present.N.key`,
 *      `position_ids`, `use_cache_branch`.
 */
import { readFile, stat } from "node:fs/promises";
import type { InferenceSession, Tensor } from "onnxruntime-common";
import { type IntegerType, plainInputs, type StepInputs } from "./step-inputs.js";

/** What is wrong, in a form that a program can test. */
export type RuntimeErrorCode =
  | "model-missing"
  | "model-unreadable"
  | "model-unsupported"
  | "runtime-missing"
  | "bad-input"
  | "run-failed"
  | "closed";

/** A failure of the runtime; its message is one line and says what to do. */
export class RuntimeError extends Error {
  override readonly name = "RuntimeError";
  readonly code: RuntimeErrorCode;

  constructor(code: RuntimeErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Shape of one token's share of the KV cache. */
export interface KvShape {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly dtype: "f32" | "f16";
}

/**
 * KV tensors in the order 0.key, 0.value, 1.key, …: `2 * layers` entries, each contiguous
 * [1, kvHeads, tokens, headDim], as Float32Array or, for f16, as the bit patterns in a Uint16Array.
 */
export type KvViews = readonly (Float32Array | Uint16Array)[];

/** What one step of the model yields. */
export interface StepResult {
  /** The most probable next token; the lowest id where several are equal. */
  readonly nextToken: number;
  /** KV of past and new tokens together. The runtime's memory, never reused: valid while kept. */
  readonly present: KvViews;
  /** Distance from the best logit to the second: how far rounding is from changing the token. */
  readonly logitGap: number;
}

/** A loaded model. */
export interface DecoderRuntime {
  /** The package that runs it, `onnxruntime-node` or `onnxruntime-web`. */
  readonly name: string;
  readonly kv: KvShape;
  /**
   * Runs the model over `tokens`, given the KV of the `pastTokens` before them.
   *
   * @param tokens At least one token id, each below the vocabulary.
   * @param past KV of `pastTokens` tokens; ignored, and may be empty, when `pastTokens` is 0.
   *   Views over a `WebAssembly.Memory` are fed as they are; this file copies nothing.
   * @param inputs Where ids, positions and mask lie during the step. Default: plain arrays.
   * @throws {RuntimeError} bad-input — a token or a view does not fit the model; run-failed — the
   *   runtime refused; closed — after {@link DecoderRuntime.close}.
   * @remarks The runtime reads `past` after this call has returned its promise. The caller keeps
   *   every block behind it pinned, unmoved and unwritten, and its memory ungrown, until the
   *   promise settles. Equal inputs give equal results.
   */
  step(
    tokens: readonly number[] | Uint8Array,
    past: KvViews,
    pastTokens: number,
    inputs?: StepInputs,
  ): Promise<StepResult>;
  /**
   * Releases the session; later calls do nothing. Results already returned stay valid. Not to be
   * called while a step is pending.
   */
  close(): Promise<void>;
}

/** The part of ONNX Runtime's namespace that this file uses. */
export type OrtNamespace = Pick<typeof import("onnxruntime-common"), "InferenceSession" | "Tensor">;

/** One way to run a model. */
export interface RuntimeCandidate {
  readonly name: string;
  /** Execution providers for the session. Named, since both packages share one registry. */
  readonly providers: readonly string[];
  /** Whether it reads a model by path, which models with external data need. */
  readonly readsPaths: boolean;
  /** Imports the package; rejects where it is absent or cannot load. */
  load(): Promise<OrtNamespace>;
}

/** The native runtime: the fastest, where its library loads. */
export const NATIVE_RUNTIME: RuntimeCandidate = {
  name: "onnxruntime-node",
  providers: ["cpu"],
  readsPaths: true,
  load: async () => namespaceOf(await import("onnxruntime-node")),
};

/** The WebAssembly runtime: slower, and runs everywhere. */
export const WASM_RUNTIME: RuntimeCandidate = {
  name: "onnxruntime-web",
  providers: ["wasm"],
  readsPaths: false,
  load: async () => namespaceOf(await import("onnxruntime-web")),
};

/** What to open, and with what. */
export interface OpenRuntimeOptions {
  /** The bytes of an ONNX file, or the path of one. */
  readonly model: Uint8Array | string;
  /** Ends the opening between its stages; the rejection is then the signal's reason. */
  readonly signal?: AbortSignal;
  /** Runtimes to try, in order. Default: the native one, then WebAssembly. */
  readonly candidates?: readonly RuntimeCandidate[];
}

/** ONNX Runtime's severity "fatal": what it logs below that also rejects, or concerns exporters. */
const LOG_SEVERITY_FATAL = 4;

/** Longest part of a runtime's own message that ours quotes, in characters. */
const CAUSE_LENGTH_MAX = 160;

/** Marks a valid file with foreign contents: ONNX Runtime's errors carry no type of their own. */
const FOREIGN_CONTENTS =
  /no op registered|not a registered|not.implemented|find an implementation|unsupported|opset/i;

const PAST_NAME = /^past_key_values\.(\d+)\.(key|value)$/;
const INTEGER_NAME = /^(?:input_ids|attention_mask|position_ids)$/;
const CACHE_BRANCH_NAME = "use_cache_branch";
const LOGITS_NAME = "logits";
const CACHE_PARTS = ["key", "value"] as const;

type TensorMetadata = InferenceSession.TensorValueMetadata;

/** How to feed one model, and how to read it. */
interface Contract {
  readonly kv: KvShape;
  readonly pastNames: readonly string[];
  readonly presentNames: readonly string[];
  /** Integer inputs the model has, with their element types. */
  readonly integerInputs: ReadonlyMap<string, IntegerType>;
  readonly hasCacheBranch: boolean;
  /** Number of token ids, where the model states it. */
  readonly vocabulary: number | undefined;
}

/** CommonJS packages arrive as the default export of their namespace. */
function namespaceOf(module: OrtNamespace & { default?: OrtNamespace }): OrtNamespace {
  return module.default?.InferenceSession === undefined ? module : module.default;
}

function firstLineOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const line = message.split("\n", 1)[0] ?? "";
  return line.length > CAUSE_LENGTH_MAX ? `${line.slice(0, CAUSE_LENGTH_MAX - 1)}…` : line;
}

function unsupported(problem: string, advice: string, options?: ErrorOptions): RuntimeError {
  const message = `The model cannot be used: ${problem}. ${advice}`;
  return new RuntimeError("model-unsupported", message, options);
}

const EXPORT_ADVICE =
  "Export a decoder with its KV cache (text-generation-with-past), batch first.";

/**
 * Opens a model.
 *
 * @returns A runtime that the caller closes.
 * @throws {RuntimeError} model-missing — no file at the path; model-unreadable — not a whole ONNX
 *   file; model-unsupported — a valid file, but no decoder of the expected form; runtime-missing —
 *   no candidate loads.
 */
export async function openRuntime(options: OpenRuntimeOptions): Promise<DecoderRuntime> {
  const { model, signal, candidates = [NATIVE_RUNTIME, WASM_RUNTIME] } = options;
  signal?.throwIfAborted();
  if (typeof model === "string") await checkReadable(model);
  signal?.throwIfAborted();
  const [candidate, ort] = await loadFirst(candidates);
  signal?.throwIfAborted();
  const session = await createSession(candidate, ort, model);
  try {
    signal?.throwIfAborted();
    return new OrtDecoder(candidate.name, ort, session, readContract(session));
  } catch (error) {
    await session.release();
    throw error;
  }
}

async function checkReadable(path: string): Promise<void> {
  let isFile: boolean;
  try {
    isFile = (await stat(path)).isFile();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") {
      const message = `There is no model at ${path}: give the path of an ONNX file.`;
      throw new RuntimeError("model-missing", message, { cause: error });
    }
    throw unreadable(path, error);
  }
  if (!isFile) throw unreadable(path, new Error("it is not a file"));
}

function unreadable(model: Uint8Array | string, cause: unknown): RuntimeError {
  const name = typeof model === "string" ? model : "from memory";
  const advice = "fetch or export it again, with its external data beside it";
  const message = `The model ${name} cannot be read: ${advice} (${firstLineOf(cause)}).`;
  return new RuntimeError("model-unreadable", message, { cause });
}

async function loadFirst(
  candidates: readonly RuntimeCandidate[],
): Promise<[RuntimeCandidate, OrtNamespace]> {
  const failures: unknown[] = [];
  for (const candidate of candidates) {
    try {
      return [candidate, await candidate.load()];
    } catch (error) {
      failures.push(error);
    }
  }
  const names = candidates.map((candidate) => candidate.name).join(" ");
  const message = `No ONNX runtime can load: run "npm install ${names}".`;
  throw new RuntimeError("runtime-missing", message, { cause: new AggregateError(failures) });
}

async function createSession(
  candidate: RuntimeCandidate,
  ort: OrtNamespace,
  model: Uint8Array | string,
): Promise<InferenceSession> {
  const options = {
    executionProviders: candidate.providers,
    logSeverityLevel: LOG_SEVERITY_FATAL,
  } as const;
  try {
    if (typeof model !== "string") return await ort.InferenceSession.create(model, options);
    if (candidate.readsPaths) return await ort.InferenceSession.create(model, options);
    return await ort.InferenceSession.create(await readFile(model), options);
  } catch (error) {
    if (FOREIGN_CONTENTS.test(String(error))) {
      const advice = `Export it with operators that ${candidate.name} has.`;
      throw unsupported(firstLineOf(error), advice, { cause: error });
    }
    throw unreadable(model, error);
  }
}

/** Works out how to feed a model from the names, types and shapes of its inputs and outputs. */
function readContract(session: InferenceSession): Contract {
  const inputs = tensorsByName(session.inputMetadata);
  const outputs = tensorsByName(session.outputMetadata);
  const { integerInputs, hasCacheBranch } = readControlInputs(inputs);
  const logits = outputs.get(LOGITS_NAME);
  if (logits === undefined || (logits.type !== "float32" && logits.type !== "float16")) {
    throw unsupported("it has no floating-point output logits", EXPORT_ADVICE);
  }
  const vocabulary = logits.shape[2];
  const cacheNames = readCacheNames(inputs, outputs);
  const pastNames = cacheNames.map((name) => `past_key_values.${name}`);
  const presentNames = cacheNames.map((name) => `present.${name}`);
  const kv = readKvShape(
    pastNames.map((name) => inputs.get(name)),
    presentNames.map((name) => outputs.get(name)),
  );
  return {
    kv,
    pastNames,
    presentNames,
    integerInputs,
    hasCacheBranch,
    vocabulary: typeof vocabulary === "number" ? vocabulary : undefined,
  };
}

/** The inputs beside the KV; refuses a model with one that this file cannot fill. */
function readControlInputs(
  inputs: ReadonlyMap<string, TensorMetadata>,
): Pick<Contract, "integerInputs" | "hasCacheBranch"> {
  const integerInputs = new Map<string, IntegerType>();
  let hasCacheBranch = false;
  for (const { name, type } of inputs.values()) {
    if (PAST_NAME.test(name)) continue;
    if (name === CACHE_BRANCH_NAME && type === "bool") {
      hasCacheBranch = true;
    } else if (INTEGER_NAME.test(name) && (type === "int64" || type === "int32")) {
      integerInputs.set(name, type);
    } else {
      throw unsupported(`it wants an unknown input ${name} (${type})`, EXPORT_ADVICE);
    }
  }
  if (!integerInputs.has("input_ids")) {
    throw unsupported("it has no input input_ids", EXPORT_ADVICE);
  }
  return { integerInputs, hasCacheBranch };
}

/** `0.key`, `0.value`, `1.key`, … for all layers; refuses gaps and halves. */
function readCacheNames(
  inputs: ReadonlyMap<string, TensorMetadata>,
  outputs: ReadonlyMap<string, TensorMetadata>,
): string[] {
  const pastCount = [...inputs.keys()].filter((name) => PAST_NAME.test(name)).length;
  const cacheNames = Array.from({ length: pastCount / 2 }, (_, layer) =>
    CACHE_PARTS.map((part) => `${layer}.${part}`),
  ).flat();
  const isComplete = cacheNames.every(
    (name) => inputs.has(`past_key_values.${name}`) && outputs.has(`present.${name}`),
  );
  if (pastCount === 0 || cacheNames.length !== pastCount || !isComplete) {
    throw unsupported("its KV inputs and outputs do not come in pairs", EXPORT_ADVICE);
  }
  return cacheNames;
}

function tensorsByName(
  values: readonly InferenceSession.ValueMetadata[],
): Map<string, TensorMetadata> {
  const tensors = new Map<string, TensorMetadata>();
  for (const value of values) if (value.isTensor) tensors.set(value.name, value);
  return tensors;
}

/** The one shape that all KV tensors share; outputs may leave their sizes open. */
function readKvShape(
  pasts: readonly (TensorMetadata | undefined)[],
  presents: readonly (TensorMetadata | undefined)[],
): KvShape {
  const type = pasts[0]?.type;
  const [, kvHeads, , headDim] = pasts[0]?.shape ?? [];
  if (typeof kvHeads !== "number" || typeof headDim !== "number") {
    throw unsupported("its KV inputs are not [batch, heads, tokens, headDim]", EXPORT_ADVICE);
  }
  if (type !== "float32" && type !== "float16") {
    throw unsupported(`its KV inputs are ${type ?? "untyped"}`, "Export it with f32 or f16 KV.");
  }
  const fits = (tensor: TensorMetadata | undefined, hasOpenSizes: boolean): boolean => {
    const [, heads, , dim] = tensor?.shape ?? [];
    const isSame = (size: typeof heads, expected: number): boolean =>
      size === expected || (hasOpenSizes && typeof size !== "number");
    return tensor?.type === type && isSame(heads, kvHeads) && isSame(dim, headDim);
  };
  if (!pasts.every((past) => fits(past, false)) || !presents.every((one) => fits(one, true))) {
    throw unsupported("its layers differ in the shape of their KV", EXPORT_ADVICE);
  }
  return { layers: pasts.length / 2, kvHeads, headDim, dtype: type === "float32" ? "f32" : "f16" };
}

/** One session, as a {@link DecoderRuntime}. */
class OrtDecoder implements DecoderRuntime {
  readonly name: string;
  readonly kv: KvShape;
  readonly #ort: OrtNamespace;
  readonly #session: InferenceSession;
  readonly #contract: Contract;
  #isClosed = false;

  constructor(name: string, ort: OrtNamespace, session: InferenceSession, contract: Contract) {
    this.name = name;
    this.kv = contract.kv;
    this.#ort = ort;
    this.#session = session;
    this.#contract = contract;
  }

  async step(
    tokens: readonly number[] | Uint8Array,
    past: KvViews,
    pastTokens: number,
    inputs: StepInputs = plainInputs,
  ): Promise<StepResult> {
    if (this.#isClosed) throw new RuntimeError("closed", "The runtime is closed: open it again.");
    this.#checkInput(tokens, past, pastTokens);
    inputs.begin({ tokens: tokens.length, total: pastTokens + tokens.length });
    let outputs: InferenceSession.OnnxValueMapType;
    try {
      const feeds = this.#feeds(tokens, past, pastTokens, inputs);
      outputs = await this.#session.run(feeds, { logSeverityLevel: LOG_SEVERITY_FATAL });
    } catch (error) {
      const step = `a step of ${tokens.length} tokens after ${pastTokens}`;
      const problem = `${this.name} refused ${step}`;
      const message = `${problem}: shorten the chat (${firstLineOf(error)}).`;
      throw new RuntimeError("run-failed", message, { cause: error });
    } finally {
      inputs.end();
    }
    return this.#read(outputs, pastTokens + tokens.length);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#session.release();
  }

  #checkInput(tokens: ArrayLike<number>, past: KvViews, pastTokens: number): void {
    const { vocabulary = Number.MAX_SAFE_INTEGER } = this.#contract;
    if (tokens.length === 0) throw new RuntimeError("bad-input", "A step needs a token.");
    for (let index = 0; index < tokens.length; index++) {
      const token = tokens[index] as number;
      if (!Number.isInteger(token) || token < 0 || token >= vocabulary) {
        const problem = `Token ${token} is not an id below ${vocabulary}`;
        const message = `${problem}: use the model's tokenizer.`;
        throw new RuntimeError("bad-input", message);
      }
    }
    if (!Number.isInteger(pastTokens) || pastTokens < 0) {
      throw new RuntimeError("bad-input", `pastTokens ${pastTokens} is not a number of tokens.`);
    }
    if (pastTokens > 0) this.#checkPast(past, pastTokens);
  }

  #checkPast(past: KvViews, pastTokens: number): void {
    const { layers, kvHeads, headDim, dtype } = this.kv;
    const View = dtype === "f32" ? Float32Array : Uint16Array;
    const elementCount = kvHeads * pastTokens * headDim;
    const isFitting = past.every((view) => view instanceof View && view.length === elementCount);
    if (past.length !== 2 * layers || !isFitting) {
      const views = `${2 * layers} ${dtype} views of ${elementCount} elements`;
      const message = `A past of ${pastTokens} tokens is ${views}: pass those.`;
      throw new RuntimeError("bad-input", message);
    }
  }

  #feeds(
    tokens: ArrayLike<number>,
    past: KvViews,
    pastTokens: number,
    inputs: StepInputs,
  ): InferenceSession.OnnxValueMapType {
    const { pastNames, integerInputs, hasCacheBranch, kv } = this.#contract;
    const feeds: Record<string, Tensor> = {};
    for (const [name, type] of integerInputs) {
      if (name === "input_ids") {
        feeds[name] = this.#integers(
          inputs,
          type,
          tokens.length,
          (index) => tokens[index] as number,
        );
      } else if (name === "position_ids") {
        feeds[name] = this.#integers(inputs, type, tokens.length, (index) => pastTokens + index);
      } else {
        feeds[name] = this.#integers(inputs, type, pastTokens + tokens.length, () => 1);
      }
    }
    if (hasCacheBranch) {
      feeds[CACHE_BRANCH_NAME] = new this.#ort.Tensor("bool", [pastTokens > 0], [1]);
    }
    const shape = [1, kv.kvHeads, pastTokens, kv.headDim];
    for (const [index, name] of pastNames.entries()) {
      feeds[name] = this.#cacheTensor(pastTokens === 0 ? undefined : past[index], shape);
    }
    return feeds;
  }

  /** A [1, count] tensor of the integer type that the model declares. */
  #integers(
    inputs: StepInputs,
    type: IntegerType,
    count: number,
    valueAt: (index: number) => number,
  ): Tensor {
    const view = inputs.take(type, count);
    if (view instanceof Int32Array) {
      for (let index = 0; index < count; index++) view[index] = valueAt(index);
      return new this.#ort.Tensor("int32", view, [1, count]);
    }
    for (let index = 0; index < count; index++) view[index] = BigInt(valueAt(index));
    return new this.#ort.Tensor("int64", view, [1, count]);
  }

  /** A tensor over the caller's bytes, or over none. */
  #cacheTensor(view: KvViews[number] | undefined, shape: readonly number[]): Tensor {
    return this.kv.dtype === "f32"
      ? new this.#ort.Tensor("float32", (view ?? new Float32Array(0)) as Float32Array, shape)
      : new this.#ort.Tensor("float16", (view ?? new Uint16Array(0)) as Uint16Array, shape);
  }

  #read(outputs: InferenceSession.OnnxValueMapType, totalTokens: number): StepResult {
    const { presentNames, kv } = this.#contract;
    const elementCount = kv.kvHeads * totalTokens * kv.headDim;
    const present = presentNames.map((name) => {
      const view = numbersOf(outputs[name] as Tensor);
      if (view.length === elementCount) return view;
      const problem = `${name} has ${view.length} elements instead of ${elementCount}`;
      throw unsupported(problem, EXPORT_ADVICE);
    });
    const logits = outputs[LOGITS_NAME] as Tensor;
    const choice = greedyChoice(numbersOf(logits), logits.dims[2] ?? 0);
    // Frees what a provider may hold elsewhere. The views above keep their own memory alive.
    for (const output of Object.values(outputs)) output.dispose();
    if (choice === undefined) {
      const message = "The model yields no number as a logit: check its weights and its KV.";
      throw new RuntimeError("run-failed", message);
    }
    return { ...choice, present };
  }
}

/** The elements of a floating-point tensor; f16 as bit patterns, whatever class the engine has. */
function numbersOf(tensor: Tensor): Float32Array | Uint16Array {
  const data = tensor.data;
  if (data instanceof Float32Array || data instanceof Uint16Array) return data;
  const { buffer, byteOffset, length } = data as ArrayBufferView & ArrayLike<unknown>;
  return new Uint16Array(buffer, byteOffset, length);
}

/** Picks the best of the last `vocabulary` logits; `undefined` when none of them is a number. */
export function greedyChoice(
  logits: Float32Array | Uint16Array,
  vocabulary: number,
): Pick<StepResult, "nextToken" | "logitGap"> | undefined {
  const start = logits.length - vocabulary;
  const isHalf = logits instanceof Uint16Array;
  let nextToken = -1;
  let best = Number.NEGATIVE_INFINITY;
  let second = Number.NEGATIVE_INFINITY;
  for (let token = 0; token < vocabulary; token++) {
    const stored = logits[start + token] as number;
    const logit = isHalf ? halfToNumber(stored) : stored;
    if (logit > best) {
      second = best;
      best = logit;
      nextToken = token;
    } else if (logit > second) {
      second = logit;
    }
  }
  return nextToken < 0 ? undefined : { nextToken, logitGap: best - second };
}

/** Value of an IEEE 754 binary16 bit pattern. */
function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}
