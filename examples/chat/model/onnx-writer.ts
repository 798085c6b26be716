/**
 * Writes ONNX models: the protobuf wire format, and the few messages of `onnx.proto` that a graph
 * needs. It checks neither operators nor shapes; a runtime does that when it loads the model.
 * Big payloads are kept by reference and copied once, into the one buffer that is returned.
 *
 * Sources:
 *   1. Protocol Buffers documentation, "Encoding" — varints, tags, length-delimited fields.
 *   2. ONNX repository, onnx/onnx.proto — field numbers, element types, attribute types.
 *   3. ONNX specification, "IR" — graphs, initialisers, symbolic dimensions.
 */

/** Element types of `TensorProto.DataType` that this writer knows. */
const ELEMENT_TYPES = { float32: 1, int32: 6, int64: 7, bool: 9, float16: 10 } as const;

/** Name of an element type, in the spelling of ONNX Runtime's JavaScript API. */
export type ElementType = keyof typeof ELEMENT_TYPES;

/** A fixed size, or the name of a size that only a run decides. */
export type Dimension = number | string;

/** Value of a node's attribute: an integer, or a list of integers. */
export type Attribute = number | readonly number[];

const ATTRIBUTE_TYPE_INT = 2;
const ATTRIBUTE_TYPE_INTS = 7;

/** Wire types: the low three bits of a tag. */
const WIRE_VARINT = 0;
const WIRE_LENGTH_DELIMITED = 2;

/** IR version 8 is the first with operator set 17, the first with LayerNormalization. */
const IR_VERSION = 8;
const OPERATOR_SET_VERSION = 17;
const PRODUCER_NAME = "tiny-writer";

const encoder = new TextEncoder();

/** Appends `value` in base 128, low group first; negative values as 64-bit two's complement. */
function pushVarint(target: number[], value: number): void {
  if (value < 0) {
    let rest = BigInt.asUintN(64, BigInt(value));
    while (rest > 127n) {
      target.push(Number(rest & 127n) | 128);
      rest >>= 7n;
    }
    target.push(Number(rest));
    return;
  }
  // Division instead of shifts: byte lengths may exceed 31 bits.
  let rest = value;
  while (rest > 127) {
    target.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  target.push(rest);
}

/**
 * One protobuf message under construction: a list of byte runs in the order of writing. A nested
 * message hands its runs over, so nothing is copied before {@link ProtoMessage.toBytes}.
 */
export class ProtoMessage {
  readonly #runs: Uint8Array[] = [];
  #byteLength = 0;

  /** Writes an integer field. */
  varint(field: number, value: number): this {
    const encoded: number[] = [];
    pushVarint(encoded, field * 8 + WIRE_VARINT);
    pushVarint(encoded, value);
    return this.#append(Uint8Array.from(encoded));
  }

  /**
   * Writes a bytes field.
   *
   * @param value Kept by reference: it must not change before {@link ProtoMessage.toBytes}.
   */
  bytes(field: number, value: Uint8Array): this {
    return this.#delimiter(field, value.byteLength).#append(value);
  }

  /** Writes a string field as UTF-8. */
  text(field: number, value: string): this {
    return this.bytes(field, encoder.encode(value));
  }

  /** Writes a repeated integer field in packed form; an empty list writes nothing. */
  packed(field: number, values: readonly number[]): this {
    if (values.length === 0) return this;
    const encoded: number[] = [];
    for (const value of values) pushVarint(encoded, value);
    return this.bytes(field, Uint8Array.from(encoded));
  }

  /** Writes a nested message. */
  message(field: number, value: ProtoMessage): this {
    this.#delimiter(field, value.#byteLength);
    for (const run of value.#runs) this.#append(run);
    return this;
  }

  /** @returns The encoded message, in a buffer of exactly its length. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const target = new Uint8Array(this.#byteLength);
    let offset = 0;
    for (const run of this.#runs) {
      target.set(run, offset);
      offset += run.byteLength;
    }
    return target;
  }

  #delimiter(field: number, byteLength: number): this {
    const encoded: number[] = [];
    pushVarint(encoded, field * 8 + WIRE_LENGTH_DELIMITED);
    pushVarint(encoded, byteLength);
    return this.#append(Uint8Array.from(encoded));
  }

  #append(run: Uint8Array): this {
    this.#runs.push(run);
    this.#byteLength += run.byteLength;
    return this;
  }
}

function encodeTensor(
  name: string,
  type: ElementType,
  shape: readonly number[],
  values: ArrayBufferView,
): ProtoMessage {
  return new ProtoMessage()
    .packed(1, shape)
    .varint(2, ELEMENT_TYPES[type])
    .text(8, name)
    .bytes(9, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
}

function encodeAttribute(name: string, value: Attribute): ProtoMessage {
  const attribute = new ProtoMessage().text(1, name);
  if (typeof value === "number") return attribute.varint(3, value).varint(20, ATTRIBUTE_TYPE_INT);
  // Field 8 is not declared packed: one tag for each value.
  for (const item of value) attribute.varint(8, item);
  return attribute.varint(20, ATTRIBUTE_TYPE_INTS);
}

function encodeValueInfo(
  name: string,
  type: ElementType,
  shape: readonly Dimension[],
): ProtoMessage {
  const shapeMessage = new ProtoMessage();
  for (const size of shape) {
    const dimension = new ProtoMessage();
    shapeMessage.message(
      1,
      typeof size === "string" ? dimension.text(2, size) : dimension.varint(1, size),
    );
  }
  const tensorType = new ProtoMessage().varint(1, ELEMENT_TYPES[type]).message(2, shapeMessage);
  return new ProtoMessage().text(1, name).message(2, new ProtoMessage().message(1, tensorType));
}

/**
 * An ONNX graph under construction. Nodes, initialisers, inputs and outputs keep the order in which
 * they are added; nodes must therefore be added in topological order.
 */
export class OnnxGraph {
  readonly #nodes: ProtoMessage[] = [];
  readonly #initializers: ProtoMessage[] = [];
  readonly #inputs: ProtoMessage[] = [];
  readonly #outputs: ProtoMessage[] = [];
  readonly #domains = new Set<string>();

  /** Declares a graph input. */
  input(name: string, type: ElementType, shape: readonly Dimension[]): string {
    this.#inputs.push(encodeValueInfo(name, type, shape));
    return name;
  }

  /** Declares a graph output, which some node must produce under this name. */
  output(name: string, type: ElementType, shape: readonly Dimension[]): string {
    this.#outputs.push(encodeValueInfo(name, type, shape));
    return name;
  }

  /**
   * Adds a float32 initialiser.
   *
   * @param shape Sizes, outermost first; `[]` for a scalar.
   * @param values Row-major, kept by reference: must not change before {@link OnnxGraph.toModel}.
   * @remarks `raw_data` is little-endian, as is every platform that runs JavaScript today.
   */
  floats(name: string, shape: readonly number[], values: Float32Array): string {
    this.#initializers.push(encodeTensor(name, "float32", shape, values));
    return name;
  }

  /** Adds an int64 initialiser; `[]` as the shape makes a scalar. */
  integers(name: string, shape: readonly number[], values: readonly number[]): string {
    const wide = BigInt64Array.from(values, BigInt);
    this.#initializers.push(encodeTensor(name, "int64", shape, wide));
    return name;
  }

  /**
   * Adds a node.
   *
   * @param operator Name of the operator, for example `MatMul`.
   * @param output Name of the value it produces, or the names of several.
   * @param domain Of the operator, in its version 1. Default: ONNX's own.
   * @returns The first of its outputs, so that calls can be chained.
   */
  node(
    operator: string,
    inputs: readonly string[],
    output: string | readonly [string, ...string[]],
    attributes: Readonly<Record<string, Attribute>> = {},
    domain = "",
  ): string {
    const outputs = typeof output === "string" ? ([output] as const) : output;
    const node = new ProtoMessage();
    for (const input of inputs) node.text(1, input);
    for (const each of outputs) node.text(2, each);
    node.text(3, `${outputs[0]}_${operator}`).text(4, operator);
    for (const [name, value] of Object.entries(attributes)) {
      node.message(5, encodeAttribute(name, value));
    }
    if (domain !== "") {
      node.text(7, domain);
      this.#domains.add(domain);
    }
    this.#nodes.push(node);
    return outputs[0];
  }

  /** @returns The graph as a complete ONNX file, in a buffer of exactly its length. */
  toModel(): Uint8Array<ArrayBuffer> {
    const graph = new ProtoMessage();
    for (const node of this.#nodes) graph.message(1, node);
    graph.text(2, "g");
    for (const initializer of this.#initializers) graph.message(5, initializer);
    for (const input of this.#inputs) graph.message(11, input);
    for (const output of this.#outputs) graph.message(12, output);
    const model = new ProtoMessage()
      .varint(1, IR_VERSION)
      .text(2, PRODUCER_NAME)
      .message(7, graph)
      .message(8, new ProtoMessage().text(1, "").varint(2, OPERATOR_SET_VERSION));
    for (const domain of this.#domains) {
      model.message(8, new ProtoMessage().text(1, domain).varint(2, 1));
    }
    return model.toBytes();
  }
}
