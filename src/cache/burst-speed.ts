// How fast tensors come in when several do at once, room made for them included. A burst is the time during
// which something is on its way: what one transfer waits for another is in it once.

/** Shorter bursts tell little. */
const BURST_BYTES_MIN = 65_536;
/** Bursts of which the median is known. */
const SAMPLE_COUNT = 32;

export class BurstSpeed {
  #underWayCount = 0;
  #startMs = 0;
  #bytes = 0;
  readonly #samples: number[] = [];
  #nextIndex = 0;

  /** Median of the last bursts, which a few slow ones do not change; null before there was one. */
  get bytesPerSecond(): number | null {
    const sorted = this.#samples.slice().sort((left, right) => left - right);
    return sorted[sorted.length >> 1] ?? null;
  }

  begin(nowMs: number): void {
    if (this.#underWayCount === 0) {
      this.#startMs = nowMs;
      this.#bytes = 0;
    }
    this.#underWayCount += 1;
  }

  /** @param bytes That have arrived; 0 for a failure. */
  end(nowMs: number, bytes: number): void {
    this.#bytes += bytes;
    this.#underWayCount -= 1;
    const durationMs = nowMs - this.#startMs;
    if (this.#underWayCount > 0 || this.#bytes < BURST_BYTES_MIN || durationMs <= 0) return;
    this.#samples[this.#nextIndex] = (1000 * this.#bytes) / durationMs;
    this.#nextIndex = (this.#nextIndex + 1) % SAMPLE_COUNT;
  }
}
