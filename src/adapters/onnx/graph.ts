// What a model says about itself, without its weights: operator sets, inputs, outputs, and which node
// makes which value. Subgraphs and functions are skipped, so a value made inside of one is unknown here.
//
// Sources:
//   1. ONNX repository, onnx/onnx.proto — field numbers and element types.
//   2. ONNX specification, "IR" — names are unique among a graph's inputs, initialisers and values.
import { ModelError } from "./model-error.js";
import { WireReader } from "./wire.js";

/** A dimension: a length, the name of one that a run decides, or null when the model says nothing. */
export type Dimension = number | string | null;

/** An input or output of the graph. */
export interface ValueInfo {
  readonly name: string;
  /** `TensorProto.DataType`; 0 when it is no tensor. */
  readonly elementType: number;
  readonly shape: readonly Dimension[];
}

/** A node, as far as somebody may look for it by what it makes. */
export interface GraphNode {
  readonly operator: string;
  /** Empty for ONNX's own operators. */
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Its attribute `axis`, or null. */
  readonly axis: number | null;
}

export interface OnnxGraph {
  /** Version of ONNX's own operator set; 0 when the model names none. */
  readonly operatorSet: number;
  /** Without those that an initialiser gives a value. */
  readonly inputs: ReadonlyMap<string, ValueInfo>;
  readonly outputs: ReadonlyMap<string, ValueInfo>;
  /** The node that makes each value. */
  readonly producers: ReadonlyMap<string, GraphNode>;
  /** Every name of a value or node in the graph begins with none of the prefixes made of this. */
  hasPrefix(prefix: string): boolean;
}

/** More nodes than any model has: a bound on what hostile bytes can make this allocate. */
const NODE_COUNT_MAX = 2 ** 20;

const MODEL = { graph: 7, operatorSet: 8 } as const;
const OPERATOR_SET = { domain: 1, version: 2 } as const;
const GRAPH = { node: 1, initializer: 5, input: 11, output: 12 } as const;
const NODE = { input: 1, output: 2, name: 3, operator: 4, attribute: 5, domain: 7 } as const;
const ATTRIBUTE = { name: 1, integer: 3 } as const;
const TENSOR = { name: 8 } as const;
const VALUE_INFO = { name: 1, type: 2 } as const;
const TYPE = { tensor: 1 } as const;
const TENSOR_TYPE = { elementType: 1, shape: 2 } as const;
const SHAPE = { dimension: 1 } as const;
const DIMENSION = { length: 1, name: 2 } as const;

/**
 * Reads the graph of a model.
 *
 * @param model Bytes of an ONNX file. They are not kept.
 * @throws {ModelError} `malformed` — not an ONNX model, or damaged.
 * @remarks Takes time in proportion to the nodes; weights and external data are never looked at.
 */
export function readGraph(model: Uint8Array): OnnxGraph {
  const reading = new GraphReading();
  let isGraphFound = false;
  let operatorSet = 0;
  const fields = new WireReader(model);
  while (fields.next()) {
    if (fields.field === MODEL.graph) {
      // Repeated: protocol buffers merge what a message holds more than once.
      reading.read(fields.message());
      isGraphFound = true;
    } else if (fields.field === MODEL.operatorSet) {
      const { domain, version } = readOperatorSet(fields.message());
      if (domain === "" || domain === "ai.onnx") operatorSet = Math.max(operatorSet, version);
    }
  }
  if (!isGraphFound) throw new ModelError("malformed", "not an ONNX model: it has no graph");
  return reading.finish(operatorSet);
}

/** The graph as far as it has been read. */
class GraphReading {
  readonly #inputs = new Map<string, ValueInfo>();
  readonly #outputs = new Map<string, ValueInfo>();
  readonly #producers = new Map<string, GraphNode>();
  readonly #initializers = new Set<string>();
  readonly #nodeNames = new Set<string>();
  #nodeCount = 0;

  read(fields: WireReader): void {
    while (fields.next()) {
      if (fields.field === GRAPH.node) this.#addNode(fields.message());
      else if (fields.field === GRAPH.initializer) {
        this.#initializers.add(readName(fields.message(), TENSOR.name));
      } else if (fields.field === GRAPH.input) addOnce(this.#inputs, fields.message());
      else if (fields.field === GRAPH.output) addOnce(this.#outputs, fields.message());
    }
  }

  finish(operatorSet: number): OnnxGraph {
    for (const name of this.#initializers) this.#inputs.delete(name);
    const names = [this.#inputs, this.#initializers, this.#producers, this.#nodeNames];
    return {
      operatorSet,
      inputs: this.#inputs,
      outputs: this.#outputs,
      producers: this.#producers,
      hasPrefix: (prefix) =>
        names.some((known) => [...known.keys()].some((name) => name.startsWith(prefix))),
    };
  }

  #addNode(fields: WireReader): void {
    this.#nodeCount += 1;
    if (this.#nodeCount > NODE_COUNT_MAX) {
      throw new ModelError("malformed", `more than ${NODE_COUNT_MAX} nodes`);
    }
    const inputs: string[] = [];
    const outputs: string[] = [];
    let operator = "";
    let domain = "";
    let axis: number | null = null;
    while (fields.next()) {
      if (fields.field === NODE.input) inputs.push(fields.text());
      else if (fields.field === NODE.output) outputs.push(fields.text());
      else if (fields.field === NODE.name) this.#nodeNames.add(fields.text());
      else if (fields.field === NODE.operator) operator = fields.text();
      else if (fields.field === NODE.domain) domain = fields.text();
      else if (fields.field === NODE.attribute) axis = readAxis(fields.message()) ?? axis;
    }
    const node = { operator, domain: domain === "ai.onnx" ? "" : domain, inputs, outputs, axis };
    for (const output of outputs) {
      // An empty name stands for an output that nobody wants.
      if (output === "") continue;
      if (this.#producers.has(output)) {
        throw new ModelError("malformed", `two nodes make ${JSON.stringify(output)}`);
      }
      this.#producers.set(output, node);
    }
  }
}

function addOnce(known: Map<string, ValueInfo>, fields: WireReader): void {
  const value = readValueInfo(fields);
  if (known.has(value.name)) {
    throw new ModelError("malformed", `${JSON.stringify(value.name)} is declared twice`);
  }
  known.set(value.name, value);
}

function readName(fields: WireReader, nameField: number): string {
  let name = "";
  while (fields.next()) if (fields.field === nameField) name = fields.text();
  return name;
}

function readOperatorSet(fields: WireReader): { domain: string; version: number } {
  let domain = "";
  let version = 0;
  while (fields.next()) {
    if (fields.field === OPERATOR_SET.domain) domain = fields.text();
    else if (fields.field === OPERATOR_SET.version) version = fields.integer();
  }
  return { domain, version };
}

function readAxis(fields: WireReader): number | null {
  let name = "";
  let axis: number | null = null;
  while (fields.next()) {
    if (fields.field === ATTRIBUTE.name) name = fields.text();
    else if (fields.field === ATTRIBUTE.integer) axis = fields.integer();
  }
  return name === "axis" ? axis : null;
}

function readValueInfo(fields: WireReader): ValueInfo {
  let name = "";
  let elementType = 0;
  let shape: Dimension[] = [];
  while (fields.next()) {
    if (fields.field === VALUE_INFO.name) name = fields.text();
    if (fields.field !== VALUE_INFO.type) continue;
    const type = fields.message();
    while (type.next()) {
      if (type.field !== TYPE.tensor) continue;
      const tensor = type.message();
      while (tensor.next()) {
        if (tensor.field === TENSOR_TYPE.elementType) elementType = tensor.integer();
        else if (tensor.field === TENSOR_TYPE.shape) shape = readShape(tensor.message());
      }
    }
  }
  return { name, elementType, shape };
}

function readShape(fields: WireReader): Dimension[] {
  const shape: Dimension[] = [];
  while (fields.next()) {
    if (fields.field !== SHAPE.dimension) continue;
    const dimension = fields.message();
    let length: Dimension = null;
    while (dimension.next()) {
      if (dimension.field === DIMENSION.length) length = dimension.integer();
      else if (dimension.field === DIMENSION.name) length = dimension.text() || null;
    }
    shape.push(length);
  }
  return shape;
}
