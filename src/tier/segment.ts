// A segment file as the store knows it: its name, its frames, and how much of it counts.
import {
  bytesOfHex,
  type Frame,
  TABLE_ENTRY_BYTES,
  TABLE_OVERHEAD_BYTES,
} from "./segment-format.js";

const SEGMENT_VERSION = 1;
const SEGMENT_NAME = /^([0-9a-f]{16})\.([0-9a-f]{32})\.([0-9]{1,9})\.segment$/;

/** A frame of a segment; an entry of the index while it counts. */
export interface StoredFrame extends Frame {
  readonly segment: Segment;
}

/** Sixteen hexadecimal digits, so that names sort as numbers do. */
export function wideHex(value: number): string {
  return value.toString(16).padStart(16, "0");
}

/** Number and id in the name of a segment, or null if it is no such name. */
export function parseSegmentName(
  name: string,
): { readonly number: number; readonly id: string; readonly isKnown: boolean } | null {
  const match = SEGMENT_NAME.exec(name);
  if (match === null) return null;
  const [, number = "", id = "", version = ""] = match;
  return { number: Number.parseInt(number, 16), id, isKnown: version === `${SEGMENT_VERSION}` };
}

export class Segment {
  readonly number: number;
  readonly name: string;
  readonly id: Uint8Array;
  /** Every frame in the file, in order, those that do not count too. */
  readonly frames: StoredFrame[] = [];
  /** Length of the file. */
  byteLength = 0;
  /** Of it, table and trailer. */
  tableBytes = 0;
  /** Bytes of the frames that count. */
  liveBytes = 0;
  /** Frames may still be appended. */
  isOpen = false;

  /** @param id 32 hexadecimal digits. */
  constructor(number: number, id: string) {
    this.number = number;
    this.name = `${wideHex(number)}.${id}.${SEGMENT_VERSION}.segment`;
    this.id = bytesOfHex(id);
  }

  /** Bytes that cleaning gives back. */
  get deadBytes(): number {
    return this.byteLength - this.tableBytes - this.liveBytes;
  }

  /** Length of the file, with the table that an open segment will get. */
  get physicalBytes(): number {
    if (!this.isOpen) return this.byteLength;
    return this.byteLength + TABLE_OVERHEAD_BYTES + this.frames.length * TABLE_ENTRY_BYTES;
  }
}
