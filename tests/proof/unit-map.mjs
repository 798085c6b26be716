// Which bytes of an arena are owned, a bit per unit: two owners of one unit are a divergence.
import { must } from "./must.mjs";

export class UnitMap {
  #words;
  #unitShift;
  #unitCount;

  constructor(capacityBytes, unitShift) {
    this.#unitShift = unitShift;
    this.#unitCount = Math.floor(capacityBytes / 2 ** unitShift);
    this.#words = new Int32Array((this.#unitCount >>> 5) + 1);
  }

  /** Turns all units of a block, which must be `before`, 0 or 1. */
  turn(offset, bytes, before) {
    const unitBytes = 2 ** this.#unitShift;
    const first = offset / unitBytes;
    const end = Math.ceil((offset + bytes) / unitBytes);
    must(Number.isInteger(first) && bytes > 0 && end <= this.#unitCount, "outside", offset, bytes);
    const words = this.#words;
    const wanted = before === 0 ? 0 : -1;
    const lastWord = (end - 1) >>> 5;
    for (let at = first >>> 5; at <= lastWord; at++) {
      let mask = -1;
      if (at === first >>> 5) mask &= -1 << (first & 31);
      if (at === lastWord) mask &= -1 >>> (31 - ((end - 1) & 31));
      must(((words[at] ^ wanted) & mask) === 0, "bytes of two", offset, bytes);
      words[at] ^= mask;
    }
  }
}
