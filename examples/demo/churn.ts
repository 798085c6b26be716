// An adversary of allocators: fills what it may, frees every other block, and asks for longer ones than
// the holes it has made. Its tensors are anonymous, so they cannot leave RAM; compaction is what helps.
import {
  formatBytes,
  type Random,
  type Tensor,
  type TensorKind,
  type TensorMemory,
} from "tierheap";
import { between, type Workload } from "./workload.js";

const KINDS: readonly TensorKind[] = ["ACTIVATIONS", "GRADIENTS"];
/** Share of the RAM budget that it fills. */
const SHARE = 0.35;
const STEP_COUNT = 12;
const LENGTHS_LOG2 = { least: 11, most: 18 };

export class Churn implements Workload {
  readonly #memory: TensorMemory;
  readonly #random: Random;
  readonly #targetBytes: number;
  #tensors: Tensor[] = [];
  #heldBytes = 0;
  #allocatedCount = 0;
  #refusedCount = 0;
  #phase: "fill" | "thin" | "press" = "fill";
  #left = 0;

  constructor(memory: TensorMemory, random: Random) {
    this.#memory = memory;
    this.#random = random;
    this.#targetBytes = memory.stats().budget.limitBytes * SHARE;
  }

  get summary(): string {
    const refused = this.#refusedCount.toLocaleString("en");
    const count = this.#allocatedCount.toLocaleString("en");
    return `${count} tensors so far, ${formatBytes(this.#heldBytes)} held, ${refused} refused`;
  }

  step(): void {
    for (let each = 0; each < STEP_COUNT; each++) this.#once();
  }

  end(): void {
    for (const tensor of this.#tensors) tensor.free();
    this.#tensors = [];
    this.#heldBytes = 0;
  }

  #once(): void {
    if (this.#phase === "fill") {
      const isFull = this.#heldBytes >= this.#targetBytes || !this.#allocate(this.#length(0));
      if (isFull) this.#begin("thin", this.#tensors.length);
    } else if (this.#phase === "thin") {
      // Every other one, so that no two holes touch.
      this.#left -= 2;
      if (this.#left < 0) this.#begin("press", 160);
      else this.#free(this.#left);
    } else {
      this.#left -= 1;
      if (this.#tensors.length > 0 && this.#random.uint32() % 3 === 0) {
        this.#free(between(this.#random, 0, this.#tensors.length - 1));
      }
      if (this.#heldBytes < this.#targetBytes) this.#allocate(this.#length(1));
      if (this.#left <= 0) this.#begin("fill", 0);
    }
  }

  #begin(phase: "fill" | "thin" | "press", count: number): void {
    this.#phase = phase;
    this.#left = count;
  }

  /** Any length between two powers of two is as likely as in the next octave. */
  #length(octaves: number): number {
    const { least, most } = LENGTHS_LOG2;
    const octave = between(this.#random, least + octaves * 4, most + octaves);
    return 2 ** octave + between(this.#random, 0, 2 ** octave - 1);
  }

  #allocate(byteLength: number): boolean {
    const kind = KINDS[this.#random.uint32() % KINDS.length] as TensorKind;
    const tensor = this.#memory.tryAllocate({ kind, byteLength });
    if (tensor === null) {
      this.#refusedCount += 1;
      return false;
    }
    this.#tensors.push(tensor);
    this.#heldBytes += byteLength;
    this.#allocatedCount += 1;
    return true;
  }

  #free(index: number): void {
    const [tensor] = this.#tensors.splice(index, 1);
    if (tensor === undefined) return;
    this.#heldBytes -= tensor.byteLength;
    tensor.free();
  }
}
