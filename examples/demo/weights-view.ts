// The panel for a visitor's own weights: a file chosen, dropped or made up, and where its tensors are.
import { formatBytes, type TensorMemory } from "tierheap";
import { element, make, say, sayProblem, setText } from "./dom.js";

type Weights = Awaited<ReturnType<typeof import("./weights.js")["Weights"]["load"]>>;

const ROW_COUNT_MAX = 200;

export class WeightsView {
  readonly #compare = element<HTMLButtonElement>("compare");
  #memory: TensorMemory | null = null;
  #weights: Weights | null = null;
  #busy: Promise<void> = Promise.resolve();
  #isBusy = false;

  constructor() {
    const input = element<HTMLInputElement>("file");
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      if (file !== undefined) this.#begin(() => this.#load(file));
    });
    element("sample").addEventListener("click", () => {
      this.#begin(async () => this.#load((await import("./weights.js")).makeSampleFile()));
    });
    this.#compare.addEventListener("click", () => this.#begin(() => this.#compareAll()));
    this.#listenForDrops();
  }

  get isBusy(): boolean {
    return this.#isBusy;
  }

  open(memory: TensorMemory): void {
    this.#memory = memory;
    this.#weights = null;
    this.#compare.disabled = true;
    setText(element("weights-note"), "No file yet.");
    element("weights-rows").replaceChildren();
  }

  /** Before the memory closes. */
  async close(): Promise<void> {
    await this.#busy;
  }

  /** Where the tensors are now. Called now and then. */
  showPlaces(): void {
    const weights = this.#weights;
    if (weights === null || this.#isBusy) return;
    const { file, byteLength, tensors, residentCount } = weights;
    const cold = tensors.length - residentCount;
    const text = `${file.name}: ${tensors.length} tensors, ${formatBytes(byteLength)}; ${residentCount} in RAM, ${cold} in colder tiers.`;
    setText(element("weights-note"), text);
    const rows = element("weights-rows").children;
    for (const [index, { tensor }] of tensors.slice(0, ROW_COUNT_MAX).entries()) {
      const place = rows[index]?.children[1];
      if (place != null) setText(place, tensor?.isResident === true ? "RAM" : "colder");
    }
  }

  #begin(work: () => Promise<void>): void {
    if (this.#isBusy) return;
    this.#isBusy = true;
    this.#busy = work()
      .catch(sayProblem)
      .finally(() => {
        this.#isBusy = false;
        this.showPlaces();
      });
  }

  async #load(file: File): Promise<void> {
    say(`Reading ${file.name}.`);
    const { Weights } = await import("./weights.js");
    const beganMs = performance.now();
    this.#weights = await Weights.load(this.#memory as TensorMemory, file);
    const seconds = (performance.now() - beganMs) / 1000;
    const { tensors, byteLength } = this.#weights;
    const rows = tensors
      .slice(0, ROW_COUNT_MAX)
      .map(({ name, dtype, shape, byteLength: bytes }) => {
        const head = make("th", "", name);
        head.scope = "row";
        const extent = make("td", "", `${dtype} [${shape.join(", ")}]`);
        return make("tr", "", head, make("td"), make("td", "", formatBytes(bytes)), extent);
      });
    element("weights-rows").replaceChildren(...rows);
    this.#compare.disabled = false;
    say(`${tensors.length} tensors, ${formatBytes(byteLength)}, read in ${seconds.toFixed(1)} s.`);
  }

  async #compareAll(): Promise<void> {
    if (this.#weights === null) return;
    const { equalCount, otherCount } = await this.#weights.compare();
    if (otherCount === 0) say(`All ${equalCount} tensors are equal to the file, byte for byte.`);
    else
      say(`${otherCount} of ${equalCount + otherCount} tensors differ from the file.`, "problem");
  }

  #listenForDrops(): void {
    const hasFile = ({ dataTransfer }: DragEvent) => dataTransfer?.types.includes("Files") === true;
    addEventListener("dragover", (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      document.body.dataset["dragging"] = "";
    });
    addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) delete document.body.dataset["dragging"];
    });
    addEventListener("drop", (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      delete document.body.dataset["dragging"];
      const file = event.dataTransfer?.files[0];
      if (file !== undefined) this.#begin(() => this.#load(file));
    });
  }
}
