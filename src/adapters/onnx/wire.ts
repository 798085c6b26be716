// Protocol buffers on the wire: a reader that skips what nobody asks for, and a writer for short
// messages. A length-delimited field is a range of the one buffer, so skipping a tensor of any length
// costs nothing. No recursion: who wants a nested message reads its range.
//
// Source: Protocol Buffers documentation, "Encoding" — varints, tags, wire types, merging.
import { ModelError } from "./model-error.js";

const WIRE_VARINT = 0;
const WIRE_FIXED64 = 1;
const WIRE_BYTES = 2;
const WIRE_FIXED32 = 5;

const VARINT_BYTES_MAX = 10;
/** So many bytes of a varint fit a number exactly. */
const EXACT_VARINT_BYTES = 7;

/** Longest name that is read, in bytes. */
const TEXT_BYTES_MAX = 4096;

const decoder = new TextDecoder("utf-8", { fatal: true });
const encoder = new TextEncoder();

function malformed(what: string, offset: number): ModelError {
  return new ModelError("malformed", `not an ONNX model: ${what} at byte ${offset}`);
}

/** Walks the fields of one message, from its first byte to its last. */
export class WireReader {
  /** Number of the current field, from 1. */
  field = 0;
  readonly #bytes: Uint8Array;
  readonly #end: number;
  #wireType = WIRE_VARINT;
  /** Of the current field: its integer, or the length of its bytes. */
  #value = 0;
  /** First byte of the current field's payload. */
  #start = 0;
  #next: number;

  /** @param start First byte of the message. @param end The byte after its last. */
  constructor(bytes: Uint8Array, start = 0, end = bytes.byteLength) {
    this.#bytes = bytes;
    this.#next = start;
    this.#end = end;
  }

  /**
   * Goes to the next field.
   *
   * @returns Whether there is one.
   * @throws {ModelError} `malformed` — a field that ends behind its message, a varint of more than ten
   *   bytes, a field number of 0, a wire type that ONNX does not use.
   * @remarks Takes the same time whatever the field's length.
   */
  next(): boolean {
    if (this.#next >= this.#end) return false;
    const at = this.#next;
    const tag = this.#varint();
    this.field = Math.floor(tag / 8);
    this.#wireType = tag % 8;
    if (tag < 8 || this.field > 0x1fff_ffff) throw malformed("a field of no number", at);
    if (this.#wireType === WIRE_VARINT) {
      this.#value = this.#varint();
      return true;
    }
    if (this.#wireType === WIRE_BYTES) this.#value = this.#varint();
    else if (this.#wireType === WIRE_FIXED64) this.#value = 8;
    else if (this.#wireType === WIRE_FIXED32) this.#value = 4;
    else throw malformed(`wire type ${this.#wireType}`, at);
    this.#start = this.#next;
    if (this.#value < 0 || this.#value > this.#end - this.#start) {
      throw malformed("a field that ends behind its message", at);
    }
    this.#next = this.#start + this.#value;
    return true;
  }

  /** The current field as a signed integer. @throws {ModelError} `malformed` — it is none. */
  integer(): number {
    if (this.#wireType !== WIRE_VARINT) throw malformed("bytes for an integer", this.#next);
    return this.#value;
  }

  /** The fields of the current field's message. @throws {ModelError} `malformed` — it is none. */
  message(): WireReader {
    this.#checkBytes();
    return new WireReader(this.#bytes, this.#start, this.#next);
  }

  /** The current field as text. @throws {ModelError} `malformed` — no text, or longer than 4 KiB. */
  text(): string {
    this.#checkBytes();
    if (this.#value > TEXT_BYTES_MAX) throw malformed("a name of that length", this.#start);
    try {
      return decoder.decode(this.#bytes.subarray(this.#start, this.#next));
    } catch {
      throw malformed("a name that is not UTF-8", this.#start);
    }
  }

  #checkBytes(): void {
    if (this.#wireType !== WIRE_BYTES) throw malformed("an integer for bytes", this.#next);
  }

  #varint(): number {
    let value = 0;
    let factor = 1;
    for (let count = 0; count < EXACT_VARINT_BYTES; count++) {
      const byte = this.#byte();
      value += (byte & 127) * factor;
      if (byte < 128) return value;
      factor *= 128;
    }
    // A negative number has ten bytes, and only as a 64-bit integer is it exact.
    let wide = BigInt(value);
    for (let count = EXACT_VARINT_BYTES; count < VARINT_BYTES_MAX; count++) {
      const byte = this.#byte();
      wide += BigInt(byte & 127) << BigInt(7 * count);
      if (byte < 128) return Number(BigInt.asIntN(64, wide));
    }
    throw malformed("an integer without end", this.#next);
  }

  #byte(): number {
    const at = this.#next;
    if (at >= this.#end) throw malformed("an integer cut off", at);
    this.#next = at + 1;
    return this.#bytes[at] as number;
  }
}

/** Writes one short message, or a part of one; nothing in it may be large. */
export class WireWriter {
  readonly #bytes: number[] = [];

  /** Writes an integer field. @param value From 0 to 2^53 − 1. */
  integer(field: number, value: number): this {
    this.#varint(field * 8 + WIRE_VARINT);
    this.#varint(value);
    return this;
  }

  text(field: number, value: string): this {
    return this.#delimited(field, encoder.encode(value));
  }

  bytes(field: number, value: Uint8Array): this {
    return this.#delimited(field, value);
  }

  message(field: number, value: WireWriter): this {
    return this.#delimited(field, value.#bytes);
  }

  /** @returns The encoded fields, in a buffer of exactly their length. */
  toBytes(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#bytes);
  }

  #delimited(field: number, payload: ArrayLike<number> & Iterable<number>): this {
    this.#varint(field * 8 + WIRE_BYTES);
    this.#varint(payload.length);
    for (const byte of payload) this.#bytes.push(byte);
    return this;
  }

  #varint(value: number): void {
    let rest = value;
    while (rest > 127) {
      this.#bytes.push((rest % 128) + 128);
      rest = Math.floor(rest / 128);
    }
    this.#bytes.push(rest);
  }
}
