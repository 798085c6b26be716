// How many tensors fit into the arenas of a budget. Layer: plan.
import type { TensorKind } from "../types.js";
import { arenaShareOf } from "./footprint.js";
import type { TensorRun } from "./kv-bytes.js";

/** Shares of an arena add up to whole ones, but for rounding. */
const ROUNDING = 1e-9;

export class RamRoom {
  readonly #usableBytes: number;
  readonly #arenaBytes: number;
  /** Bytes of ordinary arenas that tensors of a kind take up, in no whole number of arenas. */
  readonly #filledBytes = new Map<TensorKind, number>();
  /** Arenas of one tensor. */
  #ownBytes = 0;

  /** @param usableBytes What the budget has for arenas. @param arenaBytes Of an ordinary one. */
  constructor(usableBytes: number, arenaBytes: number) {
    this.#usableBytes = usableBytes;
    this.#arenaBytes = arenaBytes;
  }

  /** Of all arenas that are in use. */
  get arenaBytes(): number {
    return this.#ordinaryCount() * this.#arenaBytes + this.#ownBytes;
  }

  /** Puts in as many of the tensors as fit. @returns How many. */
  take(kind: TensorKind, { count, byteLength }: TensorRun): number {
    const share = arenaShareOf(byteLength, this.#arenaBytes);
    if (byteLength > this.#arenaBytes) {
      const taken = Math.min(count, Math.floor((this.#usableBytes - this.arenaBytes) / share));
      this.#ownBytes += taken * share;
      return taken;
    }
    const filled = this.#filledBytes.get(kind) ?? 0;
    const arenaCountMax = Math.floor((this.#usableBytes - this.#ownBytes) / this.#arenaBytes);
    const others = this.#ordinaryCount() - this.#arenasFor(filled);
    const roomBytes = Math.max(0, arenaCountMax - others) * this.#arenaBytes - filled;
    const taken = Math.min(count, Math.max(0, Math.floor(roomBytes / share + ROUNDING)));
    this.#filledBytes.set(kind, filled + taken * share);
    return taken;
  }

  #arenasFor(filledBytes: number): number {
    return Math.ceil(filledBytes / this.#arenaBytes - ROUNDING);
  }

  #ordinaryCount(): number {
    let count = 0;
    for (const filled of this.#filledBytes.values()) count += this.#arenasFor(filled);
    return count;
  }
}
