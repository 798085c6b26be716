// A bar on a terminal; nothing where there is none.
import { type Clock, systemClock } from "../clock.js";
import type { CommandIo } from "./command.js";
import { printable } from "./output.js";

const BAR_LENGTH = 24;
/** Between two drawings. */
const INTERVAL_MS = 100;

export class ProgressBar {
  readonly #stream: CommandIo["err"];
  readonly #clock: Clock;
  #drawnMs = Number.NEGATIVE_INFINITY;
  #isDrawn = false;

  constructor(stream: CommandIo["err"], clock: Clock = systemClock) {
    this.#stream = stream;
    this.#clock = clock;
  }

  /** @param ratio 0 to 1. @param label What is being done. */
  show(ratio: number, label: string): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#stream.isTTY !== true || nowMs - this.#drawnMs < INTERVAL_MS) return;
    this.#drawnMs = nowMs;
    this.#isDrawn = true;
    const filled = Math.round(Math.max(0, Math.min(1, ratio)) * BAR_LENGTH);
    const bar = "█".repeat(filled) + "░".repeat(BAR_LENGTH - filled);
    const percent = `${Math.floor(ratio * 100)}`.padStart(3);
    this.#stream.write(`\r\u001b[K${bar} ${percent} %  ${printable(label)}`);
  }

  /** Takes the bar away. */
  end(): void {
    if (this.#isDrawn) this.#stream.write("\r\u001b[K");
    this.#isDrawn = false;
  }
}
