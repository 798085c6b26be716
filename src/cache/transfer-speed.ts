// How fast something is, as running means of what its transfers have shown.
import type { TierFigures } from "../hardware/hardware-profile.js";

/** Shorter transfers tell the latency, longer ones the bandwidth. */
const SHORT_BYTES = 65536;
/** Weight of a new transfer. */
const SHARE = 0.2;

export class TransferSpeed {
  #latencyMs: number | null = null;
  #bytesPerMs: number | null = null;

  /** Milliseconds before the first byte; null before it was measured. */
  get latencyMs(): number | null {
    return this.#latencyMs;
  }

  /** Null before a transfer was long enough to tell. */
  get bytesPerSecond(): number | null {
    return this.#bytesPerMs === null ? null : 1000 * this.#bytesPerMs;
  }

  /** Takes what is known of reads beforehand as if it had been measured, unless something was. */
  expect(figures: TierFigures | undefined): void {
    if (figures === undefined) return;
    this.#latencyMs ??= figures.latencyMs ?? 0;
    this.#bytesPerMs ??= figures.readBytesPerSecond / 1000;
  }

  note(bytes: number, durationMs: number): void {
    if (bytes < SHORT_BYTES) {
      this.#latencyMs ??= durationMs;
      this.#latencyMs += SHARE * (durationMs - this.#latencyMs);
      return;
    }
    const movingMs = durationMs - (this.#latencyMs ?? 0);
    // As fast as the clock can tell, if it cannot.
    const bytesPerMs = bytes / Math.max(movingMs, durationMs / 10, 0.001);
    this.#bytesPerMs ??= bytesPerMs;
    this.#bytesPerMs += SHARE * (bytesPerMs - this.#bytesPerMs);
  }

  /** Expected milliseconds of a transfer, or null when nothing was measured yet. */
  estimateMs(bytes: number): number | null {
    if (this.#bytesPerMs === null) return bytes < SHORT_BYTES ? this.#latencyMs : null;
    return (this.#latencyMs ?? 0) + bytes / this.#bytesPerMs;
  }
}
