// Keeps a tier that fails from being asked again and again: after a few failures in a row nobody asks
// it for a while; then one call may try.
import type { Clock } from "../clock.js";

export type BreakerState = "closed" | "open" | "half-open";

export interface BreakerOptions {
  /** Default: 3. Failures in a row after which it opens. */
  readonly failureCountMax?: number;
  /** Default: 1,000. How long it stays open at first; twice as long after each failed try. */
  readonly delayMs?: number;
  /** Default: 60,000. */
  readonly delayMsMax?: number;
}

export class CircuitBreaker {
  readonly #clock: Clock;
  readonly #failureCountMax: number;
  readonly #delayMsMin: number;
  readonly #delayMsMax: number;
  #delayMs: number;
  #failureCount = 0;
  /** By the monotonic clock; null while it is closed. */
  #openUntilMs: number | null = null;
  #isTrying = false;

  constructor(clock: Clock, options: BreakerOptions = {}) {
    this.#clock = clock;
    this.#failureCountMax = options.failureCountMax ?? 3;
    this.#delayMsMin = options.delayMs ?? 1000;
    this.#delayMsMax = options.delayMsMax ?? 60_000;
    this.#delayMs = this.#delayMsMin;
  }

  get state(): BreakerState {
    if (this.#openUntilMs === null) return "closed";
    return this.#clock.monotonicMs() < this.#openUntilMs ? "open" : "half-open";
  }

  /** Whether a call would be let through. */
  get isPassable(): boolean {
    return this.state === "closed" || (this.state === "half-open" && !this.#isTrying);
  }

  /** Lets a call through; each must end with {@link succeed} or {@link fail}. */
  tryPass(): boolean {
    if (!this.isPassable) return false;
    if (this.#openUntilMs !== null) this.#isTrying = true;
    return true;
  }

  succeed(): void {
    this.#failureCount = 0;
    this.#openUntilMs = null;
    this.#isTrying = false;
    this.#delayMs = this.#delayMsMin;
  }

  fail(): void {
    this.#failureCount += 1;
    const hasTried = this.#isTrying;
    this.#isTrying = false;
    if (!hasTried && this.#failureCount < this.#failureCountMax) return;
    // Calls that began before it opened may still fail.
    if (!hasTried && this.#openUntilMs !== null) return;
    this.#openUntilMs = this.#clock.monotonicMs() + this.#delayMs;
    this.#delayMs = Math.min(this.#delayMsMax, 2 * this.#delayMs);
  }

  /** Opens it at once. */
  trip(): void {
    this.#failureCount = this.#failureCountMax;
    this.fail();
  }
}
