// Makes a decoder return only the new rows of its KV: a fragment of a model, appended to the file.
//
// Protocol buffers merge a message that occurs twice, so a second `graph` field adds its nodes and
// outputs to the first, behind them and so in topological order. No byte of the model changes; nodes
// that were there keep their inputs and outputs. Per KV tensor what is concatenated with the past becomes an
// output, or where no node makes that, and for GroupQueryAttention, a `Slice` of the present: its last S
// tokens, or where the present is as long as the capacity, tokens T − S to T. S is the length of
// `input_ids`, T the node's own total length. Who fetches these and not the present pays for the new
// rows alone.
//
// Sources:
//   1. Protocol Buffers documentation, "Encoding", last one wins and merging.
//   2. ONNX, operators Shape, Gather, Cast, Reshape, Sub, Neg and Slice — as of operator set 10.
import {
  type CacheStyle,
  type DecoderGraph,
  GROUPED,
  type KvEntry,
  readDecoder,
} from "./decoder-graph.js";
import { readGraph } from "./graph.js";
import { WireWriter } from "./wire.js";

/**
 * Why a decoder keeps returning all of its KV. `operator-set`: older than 10, whose `Slice` takes no
 * computed bounds. `unknown-cache`: some present is made neither by `Concat` of past and new rows nor
 * by GroupQueryAttention. `no-mask`, `no-positions`: a padded past would be seen, or would count.
 */
export type DeltaRefusal = "operator-set" | "unknown-cache" | "no-mask" | "no-positions";

/** A fragment that adds outputs for the new rows. */
export interface DeltaPatch {
  readonly style: CacheStyle;
  /** To be appended to the model's bytes. */
  readonly fragment: Uint8Array<ArrayBuffer>;
  /** Names of the new outputs, in the order of the decoder's entries: [1, heads, S, headDim]. */
  readonly rowNames: readonly string[];
}

/** What a model's bytes say about delta rows. */
export interface DeltaPlan {
  readonly decoder: DecoderGraph;
  /** null when `refusal` says why there is none. */
  readonly patch: DeltaPatch | null;
  readonly refusal: DeltaRefusal | null;
}

const OPERATOR_SET_MIN = 10;
const INT64 = 7;
const FLOAT32 = 1;
const FLOAT16 = 10;
/** Higher than any token count, and exact in a number. */
const END_OF_AXIS = 2 ** 31 - 1;
const SEQUENCE_AXIS = 1;
const TOKEN_AXIS = 2;

/**
 * Works out how a model can return delta rows.
 *
 * @param model Bytes of an ONNX file; external data is not needed.
 * @throws {ModelError} `malformed`; `unsupported` — the graph is none of the decoders that are known.
 * @remarks Reads names and shapes only: it costs time by nodes, not by weights, and copies nothing.
 */
export function planDeltaRows(model: Uint8Array): DeltaPlan {
  const decoder = readDecoder(readGraph(model));
  const refusal = refusalOf(decoder);
  const patch =
    refusal === null && decoder.style !== null ? makePatch(decoder, decoder.style) : null;
  return { decoder, patch, refusal };
}

/**
 * Appends a fragment to a model.
 *
 * @returns New bytes. A runtime takes a model as one array, so this is one copy of the file, without
 *   the data that the model keeps outside of it; the caller may drop `model` then.
 */
export function appendFragment(model: Uint8Array, fragment: Uint8Array): Uint8Array<ArrayBuffer> {
  const patched = new Uint8Array(model.byteLength + fragment.byteLength);
  patched.set(model);
  patched.set(fragment, model.byteLength);
  return patched;
}

function refusalOf({ graph, controls, style }: DecoderGraph): DeltaRefusal | null {
  if (graph.operatorSet < OPERATOR_SET_MIN) return "operator-set";
  if (style === null) return "unknown-cache";
  if (style === "grouped") return null;
  const roles = controls.map(({ role }) => role);
  if (!roles.includes("mask")) return "no-mask";
  return roles.includes("positions") ? null : "no-positions";
}

function makePatch(decoder: DecoderGraph, style: CacheStyle): DeltaPatch {
  const given = style === "concat" ? namesOfNewRows(decoder) : null;
  if (given !== null) {
    const writer = new FragmentWriter("");
    for (const [index, entry] of decoder.entries.entries()) {
      writer.output(entry, given[index] as string);
    }
    return { style, fragment: writer.toFragment(), rowNames: given };
  }
  const writer = new FragmentWriter(freePrefix(decoder));
  const tokens = decoder.controls.find(({ role }) => role === "tokens")?.name ?? "";
  writer.inputLength(tokens);
  const rowNames = decoder.entries.map((entry) => {
    const name = writer.name(`rows.${entry.layer}.${entry.part}`);
    const node = decoder.graph.producers.get(entry.presentName);
    const total = style === "grouped" ? node?.inputs[GROUPED.totalTokensInput] : undefined;
    writer.rows(entry, name, total ?? null);
    return name;
  });
  return { style, fragment: writer.toFragment(), rowNames };
}

/**
 * What is concatenated with the past, where nodes make that: it needs no node to be returned.
 *
 * @returns null where one of them is given to the graph, is an output already, or serves two entries.
 */
function namesOfNewRows({ graph, entries }: DecoderGraph): string[] | null {
  const names = entries.map(({ presentName }) => graph.producers.get(presentName)?.inputs[1] ?? "");
  const isFree = names.every(
    // Callers take outputs for caches whose names begin so.
    (name) => graph.producers.has(name) && !graph.outputs.has(name) && !name.startsWith("present"),
  );
  return isFree && new Set(names).size === names.length ? names : null;
}

/** A prefix that no name in the graph has. The loop ends: names are finite. */
function freePrefix({ graph }: DecoderGraph): string {
  let prefix = "tierheap.";
  for (let count = 2; graph.hasPrefix(prefix); count++) prefix = `tierheap${count}.`;
  return prefix;
}

const MODEL_GRAPH = 7;
const GRAPH = { node: 1, output: 12 } as const;

/** Collects the nodes and outputs of one fragment. */
class FragmentWriter {
  readonly #graph = new WireWriter();
  readonly #prefix: string;
  /** Start and end of the new rows, by the name of the total length. */
  readonly #bounds = new Map<string, readonly [string, string]>();

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  name(suffix: string): string {
    return `${this.#prefix}${suffix}`;
  }

  /** Constants, and the length S of the input. */
  inputLength(tokens: string): void {
    this.#constant("token_axis", TOKEN_AXIS);
    this.#constant("sequence_axis", SEQUENCE_AXIS);
    this.#node("Shape", [tokens], "input_shape");
    this.#node("Gather", [this.name("input_shape"), this.name("sequence_axis")], "S");
  }

  /** @param total Name of the total length, or null when the rows are the last of the present. */
  rows(entry: KvEntry, name: string, total: string | null): void {
    const [start, end] = this.#boundsOf(total);
    this.#nodeTo("Slice", [entry.presentName, start, end, this.name("token_axis")], name);
    this.output(entry, name);
  }

  /** Declares a value with an entry's new rows as an output. */
  output({ dtype, heads, headDim }: KvEntry, name: string): void {
    const shape = new WireWriter();
    // The batch and the new tokens are open.
    for (const length of [null, heads, null, headDim]) {
      const dimension = new WireWriter();
      shape.message(1, length === null ? dimension : dimension.integer(1, length));
    }
    const elementType = dtype === "f32" ? FLOAT32 : FLOAT16;
    const tensor = new WireWriter().integer(1, elementType).message(2, shape);
    const type = new WireWriter().message(1, tensor);
    this.#graph.message(GRAPH.output, new WireWriter().text(1, name).message(2, type));
  }

  toFragment(): Uint8Array<ArrayBuffer> {
    return new WireWriter().message(MODEL_GRAPH, this.#graph).toBytes();
  }

  #boundsOf(total: string | null): readonly [string, string] {
    const known = this.#bounds.get(total ?? "");
    if (known !== undefined) return known;
    const bounds = total === null ? this.#lastRows() : this.#rowsBefore(total);
    this.#bounds.set(total ?? "", bounds);
    return bounds;
  }

  #lastRows(): readonly [string, string] {
    this.#node("Neg", [this.name("S")], "start");
    this.#constant("end", END_OF_AXIS);
    return [this.name("start"), this.name("end")];
  }

  #rowsBefore(total: string): readonly [string, string] {
    const end = `T${this.#bounds.size}`;
    const start = `P${this.#bounds.size}`;
    this.#node("Cast", [total], `${end}_any`, [attribute("to", { integer: INT64 })]);
    // A scalar or [1] becomes [1]; the constant 1 happens to be that shape.
    this.#node("Reshape", [this.name(`${end}_any`), this.name("sequence_axis")], end);
    this.#node("Sub", [this.name(end), this.name("S")], start);
    return [this.name(start), this.name(end)];
  }

  /** An int64 [1]. A node, because initialisers beside the inputs need a newer IR version. */
  #constant(suffix: string, value: number): void {
    const raw = new Uint8Array(BigInt64Array.BYTES_PER_ELEMENT);
    new DataView(raw.buffer).setBigInt64(0, BigInt(value), true);
    const tensor = new WireWriter().integer(1, 1).integer(2, INT64).bytes(9, raw);
    this.#node("Constant", [], suffix, [attribute("value", { tensor })]);
  }

  #node(
    operator: string,
    inputs: readonly string[],
    suffix: string,
    attributes: readonly WireWriter[] = [],
  ): void {
    this.#nodeTo(operator, inputs, this.name(suffix), attributes);
  }

  #nodeTo(
    operator: string,
    inputs: readonly string[],
    output: string,
    attributes: readonly WireWriter[] = [],
  ): void {
    const node = new WireWriter();
    for (const input of inputs) node.text(1, input);
    node.text(2, output).text(3, output).text(4, operator);
    for (const each of attributes) node.message(5, each);
    this.#graph.message(GRAPH.node, node);
  }
}

/** `AttributeProto.AttributeType`. */
const ATTRIBUTE_INT = 2;
const ATTRIBUTE_TENSOR = 4;

function attribute(
  name: string,
  value: { readonly integer: number } | { readonly tensor: WireWriter },
): WireWriter {
  const writer = new WireWriter().text(1, name);
  return "integer" in value
    ? writer.integer(3, value.integer).integer(20, ATTRIBUTE_INT)
    : writer.message(5, value.tensor).integer(20, ATTRIBUTE_TENSOR);
}
