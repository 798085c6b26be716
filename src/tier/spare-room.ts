// Room on the device that is kept for deletions: on one that is full, or at a browser's quota, a packed
// object could not be deleted, since that is written down first. A file of its own holds the place.
import { privateBytes } from "../util/private-bytes.js";
import type { FileSystem } from "./file-system.js";

export class SpareRoom {
  readonly #files: FileSystem;
  readonly #path: string;
  readonly #byteLength: number;
  #isHeld = false;
  /** There may be room again, since it was given up. */
  #isWanted: boolean;

  /**
   * @param path A name that is swept at the next open, in case this one ends by itself.
   * @param byteLength 0: none is kept.
   */
  constructor(files: FileSystem, path: string, byteLength: number) {
    this.#files = files;
    this.#path = path;
    this.#byteLength = byteLength;
    this.#isWanted = byteLength > 0;
  }

  /** Bytes that are held now. */
  get byteLength(): number {
    return this.#isHeld ? this.#byteLength : 0;
  }

  /** Something was removed: what was given up may be had again. */
  noteRoom(): void {
    this.#isWanted = this.#byteLength > 0 && !this.#isHeld;
  }

  /** Takes the room if it is there. Never rejects. */
  async take(): Promise<void> {
    if (!this.#isWanted) return;
    this.#isWanted = false;
    try {
      const file = await this.#files.create(this.#path);
      this.#isHeld = true;
      try {
        // The last byte: file systems count what is before it, or make it when they need it.
        await file.write([privateBytes(1)], this.#byteLength - 1);
      } finally {
        await file.close();
      }
    } catch {
      await this.give();
    }
  }

  /** Gives the room up. Never rejects. @returns Whether there was any. */
  async give(): Promise<boolean> {
    const wasHeld = this.#isHeld;
    this.#isHeld = false;
    if (wasHeld) await this.#files.remove(this.#path).catch(() => {});
    return wasHeld;
  }
}
